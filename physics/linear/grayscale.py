"""Loss of colour."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...colour import BT601
from ..base import Axis, Degradation, Size
from ..numerics import upcast


@dataclass(frozen=True)
class Grayscale(Degradation):
    """y_c = w . x for every channel c: frames (..., 3, H, W) RGB in, three equal channels out; w is the BT.601 luma.

    A = 1 w^T has the single nonzero singular value |w| sqrt(3), so A^T (A A^T + d I)^-1 y = w (1 . y) / (3 |w|^2 + d).

    Raises:
        ValueError: (on use) for frames without three channels.
    """

    axes = frozenset[Axis]({"channel"})

    def forward(self, x: Tensor) -> Tensor:
        luma = (upcast(x) * self._weights(x)).sum(-3, keepdim=True)
        return luma.expand(x.shape).to(x.dtype)

    def adjoint(self, y: Tensor, size: Size | None = None) -> Tensor:
        self.input_size(y, size)
        return (self._weights(y) * upcast(y).sum(-3, keepdim=True)).to(y.dtype)

    def pinv(self, y: Tensor, size: Size | None = None, damping: float = 0.0) -> Tensor:
        return self.adjoint(y, size) / (3 * sum(w * w for w in BT601) + damping)

    @property
    def noise_gain(self) -> float:
        return sum(w * w for w in BT601) ** 0.5

    def describe(self) -> str:
        return "Grayscale"

    def _weights(self, x: Tensor) -> Tensor:
        if x.ndim < 3 or x.shape[-3] != 3:
            raise ValueError(f"grayscale needs RGB frames (..., 3, H, W), got {tuple(x.shape)}")
        return torch.tensor(BT601, dtype=upcast(x).dtype, device=x.device)[:, None, None]
