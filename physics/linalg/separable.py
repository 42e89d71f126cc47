"""Separable operators A x = R x C^T through two small matrices: exact adjoint and exact (damped) inverse for any size.

With the thin decompositions R = U_r S_r V_r^T and C = U_c S_c V_c^T,
    A^T (A A^T + d I)^-1 y = V_r [g * (U_r^T y U_c)] V_c^T,   g_ij = s_i s_j / (s_i^2 s_j^2 + d).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...products import sandwich
from ..base import Degradation, Size
from ..numerics import cached, null_cutoff, upcast


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
def _factors(operator: Degradation, size: Size, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """U_r, V_r, U_c, V_c and the products s_i s_j, in working precision."""
    rows_u, rows_s, rows_vt, cols_u, cols_s, cols_vt = _decompositions(operator, size)
    return tuple(part.to(device, dtype).contiguous() for part in (rows_u, rows_vt.mT, cols_u, cols_vt.mT, rows_s[:, None] * cols_s))


@cached(8)
def _pseudo_inverses(operator: Degradation, size: Size, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """R+ and C+ in working precision; empty where a direction is lost, below `null_cutoff`."""
    rows_u, rows_s, rows_vt, cols_u, cols_s, cols_vt = _decompositions(operator, size)
    if rows_s.min() * cols_s.min() <= null_cutoff(dtype) * (rows_s.max() * cols_s.max()):
        return ()
    pairs = ((rows_vt.mT / rows_s) @ rows_u.mT, (cols_vt.mT / cols_s) @ cols_u.mT)
    return tuple(part.to(device, dtype).contiguous() for part in pairs)


def separable_pinv(operator: Degradation, y: Tensor, size: Size, damping: float = 0.0) -> Tensor:
    """A^T (A A^T + damping I)^-1 y, exact. Without damping, directions below `null_cutoff` count as lost."""
    work = upcast(y)
    if damping == 0 and (pinvs := _pseudo_inverses(operator, size, work.dtype, work.device)):
        return sandwich(work, *pinvs).to(y.dtype)
    rows_u, rows_v, cols_u, cols_v, singular = _factors(operator, size, work.dtype, work.device)
    spectrum = sandwich(work, rows_u.mT, cols_u.mT).mT * spectral_gain(singular, damping).mT.contiguous()
    return sandwich(spectrum.mT, rows_v, cols_v).to(y.dtype)


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
