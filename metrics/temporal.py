"""Temporal consistency: warping error and flicker.

A pair is two consecutive frames, `first` and `second`. The flow leads from `first` into `second`, so `warp(second, flow)` is the second frame aligned
to the first, and only pixels of the first frame count that are visible in both (motion/occlusion.py). To compare methods, compute the flow from
the same clip for all of them: the reference, or the footage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..motion.dis import DisFlow
from ..motion.flow import FlowSource
from ..motion.occlusion import visible
from ..motion.warp import warp


@dataclass(frozen=True, eq=False)
class PairMotion:
    """Motion of a pair.

    Attributes:
        flow: (1, 2, H, W) float32 of the first frame into the second, in pixels.
        seen: (1, 1, H, W) float32, 1 where a pixel of the first frame is visible in the second.
    """

    flow: Tensor
    seen: Tensor


@dataclass(frozen=True)
class WarpingError:
    """d = first - warp(second, flow), m the visible pixels; three normalisations of sum m d^2, for frames in [0, 1].

    Attributes:
        rgb_sum: sum over m of |d|^2, channels summed, over the number of visible pixels (Lai et al., ECCV 2018, the formula;
            FLAIR's E_warp; seed-space MAP's WE, which is in units of 0.01). 0 to 3.
        per_value: the same over the number of visible values, a third of it (what Lai et al.'s published code computes). 0 to 1.
        over_all: the same over all values, hidden ones counting as 0 (the form of seed-space MAP's warping loss). 0 to 1.
    """

    rgb_sum: float
    per_value: float
    over_all: float


def pair_motion(source: FlowSource, first: Any, second: Any) -> PairMotion:
    """Motion of a pair from the features (`source.features`) of both frames."""
    flow = source.flow(first, second)
    return PairMotion(flow, visible(flow, source.flow(second, first)))


def warping_error(first: Tensor, second: Tensor, motion: PairMotion, region: Tensor | None = None) -> WarpingError:
    """The three warping errors of a pair of frames (1, 3, H, W) in [0, 1].

    region: (1, 1, H, W) weights in [0, 1] of the first frame's pixels; None for uniform. NaN where all weights are 0.
    """
    counted = motion.seen if region is None else motion.seen * region
    everything = counted.numel() if region is None else float(region.double().sum())
    squares = float((_warped_difference(first, second, motion).square().sum(1, keepdim=True) * counted).double().sum())
    shown = float(counted.double().sum())
    rgb_sum = _ratio(squares, shown)
    return WarpingError(rgb_sum, rgb_sum / 3, _ratio(squares, 3 * everything))


def flicker(first: Tensor, second: Tensor, motion: PairMotion, truth: tuple[Tensor, Tensor] | None = None, region: Tensor | None = None) -> float:
    """mean over visible values of |(warp(second) - first) - (warp(truth's second) - truth's first)|, in grey levels (0 to 255, with a truth 510).

    Without a truth it includes every change along the motion, also of illumination, noise and interpolation; with one only what the restoration
    added, and 0 if the frames equal the truth.

    first, second, truth: (1, 3, H, W) in [0, 1]. region: as in `warping_error`. NaN where nothing counts.
    """
    counted = motion.seen if region is None else motion.seen * region
    change = _warped_difference(first, second, motion)
    if truth is not None:
        change = change - _warped_difference(*truth, motion)
    total = float((change.abs().sum(1, keepdim=True) * counted).double().sum())
    return 255 * _ratio(total, 3 * float(counted.double().sum()))


def mean_warping_error(frames: Tensor, motion_of: Tensor) -> WarpingError:
    """Warping errors of a clip, averaged over its pairs.

    Args:
        frames: (T, 3, H, W) in [0, 1], T at least 2.
        motion_of: the clip, of the same shape, from which DIS flow is computed.

    Raises:
        ValueError: if the two clips differ in shape, or are single frames.
    """
    if frames.shape != motion_of.shape or len(frames) < 2:
        raise ValueError(
            f"warping error needs two frames or more and as many to take the motion from, got {tuple(frames.shape)} and {tuple(motion_of.shape)}"
        )
    pairs = [warping_error(frames[t : t + 1], frames[t + 1 : t + 2], motion) for t, motion in enumerate(_pair_motions(motion_of, DisFlow()))]
    names = ("rgb_sum", "per_value", "over_all")
    return WarpingError(*(_mean([getattr(pair, name) for pair in pairs]) for name in names))


def _pair_motions(clip: Tensor, source: FlowSource) -> Iterator[PairMotion]:
    before = source.features(clip[:1] * 2 - 1)
    for t in range(1, len(clip)):
        now = source.features(clip[t : t + 1] * 2 - 1)
        yield pair_motion(source, before, now)
        before = now


def _warped_difference(first: Tensor, second: Tensor, motion: PairMotion) -> Tensor:
    return warp(second, motion.flow) - first.float()


def _ratio(total: float, count: float) -> float:
    return total / count if count else float("nan")


def _mean(values: list[float]) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    return float(torch.tensor(values, dtype=torch.float64).nanmean())
