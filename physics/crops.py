"""Degradations as an aligned face crop sees them.

Footage is described on the grid of its frames; a crop of `side` x `side` pixels samples those frames with `scale` crop pixels per frame
pixel. An operator that decimates by f starts from a finer grid with `scale` / f crop pixels per pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import reduce

from torch import Tensor

from . import kernels
from .average_pool import AveragePool
from .base import Degradation
from .bicubic import BicubicDownsample
from .blur import Blur
from .compose import chain_of, compose
from .grayscale import Grayscale
from .identity import GaussianNoise, Identity
from .temporal import TemporalBlur

DECIMATIONS = (1, 2, 4, 8, 16)
FINEST_FORMULA = 0.45
"""A Gaussian narrower than this, in pixels, is not well told by its values at pixel centres."""


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
    chain = chain_of(op)
    blurs = list(_crop_blurs(chain, scale / op.factor))
    decimation = nearest_decimation(scale, side)
    kept = [operator for operator in chain if isinstance(operator, TemporalBlur | Grayscale)]
    noise = math.hypot(op.noise_level, op.distortion)
    spatial = _merged(blurs, decimation)
    parts = [*kept, *([] if isinstance(spatial, Identity) else [spatial])]
    return compose([*([GaussianNoise(noise)] if noise else []), *parts])


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


def _crop_blurs(chain: tuple[Degradation, ...], pixel: float) -> Iterable[Blur]:
    """The blurs of a chain on the crop grid, without decimation; `pixel` is a pixel of the chain's finest grid in crop pixels."""
    for operator in reversed(chain):
        if isinstance(operator, Blur):
            yield _rescaled(operator, pixel)
        elif isinstance(operator, AveragePool) and operator.factor * pixel > 1:
            yield Blur(kernels.box_kernel(operator.factor * pixel), title=f"Average over {operator.factor * pixel:.3g} px")
        elif not (operator.transparent or isinstance(operator, AveragePool | BicubicDownsample | TemporalBlur | Grayscale)):
            raise ValueError(
                f"{operator.describe()} is tied to the pixels of whole frames and cannot be carried over to face crops; apply it to aligned "
                f"footage, or leave it out of the description"
            )
        pixel *= operator.factor


def _rescaled(blur: Blur, pixel: float) -> Blur:
    title = f"{blur.title} at {pixel:.3g} px per px"
    if blur.sigmas is not None:
        scaled = Blur.gaussian(blur.sigmas[0] * pixel, blur.sigmas[1] * pixel, blur.sigmas[2])
        if min(blur.sigmas[:2]) * pixel >= FINEST_FORMULA:
            return scaled
        title = scaled.title
    shift = [(side - 1) / 2 - side // 2 + (blur.offset or 0) - (blur.factor - 1) / 2 for side in blur.weights.shape]
    kernel = kernels.trim_kernel(kernels.rescale_kernel(blur.weights, pixel, (shift[0], shift[1])))
    return Blur(kernel, title=title)


def _merged(blurs: list[Blur], decimation: int) -> Degradation:
    if not blurs:
        return Identity() if decimation == 1 else BicubicDownsample(decimation)
    if decimation == 1 and len(blurs) == 1:
        return blurs[0]
    footprint = [kernels.bicubic_kernel(decimation)] if decimation > 1 else []
    kernel = reduce(kernels.convolve_kernels, [*(blur.weights for blur in blurs), *footprint])
    return Blur(kernels.trim_kernel(kernel), decimation, title=", ".join(blur.title for blur in blurs))
