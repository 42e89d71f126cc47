"""Which detection belongs to which person, inside one shot."""

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
"""Cost of a pair that a gate forbids: finite, so that an assignment always exists, and dropped afterwards."""
MAX_DISTANCE = 0.3
"""Cosine distance beyond which two chips show different people, unless boxes leave no doubt; measured: same 0.0 to 0.12, others 0.17 to 0.55."""
ALIKE = 0.12
"""Cosine distance up to which two chips of consecutive frames show one person, however far apart: one who jumps, or is carried off by the camera."""
MAX_DISTANCE_IN_PLACE = 0.55
"""MAX_DISTANCE for boxes of consecutive frames that cover each other: a hand or a turned head changes a chip too."""


@dataclass(frozen=True)
class Sighting:
    """One detection in one frame with what was measured on it, and in some frames its face in packed form (faces/tracking/people.py).

    Of a mesh only its colours (faces/tracking/coverage.py) and its outline are kept.
    """

    frame: int
    face: Face
    descriptor: Tensor
    sharpness: float
    likeness: bytes | None = None
    colours: Tensor | None = None
    outline: Tensor | None = None


@dataclass
class Tracklet:
    """The sightings of one person so far, in order of frames, at most one per frame."""

    sightings: list[Sighting] = field(default_factory=list)
    look: Tensor = field(default_factory=lambda: torch.zeros(0))
    velocity: Tensor = field(default_factory=lambda: torch.zeros(4))

    @property
    def last(self) -> Sighting:
        return self.sightings[-1]

    def add(self, sighting: Sighting) -> None:
        """Appends a sighting; the remembered look follows slowly, and only what resembles it."""
        if not self.sightings:
            self.look = sighting.descriptor
        else:
            step = (sighting.face.box - self.last.face.box) / (sighting.frame - self.last.frame)
            self.velocity = step if len(self.sightings) == 1 else 0.5 * self.velocity + 0.5 * step
            if float(cosine_distance(self.look[None], sighting.descriptor[None])) < MAX_DISTANCE:
                self.look = F.normalize(0.85 * self.look + 0.15 * sighting.descriptor, dim=0)
        self.sightings.append(sighting)

    def predict(self, frame: int) -> Tensor:
        """The box (4,) expected in a later frame: its centre goes on at constant speed, its size stays."""
        centre = (self.velocity[:2] + self.velocity[2:]) / 2 * (frame - self.last.frame)
        return self.last.face.box + torch.cat([centre, centre])


def associate(frames: list[list[Sighting]], max_gap: int) -> list[Tracklet]:
    """Tracklets through the sightings of one shot, frame by frame, each pairing a minimum of the total cost.

    frames: per frame its sightings. A tracklet not seen for more than `max_gap` frames is closed.
    """
    tracklets: list[Tracklet] = []
    for sightings in frames:
        if not sightings:
            continue
        now = sightings[0].frame
        active = [tracklet for tracklet in tracklets if now - tracklet.last.frame <= max_gap + 1]
        taken = set()
        for row, column in assign(cost_matrix(active, sightings, now)):
            active[row].add(sightings[column])
            taken.add(column)
        for column, sighting in enumerate(sightings):
            if column not in taken:
                tracklets.append(Tracklet())
                tracklets[-1].add(sighting)
    return tracklets


def cost_matrix(tracklets: list[Tracklet], sightings: list[Sighting], now: int) -> Tensor:
    """(tracklets, sightings): (1 - IoU) + distance / 2 + 3 cosine distance of the descriptors, FORBIDDEN beyond a gate.

    Distance is between centres, in face sizes. Gates grow with the frames since a tracklet was last seen, and are relative to the face:
    distance 0.5 + 0.25 per frame, at most 2; size by a factor of 1.5 + 0.1 per frame, at most 2.5. In the next frame anywhere, if ALIKE.
    """
    if not tracklets or not sightings:
        return torch.zeros(len(tracklets), len(sightings))
    boxes = torch.stack([s.face.box for s in sightings]).double()
    expected = torch.stack([tracklet.predict(now) for tracklet in tracklets]).double()
    gap = torch.tensor([now - tracklet.last.frame for tracklet in tracklets], dtype=torch.float64)[:, None]
    overlap = iou(expected, boxes)
    size, wanted = side(boxes).clamp(min=1e-3)[None], side(expected).clamp(min=1e-3)[:, None]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    distance = torch.cdist((expected[:, :2] + expected[:, 2:]) / 2, centre) / (size * wanted).sqrt()
    apart = cosine_distance(torch.stack([tracklet.look for tracklet in tracklets]), torch.stack([s.descriptor for s in sightings])).double()
    limit = torch.where((gap <= 2) & (overlap > 0.5), MAX_DISTANCE_IN_PLACE, MAX_DISTANCE)
    ratio = torch.maximum(size / wanted, wanted / size)
    near = (distance <= (0.5 + 0.25 * (gap - 1)).clamp(max=2.0)) & (ratio <= (1.5 + 0.1 * (gap - 1)).clamp(max=2.5)) & (apart <= limit)
    allowed = near | ((gap == 1) & (ratio <= 2.5) & (apart <= ALIKE))
    return torch.where(allowed, (1 - overlap) + 0.5 * distance + 3 * apart, FORBIDDEN)


def assign(cost: Tensor) -> list[tuple[int, int]]:
    """Pairs (row, column) of the cheapest one-to-one assignment, without those that cost FORBIDDEN."""
    if not cost.numel():
        return []
    if min(cost.shape) == 1:  # one person or one tracklet: without SciPy, whose import takes a third of a second
        row, column = divmod(int(cost.argmin()), cost.shape[1])
        return [(row, column)] if cost[row, column] < FORBIDDEN else []
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(np.asarray(cost))
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if cost[r, c] < FORBIDDEN]
