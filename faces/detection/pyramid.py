"""BlazeFace on an image pyramid: face candidates."""

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
"""Sides of the smallest and largest boxes that BlazeFace detects reliably, in pixels of its input."""
COARSE, CLOSE = 192, 96
"""Longer sides to which a frame is scaled to find faces of 7 % of it or more (never enlarged), and faces that fill it."""
PYRAMID_STEP = 3.0
"""Ratio of neighbouring pyramid levels' scales; BlazeFace's own range is 13."""
MIN_FACE = 20
"""Smallest face in pixels of the downscaled frame."""
DETECT_SIZE = 480
"""Short side in pixels to which larger frames are downscaled before searching for the smallest faces."""
SCORE, DOUBTFUL_SCORE = 0.3, 0.2
"""Least BlazeFace score of a candidate, in coarse and in fine searches; FaceMesh verifies candidates."""


@dataclass(frozen=True)
class Candidate:
    """A BlazeFace detection: box (4,) in frame pixels, roll in radians, score in [0, 1]."""

    box: Tensor
    roll: float
    score: float


class BlazeFacePyramid:
    """Runs BlazeFace on pyramid levels of one frame."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.network = load_embedded(BlazeFace, self.device).to(memory_format=torch.channels_last)

    def levels(self, height: int, width: int, fine: bool) -> list[float]:
        """Scales of the pyramid levels, coarse ones first."""
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
        """Scale of the finest level for an image of this shorter side."""
        return min(1.0, DETECT_SIZE / short) * MIN_BOX / MIN_FACE

    def __call__(self, picture: np.ndarray, scales: Sequence[float], quarters: Sequence[int] = (0,), least: float = SCORE) -> list[Candidate]:
        """Candidates in an image (3, H, W) float32 RGB in [0, 1] with scores from `least`, best first; `quarters` are the quarter turns that are
        searched."""
        found: list[Candidate] = []
        height, width = picture.shape[1:]
        for quarter in quarters:
            shown = np.ascontiguousarray(np.rot90(picture, quarter, (1, 2))) if quarter else picture
            for scale in scales:
                found += [unrotate(candidate, quarter, height, width) for candidate in self.at(shown, scale, least)]
        return weighted_nms(found)

    @torch.inference_mode()
    def at(self, picture: np.ndarray, scale: float, least: float = SCORE) -> Iterator[Candidate]:
        """Candidates of one level with scores from `least`, before non-maximum suppression."""
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
    """A candidate in the image rotated by `quarter`, in coordinates of the unrotated image (height, width)."""
    if not quarter:
        return candidate
    x, y = candidate.box.reshape(2, 2).unbind(1)
    for done in range(quarter):
        # np.rot90 maps pixel (x, y) of an image of width w to (y, w - 1 - x)
        w = width if (quarter - done) % 2 else height
        x, y = w - 1 - y, x
    corners = torch.stack([x, y], 1)
    return Candidate(torch.cat([corners.amin(0), corners.amax(0)]), candidate.roll + quarter * np.pi / 2, candidate.score)


def weighted_nms(candidates: Sequence[Candidate], overlap: float = 0.3) -> list[Candidate]:
    """Weighted non-maximum suppression: averages overlapping boxes by score. Candidates of other roll are kept for FaceMesh to decide."""
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
