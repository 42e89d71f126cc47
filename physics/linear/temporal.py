"""Blur along time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..base import Axis, Degradation, Size
from ..linalg.boundary import Boundary, banded_matrix, check_boundary
from ..linalg.separable import spectral_gain
from ..numerics import cached, upcast


@dataclass(frozen=True)
class TemporalBlur(Degradation):
    """y_t = mean of x_(t - width // 2) .. x_(t + width // 2): y = M x along T of (..., T, C, H, W).

    boundary: which frames stand before the first and after the last: "circular" as the published experiments, "replicate" or "reflect"
    (without repeating the end frame) for footage. The inverse is exact, through the decomposition of the T x T matrix; without damping,
    what M attenuates below `numerics.null_cutoff` is left at 0.

    Raises:
        ValueError: for a width that is not odd and positive, an unknown boundary, or (on use) frames without a time axis.

    >>> frames = torch.tensor([0.0, 3.0, 0.0]).view(3, 1, 1, 1)
    >>> TemporalBlur(3).forward(frames).flatten()
    tensor([1., 1., 1.])
    """

    width: int = 7
    boundary: Boundary = "replicate"

    axes = frozenset[Axis]({"time"})

    def __post_init__(self) -> None:
        if self.width < 1 or self.width % 2 == 0:
            raise ValueError(f"temporal blur takes an odd width in frames, got {self.width}")
        check_boundary(self.boundary)

    def forward(self, x: Tensor) -> Tensor:
        return _along_time(_time_matrix(self.width, self.boundary, _frames(x)), x)

    def adjoint(self, y: Tensor, size: Size | None = None) -> Tensor:
        self.input_size(y, size)
        return _along_time(_time_matrix(self.width, self.boundary, _frames(y)).mT, y)

    def pinv(self, y: Tensor, size: Size | None = None, damping: float = 0.0) -> Tensor:
        self.input_size(y, size)
        u, s, v = _decomposition(self.width, self.boundary, _frames(y))
        dtype = upcast(y).dtype
        gain = spectral_gain(s, damping) if damping else spectral_gain(s.to(dtype), 0.0).double()
        return _along_time((v * gain) @ u.mT, y)

    def reach(self) -> int:
        return self.width // 2

    @property
    def noise_gain(self) -> float:
        return self.width**-0.5

    def describe(self) -> str:
        return f"Temporal blur over {self.width} frames ({self.boundary} ends)"


def _frames(x: Tensor) -> int:
    if x.ndim < 4:
        raise ValueError(f"temporal blur needs a clip (T, C, H, W), got {tuple(x.shape)}")
    return x.shape[-4]


def _along_time(matrix: Tensor, x: Tensor) -> Tensor:
    work = upcast(x)
    return torch.einsum("st,...tchw->...schw", matrix.to(work), work).to(x.dtype)


@cached(32)
def _time_matrix(width: int, boundary: Boundary, frames: int) -> Tensor:
    taps = torch.full((width,), 1 / width, dtype=torch.float64)
    return banded_matrix(taps, frames, frames, -(width // 2), 1, boundary)


@cached(8)
def _decomposition(width: int, boundary: Boundary, frames: int) -> tuple[Tensor, Tensor, Tensor]:
    u, s, vt = torch.linalg.svd(_time_matrix(width, boundary, frames))
    return u, s, vt.mT
