"""Degradations as an aligned face crop sees them.

Footage is described on the grid of its frames; a crop of `side` x `side` pixels samples those frames with `scale` crop pixels per frame
pixel. An operator that decimates by f starts from a finer grid with `scale` / f crop pixels per pixel.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

from torch import Tensor

from .base import Degradation
from .compose import compose
from .identity import GaussianNoise
from .linear import kernels
from .linear.average_pool import AveragePool
from .linear.bicubic import BicubicDownsample
from .linear.blur import Blur

DECIMATIONS = (1, 2, 4, 8, 16)


def crop_operator(op: Degradation, scale: float, side: int = 512) -> Degradation:
    """A on a side x side crop grid, from a clean crop to `observation` of the crop that footage under `op` gives.

    Every blur kernel is rescaled to crop pixels (Gaussians by their formula, others tap by tap), the kernels and the footprint of the
    decimation (antialiased bicubic, that of `observation`) become one, and every d-th pixel is kept: d is the power of two up to 16
    dividing `side` nearest to max(1, scale) in ratio. Decimation alone becomes BicubicDownsample(d), or the identity for d = 1.
    Temporal blur and loss of colour stay. The noise level stays; codecs lose their block grid in the warp, so their expected
    distortion is counted as noise.

    Args:
        op: how the footage came about, in pixels of the finest grid `op` starts from.
        scale: crop pixels per frame pixel, above 0; more than 1 when the face is smaller than `side` in the frame.
        side: of the crop, in pixels.
    Raises:
        ValueError: for a scale that is not positive, or an operator tied to positions in the frame (inpainting).
    """
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"a crop has a positive number of crop pixels per frame pixel, got scale {scale}")
    parts = op.on_crop(scale / op.factor).chain
    kept = [part for part in parts if part.axes and "space" not in part.axes]
    noise = math.hypot(op.noise_level, op.distortion)
    spatial = _merge_blurs([part for part in reversed(parts) if "space" in part.axes], nearest_decimation(scale, side))
    return compose([*([GaussianNoise(noise)] if noise else []), *kept, *spatial])


def observation(crops: Tensor, op: Degradation) -> Tensor:
    """y for `op` from crops (N, 3, side, side) resampled from frames: the crops themselves when `op` keeps their size, else decimated to
    `op.output_size` with antialiasing (bicubic up to a factor of 16, whose flat response keeps detail; averages beyond)."""
    if op.factor == 1:
        return crops
    return (BicubicDownsample(op.factor) if op.factor <= 16 else AveragePool(op.factor)).forward(crops)


def nearest_decimation(scale: float, side: int) -> int:
    """The power of two up to 16 dividing `side` that is nearest to max(1, scale) in ratio."""
    goal = math.log2(max(1.0, scale))
    return min((d for d in DECIMATIONS if side % d == 0), key=lambda d: abs(math.log2(d) - goal))


def _merge_blurs(blurs: list[Any], decimation: int) -> list[Degradation]:
    """Blurs in the order in which they act, and the decimation, as one operator, or none."""
    if not blurs:
        return [BicubicDownsample(decimation)] if decimation > 1 else []
    if decimation == 1 and len(blurs) == 1:
        return [*blurs]
    footprint = [kernels.bicubic_kernel(decimation)] if decimation > 1 else []
    kernel = reduce(kernels.convolve_kernels, [*(blur.weights for blur in blurs), *footprint])
    return [Blur(kernels.trim_kernel(kernel), decimation, title=", ".join(blur.title for blur in blurs))]
