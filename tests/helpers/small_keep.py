"""A KEEP that is small enough to run hundreds of times: 64 x 64 images, seeded weights, the real GMFlow."""

from __future__ import annotations

from functools import lru_cache

import skimage.data
import torch
from torch import Tensor
from torch.nn import functional as F

from fvr.models.keep.network import KEEP, KeepConfig
from fvr.models.vq import VQConfig
from helpers.seeded_weights import seed_weights

SIDE = 64
CONFIG = KeepConfig(
    VQConfig(side=SIDE, channels=32, multipliers=(1, 2, 2), res_blocks=1, attention=frozenset({16}), code_dim=32, codes=64),
    width=128,
    heads=2,
    layers=2,
    fused=(16, 32),
    cross_fused=(16, 32),
    cross_width=16,
    gain_layers=2,
    gain_heads=2,
    gain_width=16,
)


def small_keep() -> KEEP:
    """Always the same weights."""
    return seed_weights(KEEP(CONFIG), "small").to(memory_format=torch.channels_last)


@lru_cache(1)
def picture() -> Tensor:
    """A portrait, (3, 512, 512) in [0, 1]."""
    return torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1).float() / 255


def clip(length: int, side: int = SIDE, start: int = 0) -> Tensor:
    """(length, 3, side, side) in [0, 1]: a face that moves by four pixels of its 256 a frame."""
    frames = [picture()[:, 4 * index : 4 * index + 224, 130 + 3 * index : 354 + 3 * index] for index in range(start, start + length)]
    return F.interpolate(torch.stack(frames), (side, side), mode="area")
