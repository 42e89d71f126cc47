"""The x4 Gaussian blur of FLAIR's published task."""

from __future__ import annotations

import torch

from fvr.physics import Blur


def flair_gaussian() -> Blur:
    """exp(-n^2 / 8) at n = -4..3 inside 9 x 9, rows and columns 1 mod 4, replicate ends.

    The kernel is centred on pixel 4k + 2, half a pixel past the block's centre, because its eight taps are not symmetric.
    """
    taps = torch.exp(-torch.arange(-4, 4, dtype=torch.float64).square() / 8)
    taps = torch.cat((torch.zeros(1, dtype=torch.float64), taps / taps.sum()))
    return Blur(taps[:, None] * taps, 4, "replicate", offset=1, title="FLAIR's Gaussian blur")
