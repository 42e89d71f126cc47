"""Fidelity to the reference: PSNR and SSIM per frame, over the whole frame or a region."""

from __future__ import annotations

import math

import torch
from torch import Tensor

WINDOW = 11
SIGMA = 1.5


def psnr(x: Tensor, y: Tensor, peak: float = 1.0, region: Tensor | None = None) -> Tensor:
    """PSNR of each frame in dB: 10 log10(peak^2 / MSE); infinite for equal frames.

    x, y: (N, C, H, W) of one shape, range 0..peak. region: (N, 1, H, W) pixel weights in [0, 1]; None for uniform.
    Returns (N,) float64, NaN where the region is empty.

    Raises:
        ValueError: if the shapes differ or are not (N, C, H, W), or the region does not fit.

    >>> psnr(torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.1)).round().item()
    20.0
    """
    _check(x, y, region)
    error = weighted_mean((x.double() - y.double()).square(), region)
    return 10 * torch.log10(peak**2 / error)


def ssim(x: Tensor, y: Tensor, region: Tensor | None = None) -> Tensor:
    """Structural similarity of each frame (Wang et al. 2004): 11 x 11 Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03, mean over
    channels and over the pixels whose window lies inside the frame.

    SSIM = (2 mx my + c1) (2 sxy + c2) / ((mx^2 + my^2 + c1) (sxx + syy + c2)), moments under the window, not corrected for its size.

    x, y: (N, C, H, W) of one shape, in [0, 1], sides at least 11. region: (N, 1, H, W) weights in [0, 1] of the windows around
    each pixel; None for uniform. Returns (N,) float64, at most 1; NaN where no window is centred in the region.

    Raises:
        ValueError: if the shapes differ, are not (N, C, H, W), a side is below 11 pixels, or the region does not fit.

    >>> frames = torch.rand(2, 3, 16, 16)
    >>> ssim(frames, frames).tolist()
    [1.0, 1.0]
    """
    _check(x, y, region)
    return ssim_within(ssim_map(x, y), region)


def ssim_map(x: Tensor, y: Tensor) -> Tensor:
    """SSIM map of the windows that lie inside the frame, (N, C, H - 10, W - 10) float64; see `ssim`."""
    _check(x, y, None)
    if min(x.shape[-2:]) < WINDOW:
        raise ValueError(f"SSIM looks through an {WINDOW} x {WINDOW} window, got frames of {x.shape[-2]} x {x.shape[-1]}; use larger frames")
    a, b = x.double(), y.double()
    mx, my = _local_mean(a), _local_mean(b)
    sxx, syy, sxy = _local_mean(a * a) - mx * mx, _local_mean(b * b) - my * my, _local_mean(a * b) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return (2 * mx * my + c1) * (2 * sxy + c2) / ((mx * mx + my * my + c1) * (sxx + syy + c2))


def ssim_within(values: Tensor, region: Tensor | None) -> Tensor:
    """Mean (N,) of an SSIM map, weighted by a region (N, 1, H, W) of the frames."""
    edge = WINDOW // 2
    return weighted_mean(values, None if region is None else region[..., edge:-edge, edge:-edge])


def _local_mean(x: Tensor) -> Tensor:
    """Gaussian-windowed mean of (N, C, H, W). Eleven shifted sums per axis: several times faster than convolution in double precision on a CPU."""
    taps = [math.exp(-((at - WINDOW // 2) ** 2) / (2 * SIGMA**2)) for at in range(WINDOW)]
    total = math.fsum(taps)
    for axis in (-1, -2):
        length = x.shape[axis] - WINDOW + 1
        x = sum((x.narrow(axis, at, length) * (tap / total) for at, tap in enumerate(taps)), start=x.new_zeros(()))
    return x


def weighted_mean(values: Tensor, region: Tensor | None) -> Tensor:
    """Mean (N,) of values (N, C, H, W), weighted by region (N, 1, H, W); NaN where all weights are 0."""
    if region is None:
        return values.mean((1, 2, 3))
    weight = region.to(values)
    return (values * weight).sum((1, 2, 3)) / (weight.sum((1, 2, 3)) * values.shape[1])


def _check(x: Tensor, y: Tensor, region: Tensor | None) -> None:
    if x.shape != y.shape or x.ndim != 4:
        raise ValueError(f"frames to compare are (N, C, H, W) of one shape, got {tuple(x.shape)} and {tuple(y.shape)}")
    if region is not None and region.shape != (len(x), 1, *x.shape[-2:]):
        raise ValueError(f"a region of frames {tuple(x.shape)} is (N, 1, H, W) of their size, got {tuple(region.shape)}; make it on the same grid")
