"""BlazeFace on a pyramid of a picture: where faces may be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from ...models.blazeface import MULTIPLE, STRIDE, BlazeFace
from ...models.embedded import load_embedded
from ..geometry import iou

MIN_BOX, MAX_BOX = 13.0, 170.0
"""Sides of the smallest and the largest box that BlazeFace is sure of, in pixels of its input."""
COARSE, CLOSE = 192, 96
"""Longer sides of a frame at which it is searched for faces from 7 % of it on (never enlarged), and for such as fill it or more."""
PYRAMID_STEP = 3.0
"""Ratio of neighbouring pyramid levels' scales; BlazeFace's own range is 13."""
MIN_FACE = 20
"""Smallest face in pixels of the frame as it is searched."""
DETECT_SIZE = 480
"""Short side, in pixels, at which larger frames are searched for the smallest faces."""
SCORE, DOUBTFUL_SCORE = 0.3, 0.2
"""Least BlazeFace score of a candidate, and where a frame is searched finely; FaceMesh has the last word."""


@dataclass(frozen=True)
class Candidate:
    """What BlazeFace says of a face: its box (4,) and roll (radians) in the frame, and its score in [0, 1]."""

    box: Tensor
    roll: float
    score: float


class Searcher:
    """BlazeFace on a pyramid of one frame."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.network = load_embedded(BlazeFace, self.device).to(memory_format=torch.channels_last)

    def levels(self, height: int, width: int, fine: bool) -> list[float]:
        """Scales at which a frame is searched, coarse ones first."""
        long, short = max(height, width), min(height, width)
        scales = [min(COARSE / long, 1.0)]
        if fine:
            if scales[0] * long > MAX_BOX:
                scales.append(CLOSE / long)
            scale = self.finest(short)
            while scale > 1.15 * scales[0] and len(scales) < 8:
                scales.append(scale)
                scale /= PYRAMID_STEP
        return scales

    @staticmethod
    def finest(short: int) -> float:
        """The scale at which a picture of this shorter side is searched for the smallest faces."""
        return min(1.0, DETECT_SIZE / short) * MIN_BOX / MIN_FACE

    def __call__(self, picture: np.ndarray, scales: Sequence[float], quarters: Sequence[int] = (0,), least: float = SCORE) -> list[Candidate]:
        """Candidates in a picture (3, H, W) float32 RGB in [0, 1], best first, that score at `least` so much; `quarters` are the turns at which it
        is searched."""
        found: list[Candidate] = []
        height, width = picture.shape[1:]
        for quarter in quarters:
            shown = np.ascontiguousarray(np.rot90(picture, quarter, (1, 2))) if quarter else picture
            for scale in scales:
                found += [unrotate(candidate, quarter, height, width) for candidate in self.at(shown, scale, least)]
        return weighted_nms(found)

    @torch.inference_mode()
    def at(self, picture: np.ndarray, scale: float, least: float = SCORE) -> Iterator[Candidate]:
        """Candidates of one level that score at `least` so much, before doubles are removed."""
        height, width = picture.shape[1:]
        size = max(1, round(width * scale)), max(1, round(height * scale))
        canvas = np.zeros((-(-size[1] // MULTIPLE) * MULTIPLE, -(-size[0] // MULTIPLE) * MULTIPLE, 3), np.float32)
        for channel, plane in enumerate(picture):
            small = cv2.resize(plane, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
            canvas[: size[1], : size[0], channel] = small * 2 - 1
        logits, places = self.network(torch.from_numpy(canvas).permute(2, 0, 1)[None].to(self.device))
        scores = torch.sigmoid(logits[0].float().cpu())
        rows, columns = torch.nonzero(scores >= least, as_tuple=True)
        places = places[0].float().cpu()[rows, columns].double()
        middle = torch.stack([columns, rows], 1).double() * STRIDE + STRIDE / 2
        zoom = torch.tensor([width / size[0], height / size[1]], dtype=torch.float64)
        for score, place, anchor in zip(scores[rows, columns].tolist(), places, middle, strict=True):
            corners = torch.stack([place[0] + anchor - place[1] / 2, place[0] + anchor + place[1] / 2]) * zoom - 0.5
            if bool((corners[1] > corners[0]).all()):
                yield Candidate(corners.reshape(4), float(torch.atan2(*(place[3] - place[2]).flip(0))), score)


def unrotate(candidate: Candidate, quarter: int, height: int, width: int) -> Candidate:
    """A candidate of the picture turned by `quarter` as one of the picture (height, width)."""
    if not quarter:
        return candidate
    x, y = candidate.box.reshape(2, 2).unbind(1)
    for done in range(quarter):
        # np.rot90 takes pixel (x, y) of a picture of width w to (y, w - 1 - x)
        w = width if (quarter - done) % 2 else height
        x, y = w - 1 - y, x
    corners = torch.stack([x, y], 1)
    return Candidate(torch.cat([corners.amin(0), corners.amax(0)]), candidate.roll + quarter * np.pi / 2, candidate.score)


def weighted_nms(candidates: Sequence[Candidate], overlap: float = 0.3) -> list[Candidate]:
    """Non-maximum suppression that averages overlapping boxes, weighted by score. Faces of another roll do not suppress: FaceMesh decides."""
    left = sorted(candidates, key=lambda c: (-c.score, *c.box.tolist()))
    kept = []
    while left:
        boxes = torch.stack([c.box for c in left])
        same = (iou(boxes[:1], boxes)[0] >= overlap) & torch.tensor([math.cos(c.roll - left[0].roll) > 0.5 for c in left])
        same[0] = True
        weight = torch.tensor([c.score for c in left], dtype=torch.float64)[same][:, None]
        box = (boxes[same] * weight).sum(0) / weight.sum()
        kept.append(Candidate(box, left[0].roll, left[0].score))
        left = [c for c, s in zip(left, same.tolist(), strict=True) if not s]
    return kept
