"""The degradation interface: y = A x (+ noise), with what a solver needs to invert it.

Notation: A is `forward`, A^T is `adjoint`, A+ is `pinv`. Frames are float tensors (..., H, W), usually (T, 3, H, W); operators are
size-agnostic and act in the range they are given (linear ones in any range; JPEG and camera noise expect [0, 1]).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

Size = tuple[int, int]


class Degradation(ABC):
    """A degradation operator; `A @ B` applies B first.

    Attributes:
        linear: whether `forward` is linear (JPEG and recompression are not).
        noise_level: standard deviation of the noise that `observe` adds, in units of frames in [0, 1].
        factor: how many times smaller each side of y is than x.
    """

    linear: bool = True
    noise_level: float = 0.0
    factor: int = 1

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """A x, without noise."""

    @abstractmethod
    def adjoint(self, y: Tensor, size: Size | None = None) -> Tensor:
        """A^T y. `size` is (H, W) of x; by default `factor` times that of y."""

    @abstractmethod
    def pinv(self, y: Tensor, size: Size | None = None, damping: float = 0.0) -> Tensor:
        """A^T (A A^T + damping I)^-1 y; with `damping` 0 this is A+ y, the least-norm x that explains y."""

    def output_size(self, size: Size) -> Size:
        """(H, W) of y for (H, W) of x."""
        return -(-size[0] // self.factor), -(-size[1] // self.factor)

    def observe(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A x plus a sample of the noise this operator models; deterministic for a seeded CPU `generator`."""
        return self.forward(x)

    def __matmul__(self, inner: Degradation) -> Degradation:
        from .compose import Composition

        return Composition(self, inner)
