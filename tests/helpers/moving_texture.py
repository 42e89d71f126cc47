"""A textured clip whose motion is known."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def texture(height: int = 96, width: int = 128, seed: int = 0) -> Tensor:
    """(1, 3, H, W) in [0.1, 0.9]: smooth, with detail at several sizes, so that a flow can be found."""
    rng = torch.Generator().manual_seed(seed)
    picture = torch.zeros(1, 3, height, width)
    for cells, weight in ((6, 0.5), (14, 0.3), (30, 0.2)):
        noise = torch.rand(1, 3, cells, cells, generator=rng)
        picture += weight * F.interpolate(noise, (height, width), mode="bicubic", align_corners=True)
    return (0.1 + 0.8 * picture).clamp(0.1, 0.9)


def sliding(frames: int, step: int = 2, seed: int = 0) -> Tensor:
    """(T, 3, 96, 128): a window that moves `step` whole pixels to the right over a wider picture in each frame."""
    wide = texture(96, 128 + step * frames, seed)
    return torch.cat([wide[..., step * t : step * t + 128] for t in range(frames)])
