"""Conjugate gradients for z with (A A^T + damping I) z = y, where no closed form exists."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MAX_ITERATIONS = 100


def tolerance_of(dtype: torch.dtype) -> float:
    """The relative residual |r| / |b| at which a system counts as solved: 1e-5 in float32, 1e-10 in float64."""
    return 1e-10 if dtype == torch.float64 else 1e-5


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor], b: Tensor, *, axes: tuple[int, ...] = (-2, -1), precondition: Callable[[Tensor], Tensor] = lambda r: r
) -> Tensor:
    """Solves apply(z) = b for many independent systems at once.

    apply: symmetric positive semi-definite along `axes`, independent along all others; b: one right side per index of the others.
    Each system stops by itself at |apply(z) - b| <= `tolerance_of` |b|, so a frame's solution does
    not depend on the batch it is in; all stop after MAX_ITERATIONS, with the iterate of the smallest residual so far. Starting from 0,
    a singular but consistent system is solved too.
    """

    def dot(u: Tensor, v: Tensor) -> Tensor:
        return (u * v).sum(axes, keepdim=True)

    z, residual = torch.zeros_like(b), b
    direction = precondition(residual)
    power = dot(residual, direction)
    best, error = z, dot(b, b)
    goal, smallest = tolerance_of(b.dtype) ** 2 * error, error
    for _ in range(MAX_ITERATIONS):
        active = error > goal
        if not bool(active.any()):
            break
        image = apply(direction)
        curvature = dot(direction, image)
        active = active & (curvature > 0)
        step = torch.where(active, power / torch.where(active, curvature, 1), 0)
        z = z + step * direction
        residual = residual - step * image
        error = dot(residual, residual)
        best, smallest = torch.where(error < smallest, z, best), torch.minimum(error, smallest)
        steepest = precondition(residual)
        next_power = dot(residual, steepest)
        direction = steepest + torch.where(active, next_power / torch.where(power > 0, power, 1), 0) * direction
        power = next_power
    return best
