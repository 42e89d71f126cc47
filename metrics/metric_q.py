"""No-reference image content: unlike `sharpness`, sharp edges count and noise does not."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..colour import luma

PATCH = 8
"""Side of the patches, in pixels; the authors' choice."""
SIGNIFICANCE = 0.001
"""Probability that a patch of white noise counts as directed; the authors' choice."""


def image_content(frames: Tensor, patches: Tensor | None = None) -> Tensor:
    """Metric Q (Zhu and Milanfar, IEEE Transactions on Image Processing 19(12), 2010): (N,) float64, at least 0.

    Q = sum over patches with a direction of s1 (s1 - s2) / (s1 + s2), divided by the number of all patches, where s1 >= s2 are the singular
    values of a patch's gradients (64, 2) of luma in grey levels, patches being 8 x 8 side by side. An edge or a line has s1 only; blur makes
    that smaller. White noise adds the same to both squares, so s2 grows first, and Q falls. It has no upper bound: compare results of one
    picture only.

    Args:
        frames: (N, 3, H, W) in [0, 1]; what is left over at the right and below when patches are cut is not looked at.
        patches: (N, H // 8, W // 8), true for those that count. Give results that are to be compared the same ones, as the authors do; None
            takes each frame's own (`directed`).

    Raises:
        ValueError: for frames below 8 x 8 pixels.
    """
    values = _singular_values(frames)
    return _content(*values, _directed(*values) if patches is None else patches)


def content_gain(frames: Tensor, others: Tensor) -> Tensor:
    """Relative gain in content over other frames of the same scene: Q / Q' - 1 over patches directed in both, (N,) float64.

    At least -1; 0 where no patch has one.

    Args:
        frames, others: (N, 3, H, W) in [0, 1].
    """
    values = _singular_values(frames), _singular_values(others)
    patches = _directed(*values[0]) & _directed(*values[1])
    ours, theirs = (_content(large, small, patches) for large, small in values)
    return torch.where(theirs > 0, ours / theirs.clamp(min=1e-12) - 1, 0.0)


def directed(frames: Tensor) -> Tensor:
    """Mask of directed patches (N, H // 8, W // 8): (s1 - s2) / (s1 + s2) above the value that white noise reaches in one of 1000 patches.

    That is sqrt((1 - q) / (1 + q)) with q = 0.001 ** (1 / (n - 1)), n the number of pixels in a patch (the paper's eq. 18).

    Raises:
        ValueError: for frames below 8 x 8 pixels.
    """
    return _directed(*_singular_values(frames))


def _directed(large: Tensor, small: Tensor) -> Tensor:
    q = SIGNIFICANCE ** (1 / (PATCH**2 - 1))
    return (large - small) > math.sqrt((1 - q) / (1 + q)) * (large + small)


def _content(large: Tensor, small: Tensor, patches: Tensor) -> Tensor:
    return (large * (large - small) / (large + small).clamp(min=1e-12) * patches).mean((1, 2))


def _singular_values(frames: Tensor) -> tuple[Tensor, Tensor]:
    """s1 and s2 of every patch's gradients, each (N, H // 8, W // 8) float64."""
    if frames.ndim != 4 or frames.shape[1] != 3 or min(frames.shape[-2:]) < PATCH:
        raise ValueError(f"image content is measured on RGB frames (N, 3, H, W) of at least {PATCH} x {PATCH} pixels, got {tuple(frames.shape)}")
    patches = 255 * luma(frames.double())[:, 0]
    patches = patches.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH)
    gy, gx = torch.gradient(patches, dim=(-2, -1))  # inside a patch, one-sided at its border
    xx, yy, xy = ((a * b).sum((-2, -1)) for a, b in ((gx, gx), (gy, gy), (gx, gy)))
    half, spread = (xx + yy) / 2, (((xx - yy) / 2) ** 2 + xy**2).sqrt()  # eigenvalues of the 2 x 2 matrix of products
    return (half + spread).sqrt(), (half - spread).clamp(min=0).sqrt()
