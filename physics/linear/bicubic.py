"""Antialiased bicubic decimation, as MATLAB's imresize and the training data of most restoration networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..base import Size
from ..identity import Identity
from ..linalg.separable import Separable
from ..numerics import cached


@dataclass(frozen=True)
class BicubicDownsample(Separable):
    """y = M_h x M_w^T: antialiased bicubic decimation by `factor` (cubic with a = -1/2, symmetric ends).

    Frames are (..., H, W) of any size; y is (..., ceil(H / factor), ceil(W / factor)), like imresize(x, 1 / factor). The two matrices
    make A, its adjoint and its exact (damped) pseudo-inverse pairs of small products.

    Raises:
        ValueError: if `factor` is not 2..16.
    """

    factor: int = 4

    def __post_init__(self) -> None:
        if not 2 <= self.factor <= 16:
            raise ValueError(f"bicubic downsampling takes a factor from 2 to 16, got {self.factor}")

    def matrices(self, size: Size) -> tuple[Tensor, Tensor]:
        return bicubic_matrix(size[0], self.factor), bicubic_matrix(size[1], self.factor)

    def on_crop(self, scale: float) -> Identity:
        return Identity()  # a crop keeps what this antialiasing keeps

    @property
    def noise_gain(self) -> float:
        return bicubic_matrix(64 * self.factor, self.factor)[32].square().sum().item()

    def describe(self) -> str:
        return f"Bicubic down x{self.factor}"


def cubic(t: Tensor) -> Tensor:
    """Keys' cubic with a = -1/2: 1 at 0, 0 at the other integers and beyond 2, interpolates quadratics exactly."""
    t = t.abs()
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return torch.where(t <= 1, near, torch.where(t < 2, far, 0))


@cached(64)
def bicubic_matrix(length: int, factor: int) -> Tensor:
    """(ceil(length / factor), length) float64 weights; each row sums to 1, its centre is at (k + 1/2) factor - 1/2."""
    return cubic_matrix((torch.arange(-(-length // factor), dtype=torch.float64) + 0.5) * factor - 0.5, length, factor)


def cubic_matrix(centre: Tensor, length: int, factor: int = 1) -> Tensor:
    """(n, length) float64 weights of a signal's values around n centres, by the cubic `factor` times as wide; each row sums to 1."""
    taps = torch.floor(centre - 2 * factor)[:, None] + torch.arange(4 * factor + 2)
    weight = cubic((taps - centre[:, None]) / factor)
    weight /= weight.sum(1, keepdim=True)
    index = taps.long() % (2 * length)  # symmetric ends: -1 -> 0, length -> length - 1
    index = torch.where(index < length, index, 2 * length - 1 - index)
    return torch.zeros(len(centre), length, dtype=torch.float64).scatter_add_(1, index, weight)
