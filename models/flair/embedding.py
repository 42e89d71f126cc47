"""Sinusoidal codes of noise levels, timesteps and places in a window."""

from __future__ import annotations

import torch
from torch import Tensor


def sinusoid(at: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """sin and cos of at * 10000^(-i / half), i = 0 .. half - 1, half = width / 2: (n, half) float32 each for `at` (n,)."""
    half = width // 2
    frequency = 10000.0 ** (-torch.arange(half, dtype=torch.float32, device=at.device) / half)
    angle = at.float()[:, None] * frequency
    return angle.sin(), angle.cos()
