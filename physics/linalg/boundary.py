"""What lies beyond the border of a signal: indices, padding and its adjoint, and banded matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

Boundary = Literal["replicate", "circular", "reflect"]


def check_boundary(boundary: str) -> None:
    """Raises ValueError for an unknown boundary."""
    if boundary not in get_args(Boundary):
        raise ValueError(f"boundary is one of {', '.join(get_args(Boundary))}, got {boundary!r}")


def boundary_index(index: Tensor, length: int, boundary: Boundary) -> Tensor:
    """Integer positions, any of them outside, brought into 0..length - 1. `reflect` does not repeat the end: -1 -> 1, as torch."""
    if boundary == "replicate":
        return index.clamp(0, length - 1)
    if boundary == "circular":
        return index % length
    period = max(2 * (length - 1), 1)
    folded = index % period
    return torch.minimum(folded, period - folded) if length > 1 else torch.zeros_like(index)


def extended(x: Tensor, axis: int, start: int, stop: int, boundary: Boundary) -> Tensor:
    """Positions start..stop - 1 of `axis`, any of them outside; only those beyond the ends are looked up one by one."""
    length = x.shape[axis]
    first = min(max(start, 0), length)
    last = max(first, min(stop, length))
    outside = ((start, max(start, min(stop, 0))), (min(max(start, length), stop), stop))
    before, after = (x.index_select(axis, boundary_index(torch.arange(*span, device=x.device), length, boundary)) for span in outside)
    return torch.cat([before, x.narrow(axis, first, last - first), after], axis)


def banded_matrix(taps: Sequence[float] | Tensor, length: int, outputs: int, start: int, stride: int, boundary: Boundary) -> Tensor:
    """(outputs, length) float64 matrix M of y_k = sum_i taps_i x[start + stride k + i], with the boundary folded in."""
    weights = torch.as_tensor(taps, dtype=torch.float64)
    index = start + stride * torch.arange(outputs)[:, None] + torch.arange(len(weights))
    index = boundary_index(index, length, boundary)
    return torch.zeros(outputs, length, dtype=torch.float64).scatter_add_(1, index, weights.expand(outputs, -1))
