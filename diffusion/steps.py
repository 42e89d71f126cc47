"""Reverse steps x_t -> x_{t-1} from an estimate of the clean frame."""

from __future__ import annotations

import math

from torch import Tensor

from .schedule import add_noise, x0_to_eps


def ddim_step(x_t: Tensor, x0: Tensor, alpha_bar: float, alpha_bar_prev: float, *, eta: float = 0.0, noise: Tensor | None = None) -> Tensor:
    """Song et al. 2021, eq. 12 and 16; eta 0 is deterministic, eta 1 has DDPM's posterior variance.

    s^2 = eta^2 (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) (1 - alpha_bar_t / alpha_bar_{t-1})
    x_{t-1} = sqrt(alpha_bar_{t-1}) x_0 + sqrt(1 - alpha_bar_{t-1} - s^2) eps + s noise

    Args:
        x_t, x0, noise: tensors of one shape; `noise` is needed where eta > 0.
        alpha_bar, alpha_bar_prev: alpha_bar_t and alpha_bar_{t-1}, alpha_bar < alpha_bar_prev <= 1 (1 is the clean frame).

    Raises:
        ValueError: if eta is outside 0..1, or positive without noise.

    >>> import torch
    >>> x0, eps = torch.tensor([0.5]), torch.tensor([-1.0])
    >>> ddim_step(add_noise(x0, eps, 0.2), x0, 0.2, 0.8).sub(add_noise(x0, eps, 0.8)).abs().item() < 1e-6
    True
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta is between 0 (deterministic) and 1 (DDPM), got {eta}")
    if eta and noise is None:
        raise ValueError(f"a step with eta={eta} needs noise of the frames' shape")
    variance = eta**2 * (1 - alpha_bar_prev) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_prev)
    direction = max(1 - alpha_bar_prev - variance, 0.0) ** 0.5
    x_prev = alpha_bar_prev**0.5 * x0 + direction * x0_to_eps(x_t, x0, alpha_bar)
    return x_prev if noise is None or not variance else x_prev + variance**0.5 * noise


def ddpm_posterior(x_t: Tensor, x0: Tensor, alpha_bar: float, alpha_bar_prev: float) -> tuple[Tensor, float]:
    """Mean and variance of q(x_{t-1} | x_t, x_0) (Ho et al. 2020, eq. 7), between any two steps of a schedule."""
    alpha = alpha_bar / alpha_bar_prev
    beta = 1 - alpha
    mean = alpha_bar_prev**0.5 * beta / (1 - alpha_bar) * x0 + alpha**0.5 * (1 - alpha_bar_prev) / (1 - alpha_bar) * x_t
    return mean, beta * (1 - alpha_bar_prev) / (1 - alpha_bar)


def renoising_step(x_t: Tensor, x0: Tensor, alpha_bar: float, alpha_bar_prev: float, *, rho: float, noise: Tensor | None = None) -> Tensor:
    """FLAIR's line 10 with its code's t - 1 under the root; at rho 0 it is DDIM with eta 0, at rho 1 all noise is new.

    x_{t-1} = sqrt(alpha_bar_{t-1}) x_0 + sqrt(1 - alpha_bar_{t-1}) (sqrt(1 - rho) eps + sqrt(rho) noise),
    eps = (x_t - sqrt(alpha_bar_t) x_0) / sqrt(1 - alpha_bar_t)

    Args:
        x_t, x0, noise: tensors of one shape; `noise` is needed where rho > 0.
        alpha_bar, alpha_bar_prev: alpha_bar_t and alpha_bar_{t-1}, alpha_bar < alpha_bar_prev <= 1 (1 is the clean frame, and the result x_0).

    Raises:
        ValueError: if rho is outside 0..1, or positive without noise.

    >>> import torch
    >>> renoising_step(torch.tensor([0.9]), torch.tensor([0.5]), 0.2, 1.0, rho=0.3)
    tensor([0.5000])
    """
    if not 0 <= rho <= 1:
        raise ValueError(f"rho is a share of the noise between 0 (deterministic) and 1 (all new), got {rho}")
    if alpha_bar_prev >= 1:
        return x0
    if rho and noise is None:
        raise ValueError(f"a step with rho={rho} needs noise of the frames' shape")
    eps = x0_to_eps(x_t, x0, alpha_bar)
    return add_noise(x0, eps if noise is None or not rho else (1 - rho) ** 0.5 * eps + rho**0.5 * noise, alpha_bar_prev)


def dpm_solver_step(x_t: Tensor, x0: Tensor, alpha_bar: float, alpha_bar_prev: float, *, before: tuple[Tensor, float] | None = None) -> Tensor:
    """DPM-Solver++ (Lu et al. 2022), data prediction: order 1 (eq. 10), or 2M (eq. 12 and 13) where the estimate `before` is known.

    With alpha = sqrt(alpha_bar), sigma = sqrt(1 - alpha_bar), lambda = log(alpha / sigma), h = lambda_{t-1} - lambda_t and r = h_before / h:
    x_{t-1} = sigma_{t-1} / sigma_t x_t - alpha_{t-1} (e^-h - 1) D,  D = x_0 + (x_0 - x_0,before) / (2 r), or x_0 at order 1, which is DDIM.

    Args:
        x_t, x0: tensors of one shape.
        alpha_bar, alpha_bar_prev: alpha_bar_t and alpha_bar_{t-1}, alpha_bar < alpha_bar_prev <= 1 (1 is the clean frame, and the result x_0).
        before: the estimate of the step before this one and its alpha_bar.
    """
    if alpha_bar_prev >= 1:
        return x0
    h = log_snr(alpha_bar_prev) - log_snr(alpha_bar)
    target = x0
    if before is not None:
        r = (log_snr(alpha_bar) - log_snr(before[1])) / h
        target = x0 + (x0 - before[0]) / (2 * r)
    return ((1 - alpha_bar_prev) / (1 - alpha_bar)) ** 0.5 * x_t - alpha_bar_prev**0.5 * math.expm1(-h) * target


def log_snr(alpha_bar: float) -> float:
    """lambda = log(sqrt(alpha_bar) / sqrt(1 - alpha_bar)), half the log of the signal-to-noise ratio."""
    return 0.5 * math.log(alpha_bar / (1 - alpha_bar))
