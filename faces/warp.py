"""Anti-aliased resampling between frames and crops."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

KERNEL_WIDTH = 0.85
"""Width of the low-pass kernel relative to ideal Lanczos: keeps detail near the Nyquist limit at the cost of slight aliasing."""


def warp_affine(images: Tensor, matrices: Tensor, height: int, width: int) -> Tensor:
    """out(x, y) = image(M (x, y, 1)), bicubic, border replicated, not clamped.

    images: (n, C, H, W); matrices: (n, 2, 3) from output to input pixels, pixel centres at integers.
    Returns (n, C, height, width).
    """
    return remap(images, *affine_grid(matrices, height, width))


def remap(images: Tensor, x: Tensor, y: Tensor, *, mode: str = "bicubic") -> Tensor:
    """Images (n, C, H, W) sampled at pixel coordinates x and y, (n, height, width) or, for one image, (height, width); see `warp_affine`."""
    grid = torch.stack([((2 * x + 1) / images.shape[-1] - 1).to(images), ((2 * y + 1) / images.shape[-2] - 1).to(images)], -1)
    grid = grid if grid.ndim == 4 else grid[None]
    return F.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)


def affine_grid(matrices: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Coordinates (x', y') = M (x, y, 1) of all pixels, (..., height, width) float64 each; matrices: (..., 2, 3)."""
    x, y = torch.arange(width, dtype=torch.float64), torch.arange(height, dtype=torch.float64)[:, None]
    xx, xy, x0, yx, yy, y0 = (matrices.double()[..., row, column, None, None] for row in (0, 1) for column in (0, 1, 2))
    return xx * x + (xy * y + x0), yx * x + (yy * y + y0)


def low_pass(image: Tensor, step: float) -> Tensor:
    """Separable Lanczos-3 anti-aliasing filter for downsampling by `step`, border replicated.

    image: (C, H, W). step <= 1 / KERNEL_WIDTH returns it unchanged; the filter sets in continuously from there.
    """
    stretch = max(1.0, KERNEL_WIDTH * step)
    if stretch == 1.0:
        return image
    taps = lanczos_kernel(stretch)
    rows = np.ascontiguousarray(image.permute(1, 2, 0).numpy(force=True))
    out = cv2.sepFilter2D(rows, -1, taps, taps, borderType=cv2.BORDER_REPLICATE)
    return torch.from_numpy(out.reshape(rows.shape)).permute(2, 0, 1).to(image)


def lanczos_kernel(stretch: float) -> np.ndarray:
    """sinc(t / stretch) sinc(t / 3 stretch) at the integers |t| < 3 stretch, normalised to sum 1, float64."""
    radius = math.ceil(3 * stretch) - 1
    t = np.arange(-radius, radius + 1) / stretch
    taps = np.sinc(t) * np.sinc(t / 3)
    return taps / taps.sum()
