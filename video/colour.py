"""Y'CbCr to R'G'B' and back, in floating point: any bit depth, matrix, range and chroma layout.

    Y = Kr R + Kg G + Kb B,   Cb = (B - Y) / (2 - 2 Kb),   Cr = (R - Y) / (2 - 2 Kr)          (ITU-R BT.709, 601, 2020)

Chroma samples sit on even columns and between rows (the MPEG-2 siting that H.264 assumes).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..colour import BT601, BT709
from .info import UNSPECIFIED, ColourTags

LUMA_WEIGHTS = {
    1: (BT709[0], BT709[2]),
    4: (0.30, 0.11),
    5: (BT601[0], BT601[2]),
    6: (BT601[0], BT601[2]),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
    10: (0.2627, 0.0593),
}
"""(Kr, Kb) by H.273 matrix code."""

OTHER_MATRICES = {8: "YCgCo", 11: "Y'D'zD'x", 14: "ICtCp", 15: "IPT-PQ-C2", 16: "YCgCo-Re", 17: "YCgCo-Ro"}
"""Names of the H.273 matrix codes that are not Y'CbCr."""


BAND = 64
"""Rows converted at once, a multiple of all chroma subsampling, so that intermediate results stay in the CPU's cache."""


@dataclass(frozen=True)
class YCbCr:
    """An integer Y'CbCr encoding.

    Attributes:
        matrix: H.273 code, a key of LUMA_WEIGHTS.
        full_range: Y in 0..2^b - 1 instead of 16..235 (times 2^(b-8)).
        bits: b, 8 to 16.
        sub_x, sub_y: chroma subsampling, 1 or 2 (or 4).
    """

    matrix: int
    full_range: bool
    bits: int = 8
    sub_x: int = 2
    sub_y: int = 2

    @property
    def levels(self) -> tuple[float, float, float, float]:
        """Offset and span of luma, offset and span of chroma."""
        middle = float(1 << (self.bits - 1))
        if self.full_range:
            top = float((1 << self.bits) - 1)
            return 0.0, top, middle, top
        step = float(1 << (self.bits - 8))
        return 16 * step, 219 * step, middle, 224 * step

    def to_rgb(self, y: Tensor, cb: Tensor, cr: Tensor) -> Tensor:
        """Integer planes (H, W), (h, w), (h, w) to (3, H, W) float32 in [0, 1]."""
        height, width = y.shape[-2:]
        black, luma_span, grey, chroma_span = self.levels
        kr, kb = LUMA_WEIGHTS[self.matrix]
        kg = 1 - kr - kb
        coded = torch.stack((cb, cr)).to(torch.float32).sub_(grey).div_(chroma_span)
        rgb = torch.empty((3, height, width))
        for first in range(0, height, BAND):
            rows = slice(first, min(first + BAND, height))
            chroma = rows_of_chroma(coded, rows, self.sub_y)
            if self.sub_x > 1:
                chroma = upsample_columns(chroma, width) if self.sub_x == 2 else chroma.repeat_interleave(self.sub_x, -1)[..., :width]
            luma = y[rows].to(torch.float32).sub_(black).div_(luma_span)
            band = rgb[:, rows]
            torch.add(luma, chroma[1], alpha=2 - 2 * kr, out=band[0])
            torch.add(luma, chroma[0], alpha=-(2 - 2 * kb) * kb / kg, out=band[1]).sub_(chroma[1], alpha=(2 - 2 * kr) * kr / kg)
            torch.add(luma, chroma[0], alpha=2 - 2 * kb, out=band[2])
            band.clamp_(0, 1)
        return rgb

    def from_rgb(self, rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(3, H, W) in [0, 1] to integer planes (H, W), (h, w), (h, w): uint8, or int32 above 8 bits; h and w round up."""
        bands = [self._band_from_rgb(rgb[:, first : first + BAND]) for first in range(0, rgb.shape[-2], BAND)]
        luma, cb, cr = (torch.cat(planes) for planes in zip(*bands, strict=True))
        return luma, cb, cr

    def _band_from_rgb(self, rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        black, luma_span, grey, chroma_span = self.levels
        kr, kb = LUMA_WEIGHTS[self.matrix]
        red, green, blue = rgb.to(torch.float32).clamp(0, 1).unbind(0)
        luma = red * kr + green * (1 - kr - kb) + blue * kb
        chroma = torch.stack(((blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)))
        if self.sub_x == 2:
            chroma = downsample_columns(chroma)
        if self.sub_y == 2:
            chroma = downsample_rows(chroma)
        top = (1 << self.bits) - 1
        kind = torch.uint8 if self.bits == 8 else torch.int32
        luma = luma.mul_(luma_span).add_(black).round_().clamp_(0, top).to(kind)
        chroma = chroma.mul_(chroma_span).add_(grey).round_().clamp_(0, top).to(kind)
        return luma, chroma[0], chroma[1]


def settled_matrix(colour: ColourTags, height: int, width: int) -> int:
    """H.273 code of the matrix to use: the tagged one, else BT.709 for high definition and BT.601 below, as players assume."""
    if colour.matrix in LUMA_WEIGHTS:
        return colour.matrix
    return 1 if colour.matrix != UNSPECIFIED or width >= 1280 or height > 576 else 6


def upsample_columns(c: Tensor, width: int) -> Tensor:
    """Even columns are c[k], odd ones (c[k] + c[k + 1]) / 2."""
    after = torch.cat((c[..., 1:], c[..., -1:]), -1)
    return torch.stack((c, (c + after) / 2), -1).flatten(-2)[..., :width]


def rows_of_chroma(c: Tensor, rows: slice, factor: int) -> Tensor:
    """Rows `rows` (starting at a multiple of `factor`) of the chroma planes (2, h, w) upsampled vertically by `factor`."""
    if factor == 1:
        return c[..., rows, :]
    first, stop = rows.start // factor, -(-rows.stop // factor)
    if factor != 2:
        return c[..., first:stop, :].repeat_interleave(factor, -2)[..., : rows.stop - rows.start, :]
    before, after = min(first, 1), min(c.shape[-2] - stop, 1)
    return upsample_rows(c[..., first - before : stop + after, :])[..., 2 * before : 2 * before + rows.stop - rows.start, :]


def upsample_rows(c: Tensor) -> Tensor:
    """Row 2j is (3 c[j] + c[j - 1]) / 4, row 2j + 1 is (3 c[j] + c[j + 1]) / 4."""
    before = torch.cat((c[..., :1, :], c[..., :-1, :]), -2)
    after = torch.cat((c[..., 1:, :], c[..., -1:, :]), -2)
    return torch.stack((torch.lerp(c, before, 0.25), torch.lerp(c, after, 0.25)), -2).flatten(-3, -2)


def downsample_columns(c: Tensor) -> Tensor:
    """Column k is (c[2k - 1] + 2 c[2k] + c[2k + 1]) / 4."""
    padded = F.pad(c, (1, 1 + c.shape[-1] % 2, 0, 0), mode="replicate")
    count = (c.shape[-1] + 1) // 2
    return (padded[..., 0 : 2 * count : 2] + 2 * padded[..., 1 : 2 * count : 2] + padded[..., 2 : 2 * count + 1 : 2]) / 4


def downsample_rows(c: Tensor) -> Tensor:
    """Row j is (c[2j] + c[2j + 1]) / 2."""
    if c.shape[-2] % 2:
        c = torch.cat((c, c[..., -1:, :]), -2)
    return (c[..., 0::2, :] + c[..., 1::2, :]) / 2
