"""JPEG compression as an operator: quantised block cosines with decimated chroma."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ...colour import BT601
from ..base import Size
from ..identity import Transparent
from ..numerics import cached, upcast
from .dct import block_dct, block_idct, quantisation_noise

# The example tables of the JPEG standard (ITU-T T.81, Annex K), luma and chroma, row by row.
LUMA_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_STEPS = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# JFIF's full-range BT.601 matrix.
YCBCR = (BT601, (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


class JpegCode(NamedTuple):
    """Quantised coefficients in place of their blocks: luma (..., 1, H', W'), chroma (..., 2, H'/2, W'/2), H' and W' the frame's
    `size` (H, W) rounded up to multiples of 16."""

    luma: Tensor
    chroma: Tensor
    size: Size


@dataclass(frozen=True)
class Jpeg(Transparent):
    """y = D(E(x)): JPEG at `quality` 1..100 of frames (..., 3, H, W) RGB in [0, 1], any size.

    E: YCbCr, chroma 4:2:0 by keeping every second pixel, 8 x 8 orthonormal cosines, the standard's tables scaled by `quantiser`, rounding.
    D: the inverse, chroma repeated; neither clamps to [0, 1], so E(D(E(x))) = E(x) exactly (on the frame padded to multiples of 16 by
    repeating its last row and column; `decode(code, crop=False)` gives that frame). A camera's or libjpeg's encoder averages chroma and
    clamps instead.

    Not linear: adjoint and pinv see the identity, as in FLAIR (see `Transparent`).

    Raises:
        ValueError: for a quality outside 1..100, or (on use) frames without three channels.
    """

    quality: int = 60

    linear = False

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise ValueError(f"JPEG quality is from 1 to 100, got {self.quality}")
        object.__setattr__(self, "distortion", quantisation_noise(quantiser(LUMA_STEPS, self.quality)))

    def encode(self, x: Tensor) -> JpegCode:
        """E(x)."""
        if x.ndim < 3 or x.shape[-3] != 3:
            raise ValueError(f"JPEG needs RGB frames (..., 3, H, W), got {tuple(x.shape)}")
        height, width = x.shape[-2:]
        planes = upcast(x).reshape(-1, 3, height, width)
        planes = F.pad(planes, (0, -width % 16, 0, -height % 16), mode="replicate").reshape(*x.shape[:-2], height + -height % 16, width + -width % 16)
        ycc = torch.einsum("dc,...chw->...dhw", _colours(planes.dtype, planes.device)[0], planes) * 255
        luma, chroma = self._steps(ycc)
        return JpegCode((block_dct(ycc[..., :1, :, :] - 128) / luma).round(), (block_dct(ycc[..., 1:, ::2, ::2]) / chroma).round(), (height, width))

    def decode(self, code: JpegCode, crop: bool = True) -> Tensor:
        """D(code), not clamped; with `crop` of the frame's size, else with the padding to multiples of 16."""
        luma_steps, chroma_steps = self._steps(code.luma)
        luma = block_idct(code.luma * luma_steps) + 128
        chroma = block_idct(code.chroma * chroma_steps).repeat_interleave(2, -1).repeat_interleave(2, -2)
        ycc = torch.cat((luma, chroma), -3) / 255
        x = torch.einsum("cd,...dhw->...chw", _colours(ycc.dtype, ycc.device)[1], ycc)
        return x[..., : code.size[0], : code.size[1]] if crop else x

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x)).to(x.dtype)

    def describe(self) -> str:
        return f"JPEG quality {self.quality}"

    def _steps(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Quantiser steps tiled over the luma and the chroma plane of a padded frame like `like`."""
        blocks = like.shape[-2] // 8, like.shape[-1] // 8
        luma, chroma = (quantiser(table, self.quality).to(like) for table in (LUMA_STEPS, CHROMA_STEPS))
        return luma.repeat(*blocks), chroma.repeat(blocks[0] // 2, blocks[1] // 2)


def quantiser(table: tuple[tuple[int, ...], ...], quality: int) -> Tensor:
    """(8, 8) float64 steps: floor((s q + 50) / 100) within 1..255, s = 5000 / quality below 50, else 200 - 2 quality.

    So FLAIR's code has it. libjpeg rounds s down first, by which some steps below quality 50 are one less.
    """
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    return ((torch.tensor(table, dtype=torch.float64) * scale + 50) / 100).floor().clamp(1, 255)


@cached(16)
def _colours(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """RGB to Y'CbCr, and back."""
    forward = torch.tensor(YCBCR, dtype=torch.float64)
    return forward.to(device, dtype), torch.linalg.inv(forward).to(device, dtype)
