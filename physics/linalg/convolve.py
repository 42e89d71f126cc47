"""Correlation with a kernel and decimation, its adjoint, and the spectrum of A A^T with circular ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from ..numerics import cached

if TYPE_CHECKING:
    from ..linear.blur import Blur

DIRECT_TAPS = 64
"""Up to this many multiplications per pixel read, the direct sum is faster than the FFT."""


def correlate(padded: Tensor, kernel: Tensor, factor: int) -> Tensor:
    """Valid correlation of (..., H, W) with (kh, kw), every factor-th row and column."""
    if _direct(kernel, factor):
        planes = padded.reshape(-1, 1, *padded.shape[-2:])
        out = F.conv2d(planes, kernel.to(padded)[None, None], stride=factor)
        return out.reshape(*padded.shape[:-2], *out.shape[-2:])
    size = (padded.shape[-2], padded.shape[-1])
    product = torch.fft.rfft2(padded, s=_fast_size(size)) * _transfer_function(kernel, _fast_size(size), padded).conj()
    full = torch.fft.irfft2(product, s=_fast_size(size))
    return full[..., : size[0] - kernel.shape[0] + 1 : factor, : size[1] - kernel.shape[1] + 1 : factor]


def correlate_adjoint(y: Tensor, kernel: Tensor, factor: int) -> Tensor:
    """The adjoint of `correlate`: (..., h, w) -> (..., factor (h - 1) + kh, factor (w - 1) + kw)."""
    planes = y.reshape(-1, 1, *y.shape[-2:])
    if _direct(kernel, factor):
        out = F.conv_transpose2d(planes, kernel.to(y)[None, None], stride=factor)
        return out.reshape(*y.shape[:-2], *out.shape[-2:])
    size = tuple(factor * (y.shape[i - 2] - 1) + kernel.shape[i] for i in (0, 1))
    zeros = y.new_zeros(*y.shape[:-2], *_fast_size(size))
    zeros[..., : factor * y.shape[-2] : factor, : factor * y.shape[-1] : factor] = y
    out = torch.fft.irfft2(torch.fft.rfft2(zeros) * _transfer_function(kernel, _fast_size(size), y), s=_fast_size(size))
    return out[..., : size[0], : size[1]]


@cached(16)
def gram_spectrum(blur: Blur, low: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """(h, w // 2 + 1) spectrum of A A^T on the small grid: the transform of the kernel's autocorrelation at lags of `factor`.

    With circular ends and sizes that `factor` divides it is exact, |K|^2 folded by decimation; otherwise it is a preconditioner.
    """
    kernel, factor = blur.weights, blur.factor
    reach = [(side - 1) // factor * factor for side in kernel.shape]
    down, across = (torch.arange(-side, side + 1, factor) for side in reach)  # the lags, in pixels of the large grid
    size = _fast_size(tuple(2 * side for side in kernel.shape))  # no lag wraps round
    full = torch.fft.irfft2(torch.fft.rfft2(kernel, s=size).abs().square(), s=size)
    lags = full[down % size[0]][:, across % size[1]]
    rows, cols = down // factor % low[0], across // factor % low[1]
    wrapped = torch.zeros(low, dtype=torch.float64).index_put_((rows[:, None], cols), lags, accumulate=True)
    return torch.fft.rfft2(wrapped).real.clamp(min=0).to(device, dtype)


def _direct(kernel: Tensor, factor: int) -> bool:
    return kernel.numel() <= DIRECT_TAPS * factor**2


def _fast_size(size: tuple[int, ...]) -> tuple[int, int]:
    """The next sizes that are even and have no prime factor above 5."""
    from scipy.fft import next_fast_len

    rows, cols = (2 * next_fast_len(-(-side // 2), real=True) for side in size)
    return rows, cols


def _transfer_function(kernel: Tensor, size: tuple[int, int], like: Tensor) -> Tensor:
    return torch.fft.rfft2(kernel.to(like), s=size)
