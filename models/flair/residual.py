"""Residual blocks: the bicubic network's own 2-D block, and the one that serves as the other network's 2-D and as both networks' 3-D block."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .convolution import FrameConv, Parts, TimeConv, numbered, upsampled_nearest, zero_initialised
from .norm import ClipNorm, Read
from .window import Window

GROUPS = 32
"""Groups of every normalisation but those of the bicubic network's 2-D blocks."""


class NormedConv(nn.Module):
    """conv(silu(norm(x)))."""

    def __init__(self, groups: int, width_in: int, width: int) -> None:
        super().__init__()
        self.block = numbered({0: ClipNorm(groups, width_in), 3: FrameConv(width_in, width)})
        self.dropout, self.drops = 0.0, False

    def forward(self, x: Tensor, window: Window) -> Tensor:
        norm, conv = self.block["0"], self.block["3"]
        return conv.over(_with_dropout(norm.read(x, window, dtype=conv.conv.weight.dtype), self), x, window)


class NoiseBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))) + e))), e linear in the noise level's embedding: SR3's residual block (Saharia et al. 2022)."""

    def __init__(self, width_in: int, width: int, embedding: int, groups: int) -> None:
        super().__init__()
        self.noise_func = Parts({"noise_func": numbered({0: nn.Linear(embedding, width)})})
        self.block1 = NormedConv(groups, width_in, width)
        self.block2 = NormedConv(groups, width, width)
        self.block2.drops = True
        self.res_conv = FrameConv(width_in, width, 1) if width_in != width else None

    def forward(self, x: Tensor, window: Window) -> Tensor:
        h = self.block1(x, window)
        h = h + self.noise_func["noise_func"]["0"](window.embedding)[..., None, None].to(h.dtype)
        return self.block2(h, window) + (x if self.res_conv is None else self.res_conv(x, window))


class ResBlock(nn.Module):
    """skip(x) + conv(silu(film(norm(conv(change(silu(norm(x)))))))): the residual block of Dhariwal and Nichol (2021), in two or three dimensions.

    Args:
        width_in, width: channels.
        embedding: of the embedding.
        kernel: None for 2-D convolutions of 3 x 3; k for convolutions of (3, k, k) over time and place, where width_in = width.
        film: whether the embedding scales and shifts what the second normalisation gives; otherwise it is added before it.
        change: "up" doubles and "down" halves the side between first normalisation and convolution, and of the skip.
    """

    def __init__(self, width_in: int, width: int, embedding: int, *, kernel: int | None = None, film: bool = True, change: str = "") -> None:
        super().__init__()
        self.film, self.change = film, change
        self.dropout, self.drops = 0.0, kernel is None

        def conv(inside: int) -> FrameConv | TimeConv:
            return FrameConv(inside, width) if kernel is None else TimeConv(width, kernel)

        self.in_layers = numbered({0: ClipNorm(GROUPS, width_in), 2: conv(width_in)})
        self.emb_layers = numbered({1: nn.Linear(embedding, 2 * width if film else width)})
        self.out_layers = numbered({0: ClipNorm(GROUPS, width), 3: zero_initialised(conv(width))})
        self.skip_connection = FrameConv(width_in, width, 1) if width_in != width else None

    def forward(self, x: Tensor, window: Window) -> Tensor:
        norm, conv = self.in_layers["0"], self.in_layers["2"]
        if self.change:
            h = conv.over(norm.read(x, window), x, window, self._resized, 4 if self.change == "up" else 1)
            x = self._resized(x)
        else:
            h = conv.over(norm.read(x, window), x, window)
        emb = self.emb_layers["1"](F.silu(window.embedding))
        norm, conv = self.out_layers["0"], self.out_layers["3"]
        if self.film:
            scale, shift = emb.float().chunk(2, 1)
            h = conv.over(_with_dropout(norm.read(h, window, (scale, shift)), self), h, window)
        else:
            h = h + emb[..., None, None].to(h.dtype)
            h = conv.over(_with_dropout(norm.read(h, window), self), h, window)
        return h + (x if self.skip_connection is None else self.skip_connection(x, window))

    def _resized(self, x: Tensor) -> Tensor:
        return upsampled_nearest(x) if self.change == "up" else F.avg_pool2d(x, 2)


def _with_dropout(read: Read, block: NormedConv | ResBlock) -> Read:
    """What `read` gives with a share `block.dropout` of it left out while the network learns."""
    if not (block.training and block.dropout):
        return read
    return lambda part: F.dropout(read(part), block.dropout)


def set_dropout(network: nn.Module, share: float) -> None:
    """Dropout before the last convolution of every residual block of the image network: what `drops` there."""
    for module in network.modules():
        layer: Any = module
        if getattr(layer, "drops", False):
            layer.dropout = share
