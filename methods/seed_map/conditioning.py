"""What an observation shows by itself: the condition of priors that were trained with a damaged face beside the noisy one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...physics.base import Degradation
from .data_term import known_pixels


def guides(y: Tensor, operator: Degradation, size: tuple[int, int], upsampling: str = "bicubic") -> Tensor:
    """(N, 3, H, W) in [-1, 1] of y (N, 3, h, w) in [0, 1]: hidden pixels are filled from around, and frames brought to `size`.

    Args:
        upsampling: "bicubic" or "area", as the prior's network saw it in training.
    """
    y = fill_hidden(y, known_pixels(operator, y))
    if tuple(y.shape[-2:]) != tuple(size):
        y = F.interpolate(y, size, mode=upsampling, **({"align_corners": False} if upsampling == "bicubic" else {}))
    return y.clamp(0, 1) * 2 - 1


def fill_hidden(frames: Tensor, known: Tensor) -> Tensor:
    """Frames (N, C, H, W) that where `known` (N, 1, H, W) is not above 0 take the mean of what is known around, of the finest scale that has any."""
    known = (known > 0).to(frames)
    if bool((known > 0).all()) or max(frames.shape[-2:]) == 1:
        return frames * known
    share = F.avg_pool2d(known, 2, ceil_mode=True)
    coarse = fill_hidden(F.avg_pool2d(frames * known, 2, ceil_mode=True) / share.clamp_min(1e-6), share)
    around = F.interpolate(coarse, frames.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(known > 0, frames, around)
