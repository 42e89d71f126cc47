"""Reverse steps x_t -> x_{t-1} from an estimate of the clean frame."""

from __future__ import annotations

from torch import Tensor

from .schedule import x0_to_eps


def ddim_step(x_t: Tensor, x0: Tensor, abar: float, abar_prev: float, *, eta: float = 0.0, noise: Tensor | None = None) -> Tensor:
    """Song et al. 2021, eq. 12 and 16; eta 0 is deterministic, eta 1 has DDPM's posterior variance.

    s^2 = eta^2 (1 - abar_{t-1}) / (1 - abar_t) (1 - abar_t / abar_{t-1})
    x_{t-1} = sqrt(abar_{t-1}) x_0 + sqrt(1 - abar_{t-1} - s^2) eps + s noise

    Args:
        x_t, x0, noise: tensors of one shape; `noise` is needed where eta > 0.
        abar, abar_prev: abar_t and abar_{t-1}, abar < abar_prev <= 1 (1 is the clean frame).

    Raises:
        ValueError: if eta is outside 0..1, or positive without noise.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta is between 0 (deterministic) and 1 (DDPM), got {eta}")
    if eta and noise is None:
        raise ValueError(f"a step with eta={eta} needs noise of the frames' shape")
    variance = eta**2 * (1 - abar_prev) / (1 - abar) * (1 - abar / abar_prev)
    direction = max(1 - abar_prev - variance, 0.0) ** 0.5
    x_prev = abar_prev**0.5 * x0 + direction * x0_to_eps(x_t, x0, abar)
    return x_prev if noise is None or not variance else x_prev + variance**0.5 * noise


def ddpm_posterior(x_t: Tensor, x0: Tensor, abar: float, abar_prev: float) -> tuple[Tensor, float]:
    """Mean and variance of q(x_{t-1} | x_t, x_0) (Ho et al. 2020, eq. 7), between any two steps of a schedule."""
    alpha = abar / abar_prev
    beta = 1 - alpha
    mean = abar_prev**0.5 * beta / (1 - abar) * x0 + alpha**0.5 * (1 - abar_prev) / (1 - abar) * x_t
    return mean, beta * (1 - abar_prev) / (1 - abar)
