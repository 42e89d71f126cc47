"""The orthonormal 8 x 8 block cosine transform."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .numerics import cached


@cached(16)
def dct_matrix(dtype: torch.dtype, device: torch.device) -> Tensor:
    """(8, 8) orthonormal DCT-II: D_kn = c_k cos(pi (2n + 1) k / 16), c_0 = sqrt(1/8), else 1/2."""
    k, n = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)
    matrix = 0.5 * torch.cos(math.pi * (2 * n + 1) * k / 16)
    matrix[0] /= math.sqrt(2)
    return matrix.to(device, dtype)


def block_dct(x: Tensor) -> Tensor:
    """D b D^T for every 8 x 8 block b of (..., H, W), H and W multiples of 8; coefficients stay where their block is."""
    return _blockwise(dct_matrix(x.dtype, x.device), x)


def block_idct(c: Tensor) -> Tensor:
    """The inverse of `block_dct`."""
    return _blockwise(dct_matrix(c.dtype, c.device).mT, c)


def _blockwise(matrix: Tensor, x: Tensor) -> Tensor:
    rows = matrix @ x.unflatten(-2, (-1, 8))
    return (rows.unflatten(-1, (-1, 8)) @ matrix.mT).flatten(-2).flatten(-3, -2)
