"""Transforms with exact inverses: orthonormal colours, a Laplacian pyramid's scales, lapped 8 x 8 DCT blocks."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 8
BANDS = BLOCK * BLOCK

COLOURS = torch.tensor(
    [[3**-0.5, 3**-0.5, 3**-0.5], [2**-0.5, 0.0, -(2**-0.5)], [6**-0.5, -2 * 6**-0.5, 6**-0.5]],
    dtype=torch.float64,
)
"""Orthonormal: luma, red minus blue, green against both. White noise stays white."""

TAPS = (0.125, 0.375, 0.375, 0.125)
"""The cubic B-spline's halving filter."""


def to_colours(rgb: Tensor) -> Tensor:
    """(N, 3, H, W) RGB to luma and two chromas."""
    return (COLOURS.to(rgb) @ rgb.flatten(2)).view_as(rgb)


def from_colours(colours: Tensor) -> Tensor:
    """Inverse of to_colours."""
    return (COLOURS.T.to(colours) @ colours.flatten(2)).view_as(colours)


def halve(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2)), low-pass filtered, ends replicated."""
    n, c, h, w = x.shape
    taps = torch.tensor(TAPS, dtype=x.dtype, device=x.device)
    x = F.pad(x, (1, 1 + w % 2, 1, 1 + h % 2), mode="replicate").reshape(n * c, 1, h + 2 + h % 2, w + 2 + w % 2)
    x = F.conv2d(F.conv2d(x, taps.view(1, 1, 1, -1), stride=(1, 2)), taps.view(1, 1, -1, 1), stride=(2, 1))
    return x.view(n, c, *x.shape[-2:])


def double(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear enlargement to `size`; x = double(halve(x)) + detail defines the pyramid."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def lapped_basis(hop: int) -> Tensor:
    """(64, 1, 8, 8) DCT-II basis under a sine window, scaled so that blocks every `hop` pixels (4 or 2) are a Parseval frame."""
    n = torch.arange(BLOCK, dtype=torch.float64)
    dct = torch.cos(math.pi / BLOCK * (n[None] + 0.5) * n[:, None]) * (2 / BLOCK) ** 0.5
    dct[0] /= 2**0.5
    rows = dct * torch.sin(math.pi / BLOCK * (n + 0.5)) * (2 * hop / BLOCK) ** 0.5
    return torch.einsum("ki,lj->klij", rows, rows).reshape(BANDS, 1, BLOCK, BLOCK)


def analyse(x: Tensor, hop: int) -> Tensor:
    """(N, C, H, W) -> (N C, 64, h, w) coefficients, band 8 i + j of vertical frequency i and horizontal j; ends mirrored."""
    n, c, h, w = x.shape
    edge = BLOCK - hop
    x = F.pad(x, (edge, edge + -w % hop, edge, edge + -h % hop), mode="replicate" if min(h, w) <= edge + hop else "reflect")
    return F.conv2d(x.reshape(n * c, 1, *x.shape[-2:]), lapped_basis(hop).to(x), stride=hop)


def synthesise(bands: Tensor, shape: torch.Size, hop: int) -> Tensor:
    """The frames of `shape` (N, C, H, W) whose coefficients are `bands`: synthesise(analyse(x, hop), x.shape, hop) = x."""
    edge = BLOCK - hop
    x = F.conv_transpose2d(bands, lapped_basis(hop).to(bands), stride=hop)
    return x[..., edge : edge + shape[-2], edge : edge + shape[-1]].reshape(shape)
