"""Gradual shot transitions: dissolves, and fades through black or white."""

from __future__ import annotations

import numpy as np
from torch import Tensor

HALF_LENGTHS = (3, 4, 6, 8, 12, 16, 20, 26, 34)
"""Half lengths of dissolves that are tried, in frames."""

STEADY = 3
"""Frames before and after a dissolve whose mean represents each shot."""

REACH = HALF_LENGTHS[-1] + STEADY + 1
"""Frames on either side of a dissolve's middle that are kept."""

MIN_DIFFERENCE = 0.07
"""Least mean difference of the two shots' thumbnails."""

LINEAR = 0.16
"""Error of a dissolve's frames against the linear mixture of both shots, relative to the shots' difference, if they are static."""

MOVING, CONTRAST = 0.55, 0.12
"""The same if they move, provided that the variance is the mixture's, within this share of the shots' mean variance: motion keeps the variance."""

DIP, MOVING_DIP = 0.8, 0.7
"""Largest variance of a mixture relative to the mixture of the variances, for static and for moving shots: 1/2 in the middle of two uncorrelated
shots, 1 for one scene in another light."""

SAME_SCENE_CORRELATION = 0.75
"""Correlation of two thumbnails above which they show one scene in another light."""

FLAT, SHOWN = 0.02, 0.06
"""Contrast (standard deviation) below which a thumbnail counts as blank, and above which it shows a scene."""


class DissolveDetector:
    """Finds dissolves and fades in a stream of thumbnails (3, h, w), with a look-ahead of REACH frames.

    A dissolve of half length h around t has, with a and b the means of STEADY frames before t - h and after t + h:

        x(t + s) = m(s) = (1/2 - s / 2h) a + (1/2 + s / 2h) b within LINEAR |a - b|, for s = -h/2, 0, h/2,
        a and b that differ by MIN_DIFFERENCE, do not change much themselves, have little in common, and are not one scene in another light.

    Where the shots move, a and b are not what is mixed in between, but their variance is: x may then miss m by MOVING |a - b|, if

        |var x(t + s) - var m(s)| <= CONTRAST (var a + var b) / 2,  var m(s) below MOVING_DIP times the mixture of var a and var b.

    Pans and zooms violate the first condition, since their middle is not the mean of their ends, and the last, since their variance is constant. A
    fade through black or white is reported at its first blank frame, once another scene appears.
    """

    def __init__(self) -> None:
        self.seen: dict[int, np.ndarray] = {}
        self.steps: dict[int, float] = {}
        """Mean difference of a frame's thumbnail from the one before."""
        self.means: dict[int, np.ndarray] = {}
        """Mean of the STEADY thumbnails from a frame on."""
        self.count = 0
        self.settled = 0
        self.found: dict[int, tuple[float, int]] = {}
        """Candidate middles: error and half length, as from `miss`."""
        self.last = (-HALF_LENGTHS[-1], 0)
        """The last dissolve's middle and half length."""
        self.shown: tuple[int, np.ndarray] | None = None
        """The last frame that showed a scene, and its thumbnail."""
        self.flat: int | None = None
        """The first blank frame after it."""

    @property
    def bound(self) -> int:
        """All dissolves and fades before this frame have been reported."""
        return min([self.settled, *self.found, *([] if self.flat is None else [self.flat])])

    def push(self, thumbnail: Tensor) -> list[int]:
        """Takes the next frame's thumbnail and returns the first frames of shots that became certain."""
        self.seen[self.count] = thumbnail.flatten().numpy()
        self.steps[self.count] = mean_difference(self.seen[self.count], self.seen.get(self.count - 1, self.seen[self.count]))
        self.count += 1
        if self.count >= STEADY:
            self.means[self.count - STEADY] = np.mean([self.seen[k] for k in range(self.count - STEADY, self.count)], axis=0)
        return self.settle(self.count - REACH)

    def finish(self) -> list[int]:
        """The transitions among the last frames."""
        return self.settle(self.count + REACH)

    def settle(self, until: int) -> list[int]:
        found: list[int] = []
        while self.settled < until:
            t, self.settled = self.settled, self.settled + 1
            if t in self.seen:
                found += self.faded(t)
                miss = self.miss(t)
                if miss is not None:
                    self.found[t] = miss
            found += self.best(t)
            self.seen.pop(t - REACH, None)
            self.steps.pop(t - REACH, None)
            self.means.pop(t - REACH, None)
        return found

    def best(self, t: int) -> list[int]:
        """The middle of a dissolve that ended: the candidate of least error, once the last candidate lies half its half length back. One that
        overlaps the dissolve before is the same. A list of at most one."""
        if not self.found:
            return []
        middle = min(self.found, key=lambda k: (self.found[k], k))
        half = self.found[middle][1]
        if t - max(self.found) < max(HALF_LENGTHS[1], half // 2):
            return []
        self.found.clear()
        same = middle - self.last[0] < half + self.last[1]
        self.last = self.last if same else (middle, half)
        return [] if same else [middle]

    def faded(self, t: int) -> list[int]:
        """The first blank frame of a fade, once another scene appears; a list of at most one."""
        thumbnail = self.seen[t]
        contrast = float(thumbnail.std())
        if contrast > SHOWN:
            flat, self.flat = self.flat, None
            another = flat is not None and self.shown is not None and not same_scene(self.shown[1], thumbnail)
            self.shown = (t, thumbnail)
            return [flat] if another and flat is not None else []
        if contrast < FLAT and self.flat is None and self.shown is not None and t - self.shown[0] > 1:  # one frame later would be a cut
            self.flat = t
        return []

    def miss(self, t: int) -> tuple[float, int] | None:
        """The dissolve around t of least error: the sum of three frames' errors, relative to the shots' difference, and the half length; or None."""
        best: tuple[float, int] | None = None
        for h in HALF_LENGTHS:
            first, last = t - h, t + h
            if first - STEADY + 1 < 0 or last + STEADY - 1 >= self.count:
                break
            start, end = self.means[first - STEADY + 1], self.means[last]
            far = mean_difference(start, end)
            if far < MIN_DIFFERENCE or max(self.steps[k] for k in range(first + 1, last + 1)) > max(0.45, 1.6 / h) * far:
                continue  # one shot, or a cut
            if min(float(start.std()), float(end.std())) <= FLAT or same_scene(start, end):
                continue  # a fade, or other light
            before, after = variance(start), variance(end)
            missed, contrast, dip = 0.0, 0.0, 1.0
            total = 0.0
            for s in (-(h // 2), 0, h // 2):
                share = 0.5 + s / (2 * h)
                mixed, seen = (1 - share) * start + share * end, self.seen[t + s]
                miss, variance_mixed = mean_difference(seen, mixed) / far, variance(mixed)
                contrast = max(contrast, 2 * abs(variance(seen) - variance_mixed) / max(before + after, 1e-9))
                dip = min(dip, variance_mixed / max((1 - share) * before + share * after, 1e-9))
                missed, total = max(missed, miss), total + miss
            still = missed < LINEAR and dip < DIP
            if still:
                still = max(mean_difference(self.seen[k], self.seen[k + STEADY - 1]) for k in (first - STEADY + 1, last)) <= 0.2 * far
            if (still or (missed < MOVING and contrast < CONTRAST and dip < MOVING_DIP)) and (best is None or total < best[0]):
                best = total, h
        return best


def variance(thumbnail: np.ndarray) -> float:
    """Variance of a flattened thumbnail over its pixels, averaged over its channels."""
    return float(thumbnail.reshape(3, -1).var(1).mean())


def mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).mean())


def same_scene(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two flattened thumbnails show one scene in light of other strength or colour; False if one is blank."""
    if min(float(a.std()), float(b.std())) < FLAT:
        return False
    x, y = (t.reshape(3, -1) - t.reshape(3, -1).mean(1, keepdims=True) for t in (a, b))
    x, y = (t / np.maximum(t.std(1, keepdims=True), 1e-4) for t in (x, y))
    return float((x * y).mean()) > SAME_SCENE_CORRELATION
