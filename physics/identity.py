"""The identity, and operators that adjoint and pinv see as the identity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Axis, Degradation, Size
from .numerics import gaussian_sample


class Transparent(Degradation):
    """An operator that solvers see through: A^T y = y and A+ y = y, damped y / (1 + damping).

    For noise this is exact. For codecs it is FLAIR's reading of data consistency: decode(encode(.)) leaves the frame where it was up to
    what quantisation loses, and x0 - gamma A+ (A x0 - y) with the true forward model asks only that both lose the same.
    """

    transparent = True
    axes: frozenset[Axis] = frozenset()

    def adjoint(self, y: Tensor, size: Size | None = None) -> Tensor:
        self.input_size(y, size)
        return y

    def pinv(self, y: Tensor, size: Size | None = None, damping: float = 0.0) -> Tensor:
        self.input_size(y, size)
        return y / (1 + damping)

    def on_crop(self, scale: float) -> Degradation:
        return Identity()


@dataclass(frozen=True)
class Identity(Transparent):
    """y = x."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def describe(self) -> str:
        return "No degradation"


@dataclass(frozen=True)
class GaussianNoise(Transparent):
    """y = x + sigma n, n standard normal: `forward` is the identity, `observe` adds the sample.

    sigma: standard deviation in units of frames in [0, 1], at least 0.
    """

    sigma: float = 0.03

    def __post_init__(self) -> None:
        if not self.sigma >= 0:
            raise ValueError(f"the noise sigma is a standard deviation of at least 0 (frames in [0, 1]), got {self.sigma}")
        object.__setattr__(self, "noise_level", float(self.sigma))

    def forward(self, x: Tensor) -> Tensor:
        return x

    def observe(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return x + self.sigma * gaussian_sample(x, generator)

    def describe(self) -> str:
        return f"Noise {self.sigma:g}"
