"""Convolutions over each frame and over time, some frames at once, under the published parameter names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...products import pointwise
from .norm import Read
from .window import Window, joined

Layer = TypeVar("Layer", bound=nn.Module)


class Parts(nn.ModuleDict):
    """Modules by the names that their parameters are published under."""

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(name)


def numbered(parts: Mapping[int, nn.Module]) -> Parts:
    """Modules whose parameters are called as in an nn.Sequential that holds functions between them."""
    return Parts({str(number): module for number, module in parts.items()})


def zero_initialised(module: Layer) -> Layer:
    """`module` with all parameters 0, so that the residual branch it ends starts as nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def upsampled_nearest(x: Tensor) -> Tensor:
    """Every value repeated 2 x 2."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class FrameConv(nn.Module):
    """A 2-D convolution of every frame; its parameters lie under `wrapped_module`, those of a resampling one under `wrapped_module.conv`."""

    def __init__(self, width_in: int, width: int, kernel: int = 3, *, stride: int = 1, resampling: bool = False) -> None:
        super().__init__()
        conv = nn.Conv2d(width_in, width, kernel, stride, kernel // 2)
        self.resampling = resampling
        self.wrapped_module: Any = Parts({"conv": conv}) if resampling else conv

    @property
    def conv(self) -> nn.Conv2d:
        """The convolution itself."""
        return self.wrapped_module["conv"] if self.resampling else self.wrapped_module

    def forward(self, x: Tensor, window: Window) -> Tensor:
        return self.over(x.__getitem__, x, window)

    def over(self, read: Read, x: Tensor, window: Window, change: Callable[[Tensor], Tensor] | None = None, enlarged: int = 1) -> Tensor:
        """The convolution of what `read` gives for the frames of x, after `change`, which makes `enlarged` times the pixels of it."""
        pieces = (read(part) for part in window.parts(x, enlarged))
        return joined((self._convolved(piece if change is None else change(piece)) for piece in pieces), len(x))

    def _convolved(self, piece: Tensor) -> Tensor:
        conv = self.conv
        if conv.kernel_size != (1, 1) or piece.device.type != "cpu":
            return conv(piece)
        return pointwise(piece, conv.weight, conv.bias)  # on one thread three times faster


class TimeConv(nn.Module):
    """A convolution over time and place, (3, k, k), zero beyond the ends of a clip."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.wrapped_module = nn.Conv3d(width, width, (3, kernel, kernel), padding=(1, kernel // 2, kernel // 2))

    def over(self, read: Read, x: Tensor, window: Window) -> Tensor:
        """The convolution of what `read` gives for the frames of x."""
        return joined((self._convolved(block) for block in self._blocks(read, x, window)), len(x))

    def _blocks(self, read: Read, x: Tensor, window: Window) -> Iterator[Tensor]:
        """Each piece with the frame before and the frame after it, zeros beyond its clip."""
        frames = window.frames
        for part in window.parts(x):
            for clip in range(part.start - part.start % frames, part.stop, frames):
                first, last = max(part.start, clip), min(part.stop, clip + frames)
                low, high = max(first - 1, clip), min(last + 1, clip + frames)
                block = read(slice(low, high))
                nothing = torch.zeros_like(block[:1])
                yield torch.cat([nothing] * (low - first + 1) + [block] + [nothing] * (last + 1 - high))

    def _convolved(self, block: Tensor) -> Tensor:
        """(n + 2, C, h, w) to (n, C, h, w)."""
        conv = self.wrapped_module
        if conv.kernel_size[1] == 1 and block.device.type == "cpu" and not torch.is_grad_enabled():
            return self._added(block)
        if conv.kernel_size[1] == 1:  # as one product of matrices: keeps the memory format and is a third faster on a CPU
            weight = conv.weight.transpose(1, 2).reshape(conv.out_channels, -1, 1, 1)
            return F.conv2d(torch.cat([block[:-2], block[1:-1], block[2:]], 1), weight, conv.bias)
        side = conv.kernel_size[1] // 2
        done = F.conv3d(block.transpose(0, 1)[None], conv.weight, conv.bias, padding=(0, side, side))[0].transpose(0, 1)
        return done.contiguous(memory_format=torch.channels_last)

    def _added(self, block: Tensor) -> Tensor:
        """The same with a kernel of 1, as three products that are added, without neighbours side by side."""
        (count, width, height, length), conv = block.shape, self.wrapped_module
        assert conv.bias is not None
        rows = block.permute(0, 2, 3, 1).reshape(count, -1, width)
        first, middle, last = conv.weight[..., 0, 0].permute(2, 1, 0).to(block)  # autocast casts no product that is added in place
        out = torch.addmm(conv.bias.to(block), rows[1:-1].flatten(0, 1), middle)
        for others, weight in ((rows[:-2], first), (rows[2:], last)):
            out.addmm_(others.flatten(0, 1), weight)
        return out.view(count - 2, height, length, -1).permute(0, 3, 1, 2)
