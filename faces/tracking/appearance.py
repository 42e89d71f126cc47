"""Appearance descriptor and sharpness of a face."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..align import warp_crop
from ..geometry import compose_affine, similarity

CHIP_SIDE = 64
"""Side in pixels of the aligned chip from which both are computed."""


def chip(frame: Tensor, landmarks: Tensor, aspect: float = 1.0) -> Tensor:
    """Aligned face chip (3, 64, 64) in [0, 1] from frame (3, H, W) by landmarks (5, 2): eyes to chin, without hair or background.

    aspect: width / height of one pixel.
    """
    zoom = CHIP_SIDE / 272
    crop = torch.tensor([[zoom, 0, -120 * zoom], [0, zoom, -168 * zoom]], dtype=torch.float64)
    return warp_crop(frame, compose_affine(crop, similarity(landmarks, aspect).double()), CHIP_SIDE)


def descriptor(chip: Tensor) -> Tensor:
    """Unit vector (D,) from a chip (3, 64, 64): histograms of oriented gradients and opponent colours in 4 x 4 cells.

    Gradients are normalised by their energy and colours by brightness, for invariance to exposure.
    """
    grey = chip.mean(0)
    soft = F.avg_pool2d(grey[None, None], 3, 1, 1, count_include_pad=False)[0, 0]
    dx = soft[1:-1, 2:] - soft[1:-1, :-2]
    dy = soft[2:, 1:-1] - soft[:-2, 1:-1]
    turn = torch.atan2(dy, dx) * (8 / (2 * torch.pi))
    strength = (dx**2 + dy**2).sqrt()
    bins = torch.stack([(1 - ((turn - k + 4) % 8 - 4).abs()).clamp(min=0) * strength for k in range(8)])
    shape = F.adaptive_avg_pool2d(bins[None], 4)[0]
    shape = (shape / (shape.norm() + 1e-3)).clamp(max=0.25).flatten()
    colour = F.adaptive_avg_pool2d(chip[None], 4)[0]
    light = colour.mean(0) + 0.05
    opponents = torch.stack([(colour[0] - colour[1]) / light, ((colour[0] + colour[1]) / 2 - colour[2]) / light, colour.mean(0) / light.mean() - 1])
    opponents = opponents.flatten()
    return F.normalize(torch.cat([shape / (shape.norm() + 1e-6), 0.5 * opponents]), dim=0)


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """1 - <a, b> of unit descriptors a (N, D) and b (M, D), as (N, M) in [0, 2]."""
    return 1 - a @ b.mT


def sharpness(chip: Tensor) -> float:
    """Perceptual sharpness in [0, 1] (Crete et al. 2007): the fraction of neighbour variation that a 9-tap box blur removes.

    On the chip's brightness, the lower of the two directions; 0 for a flat chip.
    """
    grey = chip.mean(0)[None, None]
    worst = 1.0
    for axis, kernel in ((-1, (1, 9)), (-2, (9, 1))):
        blurred = F.avg_pool2d(F.pad(grey, (kernel[1] // 2,) * 2 + (kernel[0] // 2,) * 2, mode="replicate"), kernel, 1)
        before, after = grey.diff(dim=axis).abs(), blurred.diff(dim=axis).abs()
        total = float(before.sum())
        worst = min(worst, float((before - after).clamp(min=0).sum()) / total if total > 1e-3 else 0.0)
    return worst
