"""Blur by any kernel, with decimation: the exact inverse in closed form where there is one, by conjugate gradients elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ...resampling import correlated
from ..base import Degradation, EqualByContent, Size
from ..linalg.boundary import Boundary, banded_matrix, boundary_index, check_boundary, extended
from ..linalg.convolve import DIRECT_TAPS, correlate, correlate_adjoint, gram_spectrum
from ..linalg.separable import Separable
from ..linalg.solve import conjugate_gradients
from ..numerics import cached, null_cutoff, upcast
from . import kernels

RANK_ONE_TOLERANCE = 1e-7
"""A kernel whose second singular value is below this fraction of the first is separable (single-precision kernels reach 2e-8)."""
PRECONDITIONER_FLOOR = 1e-2
"""Floor of the preconditioner as a share of the largest power: below it the circulant says little about A A^T, whose ends are not circular."""
MIN_FORMULA_SIGMA = 0.45
"""A Gaussian narrower than this, in pixels, is not well told by its values at pixel centres."""


@dataclass(frozen=True, eq=False)
class Blur(EqualByContent, Separable):
    """y_kl = sum_ij K_ij x[f k + o + i - kh // 2, f l + o + j - kw // 2]: correlation with K, every f-th pixel kept.

    Frames are (..., H, W) of any size; y is (..., ceil(H / f), ceil(W / f)). With the default offset o = f // 2, a kernel that is as
    even or odd as f has its centre on the centre of each f x f block, so nothing shifts.

    Inverses: circular ends with f | H and f | W in closed form by FFT (decimation folds the spectrum: A A^T is circulant on the small
    grid); separable kernels through the decompositions of two matrices; all else by conjugate gradients on A A^T, preconditioned with
    the circulant of the same kernel (`solve.tolerance_of`, at most `solve.MAX_ITERATIONS`). Without damping, what A attenuates below
    `numerics.null_cutoff` is left at 0, and the iteration may stop at its limit: a few in a thousand of y stay unexplained for motion
    kernels at full resolution, where a damping of the noise variance is the better inverse anyway.

    Args:
        kernel: (kh, kw) weights, any number of rows and columns; kept in float64. Usually they sum to 1.
        factor: decimation f, at least 1.
        boundary: what is beyond the border: "replicate", "circular" or "reflect" (without repeating the end pixel).
        offset: o, in pixels of x.
        title: how `describe` calls the kernel.
        sigmas: (sigma_x, sigma_y, angle in degrees) of a Gaussian kernel; tells `crop_operator` to scale the formula, not the taps.
    Raises:
        ValueError: for a kernel that is not 2-D and finite, a factor below 1 or an unknown boundary.
    """

    kernel: Tensor | Sequence[Sequence[float]]
    factor: int = 1
    boundary: Boundary = "replicate"
    offset: int | None = None
    title: str = "Blur"
    sigmas: tuple[float, float, float] | None = None
    blurs = True

    def __post_init__(self) -> None:
        with torch.inference_mode(False), torch.no_grad():
            kernel = torch.as_tensor(self.kernel).detach().to("cpu", torch.float64, copy=True).contiguous()
        if kernel.ndim != 2 or kernel.numel() == 0 or not bool(kernel.isfinite().all()):
            raise ValueError(f"a blur kernel is a (rows, columns) array of finite weights, got shape {tuple(kernel.shape)}")
        if self.factor < 1:
            raise ValueError(f"a blur keeps every factor-th pixel, so factor is at least 1, got {self.factor}")
        check_boundary(self.boundary)
        object.__setattr__(self, "kernel", kernel)
        object.__setattr__(self, "offset", self.factor // 2 if self.offset is None else self.offset)

    @classmethod
    def gaussian(cls, sigma: float, sigma_y: float | None = None, angle: float = 0.0, *, factor: int = 1, boundary: Boundary = "replicate") -> Blur:
        """Gaussian of standard deviation `sigma` pixels of x; with `sigma_y`, `sigma` along `angle` degrees and `sigma_y` across it."""
        across = sigma if sigma_y is None else sigma_y
        title = f"Gaussian blur sigma {sigma:g} px" if across == sigma else f"Gaussian blur sigma {sigma:g} x {across:g} px at {angle:g} degrees"
        kernel = kernels.gaussian_kernel(sigma, across, angle, even=factor % 2 == 0)
        return cls(kernel, factor, boundary, title=title, sigmas=(sigma, across, angle))

    @classmethod
    def motion(cls, size: int = 33, strength: float = 0.5, seed: int = 0, *, factor: int = 1, boundary: Boundary = "replicate") -> Blur:
        """Random hand shake in a `size` x `size` kernel; see `kernels.motion_kernel`."""
        kernel = kernels.motion_kernel(size, strength, seed, even=factor % 2 == 0)
        return cls(kernel, factor, boundary, title=f"Motion blur {size} px, strength {strength:g}, seed {seed}")

    @classmethod
    def motion_line(cls, length: float, angle: float = 0.0, *, factor: int = 1, boundary: Boundary = "replicate") -> Blur:
        """Uniform motion over `length` pixels at `angle` degrees."""
        kernel = kernels.line_kernel(length, angle, even=factor % 2 == 0)
        return cls(kernel, factor, boundary, title=f"Motion blur {length:g} px at {angle:g} degrees")

    @property
    def weights(self) -> Tensor:
        """The kernel as a (kh, kw) float64 tensor."""
        return torch.as_tensor(self.kernel)

    @cached_property
    def _identity(self) -> tuple[object, ...]:
        return self.weights.numpy().tobytes(), tuple(self.weights.shape), self.factor, self.boundary, self.offset

    @cached_property
    def taps(self) -> tuple[Tensor, Tensor] | None:
        """(column of kh, row of kw) whose outer product is the kernel, or None when it has a higher rank."""
        u, s, vt = torch.linalg.svd(self.weights)
        if len(s) > 1 and s[1] > RANK_ONE_TOLERANCE * s[0]:
            return None
        sign = 1.0 if u[:, 0].sum() >= 0 else -1.0
        return u[:, 0] * s[0].sqrt() * sign, vt[0] * s[0].sqrt() * sign

    @property
    def noise_gain(self) -> float:
        return self.weights.square().sum().sqrt().item()

    def matrices(self, size: Size) -> tuple[Tensor, Tensor] | None:
        if self.taps is None:
            return None
        low, starts = self.output_size(size), self._starts
        rows, cols = (banded_matrix(self.taps[i], size[i], low[i], starts[i], self.factor, self.boundary) for i in (0, 1))
        return rows, cols

    def forward(self, x: Tensor) -> Tensor:
        # on a CPU sums over few taps take a third of the time of two products with matrices
        short = self.factor == 1 and sum(self.weights.shape) <= DIRECT_TAPS and x.device.type == "cpu"
        if self.taps is not None and not short:
            return super().forward(x)
        padded = upcast(x)
        for axis, (start, stop) in zip((-2, -1), self._reads((x.shape[-2], x.shape[-1])), strict=True):
            padded = extended(padded, axis, start, stop, self.boundary)
        if self.taps is not None:
            column, row = (part.tolist() for part in self.taps)
            return correlated(correlated(padded, -2, column), -1, row).to(x.dtype)
        return correlate(padded, self.weights, self.factor).to(x.dtype)

    def adjoint(self, y: Tensor, size: Size | None = None) -> Tensor:
        size = self.input_size(y, size)
        if self.taps is not None:
            return super().adjoint(y, size)
        rows, cols = self._padding_indices(size, y.device)
        padded = correlate_adjoint(upcast(y), self.weights, self.factor)
        tall = padded.new_zeros(*padded.shape[:-2], size[0], padded.shape[-1]).index_add(-2, rows, padded)
        return tall.new_zeros(*tall.shape[:-1], size[1]).index_add(-1, cols, tall).to(y.dtype)

    def pinv(self, y: Tensor, size: Size | None = None, damping: float = 0.0) -> Tensor:
        size = self.input_size(y, size)
        circulant = self.boundary == "circular" and size[0] % self.factor == 0 and size[1] % self.factor == 0
        if self.taps is not None and not circulant:
            return super().pinv(y, size, damping)
        work = upcast(y)
        low = (y.shape[-2], y.shape[-1])
        power = gram_spectrum(self, low, work.dtype, work.device)
        z = _apply_spectrum(work, _inverse_spectrum(power, damping)) if circulant else self._solve(work, size, damping, power)
        return self.adjoint(z, size).to(y.dtype)

    def on_crop(self, scale: float) -> Blur:
        """The kernel, a Gaussian's by its formula where that is not too narrow, others tap by tap."""
        title = f"{self.title} at {scale:.3g} px per px"
        if self.sigmas is not None:
            scaled = Blur.gaussian(self.sigmas[0] * scale, self.sigmas[1] * scale, self.sigmas[2])
            if min(self.sigmas[:2]) * scale >= MIN_FORMULA_SIGMA:
                return scaled
            title = scaled.title
        shift = [(side - 1) / 2 - side // 2 + (self.offset or 0) - (self.factor - 1) / 2 for side in self.weights.shape]
        return Blur(kernels.trim_kernel(kernels.rescale_kernel(self.weights, scale, (shift[0], shift[1]))), title=title)

    def describe(self) -> str:
        return self.title if self.factor == 1 else f"{self.title}, down x{self.factor}"

    @property
    def _starts(self) -> tuple[int, int]:
        offset, (rows, cols) = self.offset or 0, self.weights.shape
        return offset - rows // 2, offset - cols // 2

    def _padding_indices(self, size: Size, device: torch.device) -> tuple[Tensor, Tensor]:
        """Which rows and columns of x the padded frame is made of."""
        spans = (torch.arange(start, stop, device=device) for start, stop in self._reads(size))
        rows, cols = (boundary_index(span, length, self.boundary) for span, length in zip(spans, size, strict=True))
        return rows, cols

    def _reads(self, size: Size) -> list[tuple[int, int]]:
        """First row and end of the rows that y is made of, and the same of columns; they may lie outside."""
        parts = zip(self._starts, self.output_size(size), self.weights.shape, strict=True)
        return [(start, start + self.factor * (outputs - 1) + taps) for start, outputs, taps in parts]

    def _solve(self, y: Tensor, size: Size, damping: float, power: Tensor) -> Tensor:
        inverse = 1 / (power + damping + PRECONDITIONER_FLOOR * power.max())
        return conjugate_gradients(lambda z: self.forward(self.adjoint(z, size)) + damping * z, y, precondition=lambda r: _apply_spectrum(r, inverse))


@dataclass(frozen=True)
class MotionBlurPerFrame(Degradation):
    """y_n = A_n x_n with A_n = Blur.motion(..., seed + n): every frame of (..., T, C, H, W) was shaken by a hand of its own (FLAIR, section 5.2).

    Attributes:
        size, strength, factor, boundary: see Blur.motion.
        seed: of frame 0's kernel.
    """

    size: int = 33
    strength: float = 0.5
    seed: int = 0
    factor: int = 1
    boundary: Boundary = "replicate"
    axes = frozenset({"space", "time"})

    def __post_init__(self) -> None:
        self.of_frame(0)

    def of_frame(self, frame: int) -> Blur:
        """The blur of one frame."""
        return _motion_blur(self.size, self.strength, self.seed + frame, self.factor, self.boundary)

    def at_frames(self, first: int, count: int) -> MotionBlurPerFrame:
        return replace(self, seed=self.seed + first)

    @property
    def noise_gain(self) -> float:
        return self.of_frame(0).noise_gain

    def forward(self, x: Tensor) -> Tensor:
        return self._each(x, lambda blur, frame: blur.forward(frame))

    def adjoint(self, y: Tensor, size: Size | None = None) -> Tensor:
        return self._each(y, lambda blur, frame: blur.adjoint(frame, size))

    def pinv(self, y: Tensor, size: Size | None = None, damping: float = 0.0) -> Tensor:
        return self._each(y, lambda blur, frame: blur.pinv(frame, size, damping))

    def describe(self) -> str:
        return f"{self.of_frame(0).describe()}, another in every frame"

    def _each(self, frames: Tensor, act: Callable[[Blur, Tensor], Tensor]) -> Tensor:
        if frames.ndim < 4:
            raise ValueError(f"motion blur that differs from frame to frame needs a clip (T, C, H, W), got {tuple(frames.shape)}")
        return torch.stack([act(self.of_frame(n), frame) for n, frame in enumerate(frames.unbind(-4))], -4)


@cached(64)
def _motion_blur(size: int, strength: float, seed: int, factor: int, boundary: Boundary) -> Blur:
    return Blur.motion(size, strength, seed, factor=factor, boundary=boundary)


def _apply_spectrum(y: Tensor, response: Tensor) -> Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(y) * response, s=(y.shape[-2], y.shape[-1]))


def _inverse_spectrum(power: Tensor, damping: float) -> Tensor:
    """1 / (|s|^2 + damping); without damping 0 where s is below `null_cutoff` of the largest."""
    if damping:
        return 1 / (power + damping)
    kept = power > null_cutoff(power.dtype) ** 2 * power.max()
    return torch.where(kept, 1 / torch.where(kept, power, 1), 0)
