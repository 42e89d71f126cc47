"""Decimation by averaging blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import Degradation, Size
from ..identity import Identity
from ..numerics import upcast
from .blur import Blur
from .kernels import box_kernel


@dataclass(frozen=True)
class AveragePool(Degradation):
    """y_kl = mean of block (k, l) of `factor` x `factor` pixels; blocks cut by the border average what is inside.

    Frames are (..., H, W) of any size; y is (..., ceil(H / factor), ceil(W / factor)). A A^T is diagonal, 1 / (pixels in the block), so
    A+ y repeats each value over its block.

    Raises:
        ValueError: if `factor` is below 1.

    >>> import torch
    >>> AveragePool(2).forward(torch.arange(4.0).view(1, 2, 2))
    tensor([[[1.5000]]])
    """

    factor: int = 4

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ValueError(f"average pooling takes a factor of at least 1, got {self.factor}")

    def forward(self, x: Tensor) -> Tensor:
        planes = upcast(x).reshape(-1, 1, *x.shape[-2:])
        out = F.avg_pool2d(planes, self.factor, ceil_mode=True, count_include_pad=False)
        return out.reshape(*x.shape[:-2], *out.shape[-2:]).to(x.dtype)

    def adjoint(self, y: Tensor, size: Size | None = None) -> Tensor:
        size = self.input_size(y, size)
        return self._repeat(y / self._counts(size, y), size)

    def pinv(self, y: Tensor, size: Size | None = None, damping: float = 0.0) -> Tensor:
        size = self.input_size(y, size)
        return self._repeat(y / (1 + damping * self._counts(size, y)) if damping else y, size)

    def matrices(self, size: Size) -> tuple[Tensor, Tensor]:
        rows, cols = (self._matrix(length) for length in size)
        return rows, cols

    def on_crop(self, scale: float) -> Degradation:
        width = self.factor * scale
        return Blur(box_kernel(width), title=f"Average over {width:.3g} px") if width > 1 else Identity()

    @property
    def noise_gain(self) -> float:
        return 1 / self.factor

    def describe(self) -> str:
        return f"Average down x{self.factor}"

    def _repeat(self, y: Tensor, size: Size) -> Tensor:
        wide = y.repeat_interleave(self.factor, -1)[..., : size[1]]
        return wide.repeat_interleave(self.factor, -2)[..., : size[0], :]

    def _matrix(self, length: int) -> Tensor:
        block = torch.arange(length) // self.factor
        member = (block == torch.arange(-(-length // self.factor))[:, None]).double()
        return member / member.sum(1, keepdim=True)

    def _counts(self, size: Size, like: Tensor) -> Tensor:
        """(h, w) pixels in each block."""
        rows, cols = ((length - torch.arange(0, length, self.factor)).clamp(max=self.factor) for length in size)
        return (rows[:, None] * cols).to(like)
