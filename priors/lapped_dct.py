"""Transforms with exact inverses: orthonormal colours, a Laplacian pyramid's scales, lapped 8 x 8 DCT blocks."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ..products import linear
from ..resampling import interpolated

BLOCK = 8
BANDS = BLOCK * BLOCK
OPPONENT = torch.tensor(
    [[3**-0.5, 3**-0.5, 3**-0.5], [2**-0.5, 0.0, -(2**-0.5)], [6**-0.5, -2 * 6**-0.5, 6**-0.5]],
    dtype=torch.float64,
)
"""Orthonormal opponent colours, as BM3D's: luma, red minus blue, green against both. White noise stays white."""
TAPS = (0.125, 0.375, 0.375, 0.125)
"""The cubic B-spline's halving filter."""


def to_opponent(rgb: Tensor) -> Tensor:
    """(N, 3, H, W) RGB to luma and two chromas."""
    return (OPPONENT.to(rgb) @ rgb.flatten(2)).view_as(rgb)


def from_opponent(colours: Tensor) -> Tensor:
    """Inverse of to_opponent."""
    return (OPPONENT.T.to(colours) @ colours.flatten(2)).view_as(colours)


def halve(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2)), low-pass filtered, ends replicated."""
    h, w = x.shape[-2:]
    x = F.pad(x, (1, 1 + w % 2, 1, 1 + h % 2), mode="replicate")
    outer, inner = TAPS[:2]
    x = outer * (x[..., :-3:2, :] + x[..., 3::2, :]) + inner * (x[..., 1:-2:2, :] + x[..., 2:-1:2, :])  # eight times faster than convolving
    return outer * (x[..., :-3:2] + x[..., 3::2]) + inner * (x[..., 1:-2:2] + x[..., 2:-1:2])


def double(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear enlargement to `size`; x = double(halve(x)) + detail defines the pyramid."""
    return interpolated(x, size, "bilinear")


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def lapped_basis(hop: int) -> Tensor:
    """(64, 1, 8, 8) DCT-II basis under a sine window, scaled so that blocks every `hop` pixels (4 or 2) are a Parseval frame."""
    n = torch.arange(BLOCK, dtype=torch.float64)
    dct = torch.cos(math.pi / BLOCK * (n[None] + 0.5) * n[:, None]) * (2 / BLOCK) ** 0.5
    dct[0] /= 2**0.5
    rows = dct * torch.sin(math.pi / BLOCK * (n + 0.5)) * (2 * hop / BLOCK) ** 0.5
    return torch.einsum("ki,lj->klij", rows, rows).reshape(BANDS, 1, BLOCK, BLOCK)


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def synthesis_kernels(hop: int) -> Tensor:
    """(hop^2, 64, 8 / hop, 8 / hop): what the basis of each block over a cell of hop x hop pixels shows there, the earlier blocks' ends first."""
    parts = lapped_basis(hop)[:, 0].unflatten(1, (-1, hop)).unflatten(3, (-1, hop)).flip(1, 3)  # (64, block, row, block, column)
    return parts.permute(2, 4, 0, 1, 3).reshape(hop * hop, BANDS, BLOCK // hop, BLOCK // hop).contiguous()


def analyse(x: Tensor, hop: int) -> Tensor:
    """(N, C, H, W) -> (N C, 64, h, w) coefficients, band 8 i + j of vertical frequency i and horizontal j, channels last; ends mirrored."""
    n, c, h, w = x.shape
    edge = BLOCK - hop
    x = F.pad(x, (edge, edge + -w % hop, edge, edge + -h % hop), mode="replicate" if min(h, w) <= edge + hop else "reflect")
    blocks = x.reshape(n * c, *x.shape[-2:]).unfold(1, BLOCK, hop).unfold(2, BLOCK, hop).flatten(3)
    return linear(blocks, lapped_basis(hop).to(x).view(BANDS, BANDS)).permute(0, 3, 1, 2)  # a quarter of a convolution's time


def synthesise(bands: Tensor, shape: torch.Size, hop: int) -> Tensor:
    """The frames of `shape` (N, C, H, W) whose coefficients are `bands`: synthesise(analyse(x, hop), x.shape, hop) = x."""
    x = F.pixel_shuffle(F.conv2d(bands, synthesis_kernels(hop).to(bands)), hop)
    return x[..., : shape[-2], : shape[-1]].reshape(shape)
