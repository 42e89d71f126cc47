"""float32 matrix products on CPUs by oneDNN, which on AMD takes half the time of MKL, PyTorch's default."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b, as F.linear: x (..., n), weight (m, n), bias (m,) to (..., m); equal up to rounding.

    >>> torch.allclose(linear(torch.ones(2, 3), torch.eye(3)), torch.ones(2, 3))
    True
    """
    plain = x.device.type != "cpu" or x.dtype != torch.float32 or weight.dtype != torch.float32 or torch.is_grad_enabled()
    if plain or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling() or not _has_onednn():
        return F.linear(x, weight, bias)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight.contiguous(), bias, "none", [], "")
    return product


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of a map (B, n, h, w) with a kernel of 1, (m, n, 1, 1), as a product: (B, m, h, w), channels last."""
    return linear(x.permute(0, 2, 3, 1), weight[..., 0, 0], bias).permute(0, 3, 1, 2)


def sandwich(x: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """R x C^T of x (..., H, W), rows (h, H) and cols (w, W): (..., h, w), contiguous where that is the larger or x lies column by column."""
    if len(rows) > rows.shape[1] or x.mT.is_contiguous():
        return linear(linear(x.mT, rows).mT, cols)
    return linear(linear(x, cols).mT, rows).mT


class Linear(nn.Linear):
    """nn.Linear by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class Pointwise(nn.Conv2d):
    """A convolution with a kernel of 1, by `pointwise` where its map (B, C, h, w) lies channels last."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__(width_in, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last):
            return pointwise(x, self.weight, self.bias)
        return super().forward(x)


@lru_cache(maxsize=1)
def _has_onednn() -> bool:
    """Whether this PyTorch has the (private) operator that its compiler uses."""
    try:
        one = torch.ones(1, 1)
        return bool(torch.ops.mkldnn._linear_pointwise(one, one, None, "none", [], "") == 1)
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
