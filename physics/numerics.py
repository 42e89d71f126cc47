"""Small numerical conventions that all operators share."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def cached(entries: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """lru_cache for functions that build constant tensors.

    They are built outside inference mode, so that a tensor first made inside it (as ComfyUI runs nodes) can take part in autograd later.
    """

    def decorate(build: Callable[P, R]) -> Callable[P, R]:
        @lru_cache(entries)
        @wraps(build)
        def built(*args: P.args, **kwargs: P.kwargs) -> R:
            with torch.inference_mode(False), torch.no_grad():
                return build(*args, **kwargs)

        return built  # type: ignore[return-value]

    return decorate


def upcast(x: Tensor) -> Tensor:
    """x in a dtype to compute in: float64 stays, everything else is float32."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def null_cutoff(dtype: torch.dtype) -> float:
    """Singular values below this fraction of the largest count as zero: sqrt(eps), 3.5e-4 in float32 and 1.5e-8 in float64.

    What A attenuates more than that is lost in rounding; the cutoff balances the amplified rounding against what is given up.
    """
    return float(torch.finfo(dtype).eps) ** 0.5


def gaussian_sample(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of the shape, dtype and device of `like`, drawn in float32 on the generator's device."""
    device = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, device=device).to(like)
