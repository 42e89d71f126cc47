"""Means and interpolation by whole factors, which a CPU does two to ten times faster from slices of the image than by PyTorch's own kernels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import floor

import torch
import torch.nn.functional as F
from torch import Tensor

CUBIC = -0.75
"""The cubic's parameter a, PyTorch's."""
CACHED = 1 << 20
"""Values of an enlarged image up to which the passes over it stay in a core's cache; more are made in parts."""


def pooled(x: Tensor, factor: int) -> Tensor:
    """Means of (N, C, H, W) over squares of `factor` pixels, as F.avg_pool2d(x, factor), equal up to rounding."""
    if not _sliced(x) or factor & (factor - 1):
        return F.avg_pool2d(x, factor)
    height, width = (side // factor * factor for side in x.shape[-2:])
    x = x[..., :height, :width]
    while factor > 1:
        rows = x[..., ::2, :] + x[..., 1::2, :]
        x = (rows[..., ::2] + rows[..., 1::2]).mul_(0.25)
        factor //= 2
    return x


def interpolated(x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """(N, C, h, w) at `size`, as F.interpolate(x, size, mode=mode, align_corners=False), equal up to rounding; `mode` "bilinear" or "bicubic"."""
    factor = size[0] // x.shape[-2]
    if factor < 2 or not _sliced(x) or size != (factor * x.shape[-2], factor * x.shape[-1]):
        return F.interpolate(x, size, mode=mode, align_corners=False)
    few = max(1, CACHED // (size[0] * size[1]))
    if few < x.shape[0] * x.shape[1]:
        return torch.cat([interpolated(planes, size, mode) for planes in x.flatten(0, 1)[None].split(few, 1)], 1).view(*x.shape[:2], *size)
    for axis in (-2, -1):
        x = _enlarged(x, axis, factor, mode)
    return x


def correlated(x: Tensor, axis: int, taps: Sequence[float], start: int = 0, length: int | None = None) -> Tensor:
    """Correlation with `taps` along one axis, as a sum of slices: `length` outputs, the first one of which reads from `start` on; None for all."""
    length = x.shape[axis] - start - len(taps) + 1 if length is None else length
    total = x.narrow(axis, start, length) * taps[0]
    for place, weight in enumerate(taps[1:], start + 1):
        total.add_(x.narrow(axis, place, length), alpha=weight)
    return total


def _sliced(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _enlarged(x: Tensor, axis: int, factor: int, mode: str) -> Tensor:
    """Along one axis. Pixel f i + p lies at i + (p + 1/2) / f - 1/2, so all pixels of a phase p have the same weights; ends are repeated."""
    length = x.shape[axis]
    out = x.new_empty(*x.shape[:axis], length, factor, *(x.shape[-1:] if axis == -2 else ()))
    margin = 1 if mode == "bilinear" else 2
    x = F.pad(x, (0, 0, margin, margin) if axis == -2 else (margin, margin, 0, 0), mode="replicate")
    for phase, (first, weights) in enumerate(_phases(factor, mode)):
        out.select(axis, phase).copy_(correlated(x, axis, weights, margin + first, length))
    return out.flatten(axis - 1, axis)


@lru_cache(maxsize=16)
def _phases(factor: int, mode: str) -> list[tuple[int, list[float]]]:
    """Of each phase: where its taps begin, in pixels of the small image from its own place, and their weights."""
    found = []
    for phase in range(factor):
        at = (phase + 0.5) / factor - 0.5
        first = floor(at) - (mode == "bicubic")
        found.append((first, [_weight(abs(at - tap), mode) for tap in range(first, first + (2 if mode == "bilinear" else 4))]))
    return found


def _weight(distance: float, mode: str) -> float:
    """The linear or (Keys') cubic kernel."""
    if mode == "bilinear":
        return 1 - distance
    if distance <= 1:
        return (CUBIC + 2) * distance**3 - (CUBIC + 3) * distance**2 + 1
    return CUBIC * (distance**3 - 5 * distance**2 + 8 * distance - 4)
