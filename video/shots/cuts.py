"""Shot boundary detection without a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..reading.source import FrameChunk
from .dissolves import DissolveDetector

BINS = 16
ROWS, COLUMNS = 48, 64
MERGE_DISTANCE = 8
"""A dissolve at most this many frames from another shot boundary is the same boundary."""
FLOOR, RATIO, REACH = 0.16, 2.5, 5
"""Of `ShotCutDetector`: least frame distance of a cut, its least ratio to the mean of the distances on either side, and how many those are."""
UNRELATED = 0.7
"""Correlation of two frames under the best shift, below which they show different scenes: portraits of different people reach 0.71 (median 0.46),
fast or shaking cameras stay above 0.75."""
FLAT = 0.02
"""Contrast (standard deviation) below which a frame counts as blank."""


@dataclass(frozen=True, eq=False)
class FrameFeatures:
    """A frame's thumbnail (3, 12, 16), colour histograms of its quarters (3, 4, BINS) and brightness (ROWS / 2, COLUMNS / 2)."""

    thumbnail: Tensor
    histogram: Tensor
    brightness: np.ndarray


def frame_features(frames: Tensor) -> list[FrameFeatures]:
    """The features of frames (n, 3, H, W) in [0, 1]. Each pixel is shared by its two nearest histogram bins, so that noise changes little."""
    small = F.adaptive_avg_pool2d(frames.detach().cpu(), (ROWS, COLUMNS)).clamp(0, 1)
    place = small * (BINS - 1)
    low = place.floor().clamp(max=BINS - 2)
    share = place - low
    quarter = torch.arange(ROWS)[:, None] * 2 // ROWS * 2 + torch.arange(COLUMNS) * 2 // COLUMNS
    index = (quarter * BINS + low.long()).flatten(2)
    histogram = torch.zeros(len(small), 3, 4 * BINS)
    histogram.scatter_add_(2, index, (1 - share).flatten(2)).scatter_add_(2, index + 1, share.flatten(2))
    histogram = histogram.view(-1, 3, 4, BINS) / (ROWS * COLUMNS / 4)
    brightness = F.avg_pool2d(small.mean(1), 2).numpy()
    return [FrameFeatures(*of) for of in zip(F.adaptive_avg_pool2d(small, (12, 16)), histogram, brightness, strict=True)]


def distance(a: FrameFeatures, b: FrameFeatures) -> float:
    """Half the histograms' total variation (0 to 0.5) plus twice the thumbnails' mean difference (0 to 2)."""
    variation = (a.histogram - b.histogram).abs().sum(-1).mean() / 2
    return float(variation / 2 + 2 * (a.thumbnail - b.thumbnail).abs().mean())


def unrelated(a: FrameFeatures, b: FrameFeatures) -> bool:
    """Whether two frames show different scenes, under any shift by up to half of the width and a quarter of the height; not where one is blank."""
    x, y = a.brightness, b.brightness
    if min(x.std(), y.std()) < FLAT:
        return False
    height, width = x.shape
    shifts = [(down, right) for down in range(-height // 4, height // 4 + 1) for right in range(-width // 2, width // 2 + 1)]
    for down, right in sorted(shifts, key=lambda shift: shift[0] ** 2 + shift[1] ** 2):
        p = x[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
        q = y[max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)]
        p, q = p - p.mean(), q - q.mean()
        if (p * q).sum() > UNRELATED * np.sqrt((p * p).sum() * (q * q).sum()):
            return False
    return True


class ShotCutDetector:
    """Finds cuts in a stream of frames with a look-ahead of REACH frames, and where `gradual` dissolves and fades too (dissolves.py).

    With d(i, j) the distance of two frames, frame t begins a new shot if d(t - 1, t)

        exceeds FLOOR,
        is the largest of the steps d(s - 1, s), |s - t| <= REACH, and RATIO times the mean of those on either side,
        and every d(t - 1, t + k) and d(t - 1 - k, t), 0 <= k < REACH, exceeds FLOOR and half of d(t - 1, t).

    The second condition excludes fast motion, camera shake, fades and noise, the third flashes of up to REACH - 1 frames. Where all steps are large,
    as between photographs or in shots of a few frames, t also begins a new shot if frames t - 1 and t are `unrelated` and the distances of the third
    condition exceed FLOOR.

    Attributes:
        found: all cuts reported so far, in order.
    """

    def __init__(self, *, gradual: bool = True) -> None:
        self.dissolves = DissolveDetector() if gradual else None
        self.found: list[int] = []
        self.sharp: list[int] = []
        self.gradual: list[int] = []
        """With `sharp`: cuts and dissolves that are not yet reported."""
        self.recent: dict[int, FrameFeatures] = {}
        self.steps: dict[int, float] = {}
        self.count = 0
        self.settled = 1
        """Every cut before this frame number has been reported."""

    @property
    def memory(self) -> dict[str, Any]:
        """The whole state, with which another detector continues as this one would."""
        return vars(self)

    @memory.setter
    def memory(self, known: Mapping[str, Any]) -> None:
        vars(self).update(known)

    def push(self, frames: Tensor) -> list[int]:
        """Takes the next frames (n, 3, H, W) in [0, 1] and returns the first frames of shots that became certain."""
        cuts: list[int] = []
        for features in frame_features(frames) if len(frames) else []:
            self.recent[self.count] = features
            if self.count:
                self.steps[self.count] = distance(self.recent[self.count - 1], features)
            self.count += 1
            while self.settled + REACH < self.count:
                cuts += self.settle()
            if self.dissolves is not None:
                self.gradual += self.dissolves.push(features.thumbnail)
        return self.report(cuts, self.count if self.dissolves is None else self.dissolves.bound)

    def finish(self) -> list[int]:
        """The cuts among the last frames."""
        cuts: list[int] = []
        while self.settled < self.count:
            cuts += self.settle()
        if self.dissolves is not None:
            self.gradual += self.dissolves.finish()
        return self.report(cuts, self.count)

    def report(self, cuts: list[int], bound: int) -> list[int]:
        """The cuts and dissolves before frame `bound` that are not yet reported, in order; see MERGE_DISTANCE."""
        self.sharp += cuts
        new = [cut for cut in self.sharp if cut < bound]
        for cut in [cut for cut in self.gradual if cut < bound]:
            if cut > 0 and all(abs(cut - other) > MERGE_DISTANCE for other in [*self.sharp, *self.found[-4:], *new]):
                new.append(cut)
        self.sharp, self.gradual = [cut for cut in self.sharp if cut >= bound], [cut for cut in self.gradual if cut >= bound]
        self.found += sorted(new)
        return sorted(new)

    def settle(self) -> list[int]:
        t, self.settled = self.settled, self.settled + 1
        cut = [t] if self.is_cut(t) else []
        self.recent.pop(t - REACH, None)
        self.steps.pop(t - REACH, None)
        return cut

    def is_cut(self, t: int) -> bool:
        step = self.steps[t]
        if step <= FLOOR:
            return False
        after = [distance(self.recent[t - 1], self.recent[s]) for s in range(t, min(t + REACH, self.count))]
        before = [distance(self.recent[s], self.recent[t]) for s in range(max(0, t - REACH), t) if s in self.recent]
        nearest = min(after + before)
        if nearest <= FLOOR:
            return False
        sides = [[self.steps[s] for s in side if s in self.steps] for side in (range(t - REACH, t), range(t + 1, t + 1 + REACH))]
        stands_out = all(step >= max(steps) and step >= RATIO * sum(steps) / len(steps) for steps in sides if steps)
        return (stands_out and nearest > step / 2) or unrelated(self.recent[t - 1], self.recent[t])


def find_cuts(frames: Tensor | Iterable[FrameChunk], detector: ShotCutDetector | None = None) -> list[int]:
    """Numbers of the frames, 0 excepted, that begin a new shot. `frames`: (T, 3, H, W) in [0, 1], or chunks of a source."""
    detector = detector or ShotCutDetector()
    cuts: list[int] = []
    for part in frames.split(32) if isinstance(frames, Tensor) else (chunk.frames for chunk in frames):
        cuts += detector.push(part)
    return cuts + detector.finish()
