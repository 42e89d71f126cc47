"""Separable operators A x = R x C^T through two small matrices: exact adjoint and exact (damped) inverse for any size.

With the thin decompositions R = U_r S_r V_r^T and C = U_c S_c V_c^T,
    A^T (A A^T + d I)^-1 y = V_r [g * (U_r^T y U_c)] V_c^T,   g_ij = s_i s_j / (s_i^2 s_j^2 + d).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...products import sandwich
from ..base import Degradation, Size
from ..numerics import cached, null_cutoff, upcast


@dataclass(frozen=True, eq=False)
class Factors:
    """The decompositions of both matrices in working precision, and both pseudo-inverses where no direction is lost."""

    rows_u: Tensor
    rows_v: Tensor
    cols_u: Tensor
    cols_v: Tensor
    singular: Tensor
    rows_pinv: Tensor | None
    cols_pinv: Tensor | None


@cached(16)
def _exact_matrices(operator: Degradation, size: Size) -> tuple[Tensor, Tensor]:
    found = operator.matrices(size)
    if found is None:
        raise ValueError(f"{operator.describe()} is not separable, so it has no row and column matrices")
    return found


@cached(16)
def _matrices(operator: Degradation, size: Size, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    rows, cols = _exact_matrices(operator, size)
    return rows.to(device, dtype), cols.to(device, dtype)


@cached(8)
def _decompositions(operator: Degradation, size: Size) -> tuple[Tensor, ...]:
    rows, cols = _exact_matrices(operator, size)
    of_rows = torch.linalg.svd(rows, full_matrices=False)
    of_cols = of_rows if torch.equal(rows, cols) else torch.linalg.svd(cols, full_matrices=False)
    return *of_rows, *of_cols


@cached(8)
def _factors(operator: Degradation, size: Size, dtype: torch.dtype, device: torch.device) -> Factors:
    rows_u, rows_s, rows_vt, cols_u, cols_s, cols_vt = _decompositions(operator, size)
    singular = rows_s[:, None] * cols_s
    full_rank = bool(singular.min() > null_cutoff(dtype) * singular.max())

    def cast(tensor: Tensor) -> Tensor:
        return tensor.to(device, dtype).contiguous()

    return Factors(
        cast(rows_u),
        cast(rows_vt.mT),
        cast(cols_u),
        cast(cols_vt.mT),
        cast(singular),
        cast((rows_vt.mT / rows_s) @ rows_u.mT) if full_rank else None,
        cast((cols_vt.mT / cols_s) @ cols_u.mT) if full_rank else None,
    )


def separable_pinv(operator: Degradation, y: Tensor, size: Size, damping: float = 0.0) -> Tensor:
    """A^T (A A^T + damping I)^-1 y, exact. Without damping, directions below `null_cutoff` count as lost."""
    work = upcast(y)
    parts = _factors(operator, size, work.dtype, work.device)
    if damping == 0 and parts.rows_pinv is not None and parts.cols_pinv is not None:
        return sandwich(work, parts.rows_pinv, parts.cols_pinv).to(y.dtype)
    gain = spectral_gain(parts.singular, damping)
    spectrum = gain * sandwich(work, parts.rows_u.mT, parts.cols_u.mT)
    return sandwich(spectrum, parts.rows_v, parts.cols_v).to(y.dtype)


def spectral_gain(singular: Tensor, damping: float) -> Tensor:
    """s / (s^2 + damping); without damping 1 / s, and 0 where s is below `null_cutoff` of the largest."""
    if damping:
        return singular / (singular.square() + damping)
    kept = singular > null_cutoff(singular.dtype) * singular.max()
    return torch.where(kept, 1 / torch.where(kept, singular, 1), 0)


class Separable(Degradation):
    """A x = R x C^T by the operator's `matrices` R and C."""

    def forward(self, x: Tensor) -> Tensor:
        work = upcast(x)
        rows, cols = _matrices(self, (x.shape[-2], x.shape[-1]), work.dtype, work.device)
        return sandwich(work, rows, cols).to(x.dtype)

    def adjoint(self, y: Tensor, size: Size | None = None) -> Tensor:
        work = upcast(y)
        rows, cols = _matrices(self, self.input_size(y, size), work.dtype, work.device)
        return sandwich(work, rows.mT, cols.mT).to(y.dtype)

    def pinv(self, y: Tensor, size: Size | None = None, damping: float = 0.0) -> Tensor:
        return separable_pinv(self, y, self.input_size(y, size), damping)
