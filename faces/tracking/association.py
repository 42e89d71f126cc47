"""Data association of detections to tracklets within a shot."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import iou, side
from ..types import Face
from .appearance import cosine_distance

FORBIDDEN = 1e4
"""Cost of gated pairs: finite, so that an assignment always exists; such pairs are dropped afterwards."""
MAX_DISTANCE = 0.3
"""Largest cosine distance of a match; measured: 0.0 to 0.12 for the same person, 0.17 to 0.55 for others."""
ALIKE = 0.12
"""Largest cosine distance of a match between consecutive frames at any position, for jumps and camera motion."""
MAX_DISTANCE_IN_PLACE = 0.55
"""MAX_DISTANCE for overlapping boxes in consecutive frames: hands and head turns change a chip as well."""


@dataclass(frozen=True)
class Detection:
    """A face in one frame with its measurements; in some frames with its embedding crop as JPEG (faces/tracking/people.py).

    The mesh is reduced to its colours (faces/tracking/coverage.py) and outline.
    """

    frame: int
    face: Face
    descriptor: Tensor
    sharpness: float
    embedding_crop: bytes | None = None
    colours: Tensor | None = None
    outline: Tensor | None = None


@dataclass
class Tracklet:
    """Detections of one person in a shot, ordered by frame, at most one per frame."""

    detections: list[Detection] = field(default_factory=list)
    look: Tensor = field(default_factory=lambda: torch.zeros(0))
    velocity: Tensor = field(default_factory=lambda: torch.zeros(4))

    @property
    def last(self) -> Detection:
        return self.detections[-1]

    def add(self, detection: Detection) -> None:
        """Appends a detection, and updates the velocity and, if it is similar, the running mean descriptor."""
        if not self.detections:
            self.look = detection.descriptor
        else:
            step = (detection.face.box - self.last.face.box) / (detection.frame - self.last.frame)
            self.velocity = step if len(self.detections) == 1 else 0.5 * self.velocity + 0.5 * step
            if float(cosine_distance(self.look[None], detection.descriptor[None])) < MAX_DISTANCE:
                self.look = F.normalize(0.85 * self.look + 0.15 * detection.descriptor, dim=0)
        self.detections.append(detection)

    def predict(self, frame: int) -> Tensor:
        """The predicted box (4,) in a later frame: constant velocity of the centre, constant size."""
        centre = (self.velocity[:2] + self.velocity[2:]) / 2 * (frame - self.last.frame)
        return self.last.face.box + torch.cat([centre, centre])


def associate(frames: list[list[Detection]], max_gap: int) -> list[Tracklet]:
    """Tracklets from the detections of one shot, by minimum-cost assignment from frame to frame.

    frames: the detections of each frame. A tracklet without a detection for more than `max_gap` frames is closed.
    """
    tracklets: list[Tracklet] = []
    for detections in frames:
        if not detections:
            continue
        now = detections[0].frame
        active = [tracklet for tracklet in tracklets if now - tracklet.last.frame <= max_gap + 1]
        taken = set()
        for row, column in assign(cost_matrix(active, detections, now)):
            active[row].add(detections[column])
            taken.add(column)
        for column, detection in enumerate(detections):
            if column not in taken:
                tracklets.append(Tracklet())
                tracklets[-1].add(detection)
    return tracklets


def cost_matrix(tracklets: list[Tracklet], detections: list[Detection], now: int) -> Tensor:
    """(tracklets, detections): (1 - IoU) + distance / 2 + 3 cosine distance of the descriptors, FORBIDDEN beyond a gate.

    Distance is between centres, relative to face size. Gates grow with the gap in frames: distance 0.5 + 0.25 per frame, at most 2; size ratio
    1.5 + 0.1 per frame, at most 2.5. Consecutive frames match at any distance if ALIKE.
    """
    if not tracklets or not detections:
        return torch.zeros(len(tracklets), len(detections))
    boxes = torch.stack([s.face.box for s in detections]).double()
    expected = torch.stack([tracklet.predict(now) for tracklet in tracklets]).double()
    gap = torch.tensor([now - tracklet.last.frame for tracklet in tracklets], dtype=torch.float64)[:, None]
    overlap = iou(expected, boxes)
    size, wanted = side(boxes).clamp(min=1e-3)[None], side(expected).clamp(min=1e-3)[:, None]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    distance = torch.cdist((expected[:, :2] + expected[:, 2:]) / 2, centre) / (size * wanted).sqrt()
    apart = cosine_distance(torch.stack([tracklet.look for tracklet in tracklets]), torch.stack([s.descriptor for s in detections])).double()
    limit = torch.where((gap <= 2) & (overlap > 0.5), MAX_DISTANCE_IN_PLACE, MAX_DISTANCE)
    ratio = torch.maximum(size / wanted, wanted / size)
    near = (distance <= (0.5 + 0.25 * (gap - 1)).clamp(max=2.0)) & (ratio <= (1.5 + 0.1 * (gap - 1)).clamp(max=2.5)) & (apart <= limit)
    allowed = near | ((gap == 1) & (ratio <= 2.5) & (apart <= ALIKE))
    return torch.where(allowed, (1 - overlap) + 0.5 * distance + 3 * apart, FORBIDDEN)


def assign(cost: Tensor) -> list[tuple[int, int]]:
    """Pairs (row, column) of the minimum-cost assignment, without FORBIDDEN ones."""
    if not cost.numel():
        return []
    if min(cost.shape) == 1:  # one person or one tracklet: without SciPy, whose import takes a third of a second
        row, column = divmod(int(cost.argmin()), cost.shape[1])
        return [(row, column)] if cost[row, column] < FORBIDDEN else []
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(np.asarray(cost))
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if cost[r, c] < FORBIDDEN]
