"""No-reference sharpness. Noise counts as detail, so compare results of the same clip only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..colour import luma
from .fidelity import weighted_mean


def laplacian_variance(frames: Tensor, region: Tensor | None = None) -> Tensor:
    """Variance of the 4-neighbour Laplacian of luma in grey levels (Pech-Pacheco et al., ICPR 2000): (N,) float64 in grey levels squared.

    frames: (N, 3, H, W) in [0, 1]. region: (N, 1, H, W) pixel weights in [0, 1]. Border pixels are excluded. NaN where all weights
    are 0. 0 for a flat image; ordinary faces have tens to thousands.
    """
    values = _filtered(frames, [[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    mean = weighted_mean(values, _without_border(region))
    return weighted_mean((values - mean.view(-1, 1, 1, 1)).square(), _without_border(region))


def tenengrad(frames: Tensor, region: Tensor | None = None) -> Tensor:
    """mean (gx^2 + gy^2) with Sobel's filters over 8, of luma (Krotkov 1988, after Tenenbaum 1970): (N,) float64, (grey levels / pixel)^2.

    Arguments as for `laplacian_variance`. Less sensitive to noise and the finest detail than the Laplacian. A ramp of g grey levels per pixel
    has g^2.

    >>> ramp = torch.arange(8.0).expand(1, 3, 8, 8) * 2 / 255
    >>> round(tenengrad(ramp).item(), 4)
    4.0
    """
    sobel = [[-1 / 8, 0.0, 1 / 8], [-2 / 8, 0.0, 2 / 8], [-1 / 8, 0.0, 1 / 8]]
    turned = [list(row) for row in zip(*sobel, strict=True)]
    return weighted_mean(_filtered(frames, sobel).square() + _filtered(frames, turned).square(), _without_border(region))


def _filtered(frames: Tensor, taps: list[list[float]]) -> Tensor:
    """Luma in grey levels under a 3 x 3 filter, (N, 1, H - 2, W - 2) float64."""
    if min(frames.shape[-2:]) < 3:
        raise ValueError(f"sharpness needs frames of at least 3 x 3 pixels, got {frames.shape[-1]} x {frames.shape[-2]} (width x height)")
    return F.conv2d(255 * luma(frames.double()), torch.tensor(taps, dtype=torch.float64, device=frames.device).view(1, 1, 3, 3))


def _without_border(region: Tensor | None) -> Tensor | None:
    return None if region is None else region[..., 1:-1, 1:-1]
