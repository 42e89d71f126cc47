"""One reverse step p(x_{t-1} | x_t) of any pixel-space prior, with its learnt variance if it has one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...diffusion.schedule import Schedule
from ...diffusion.steps import ddpm_posterior
from ...priors.base import Prior


@dataclass(frozen=True)
class Transition:
    """N(mean, deviation^2) over x_{t-1}, and the clean estimate it came from.

    Attributes:
        x0: clamped to [-1, 1].
        deviation: per value for a learnt variance, else one number.
    """

    x0: Tensor
    mean: Tensor
    deviation: Tensor | float


def transition(prior: Prior, x_t: Tensor, t: int, schedule: Schedule, entry: int) -> Transition:
    """p(x_{t-1} | x_t) with the mean of q(x_{t-1} | x_t, x_0) at the clamped estimate x_0, without a condition.

    A learnt variance interpolates between beta_t and the posterior variance on a logarithmic scale (Nichol and Dhariwal 2021, eq. 15). Priors that
    predict x_0 only have the posterior variance of DDPM (Ho et al. 2020, eq. 7).

    Args:
        x_t: (n, 3, H, W).
        t: the index into the prior's own schedule.
        schedule, entry: the respaced schedule, and which of its entries x_t is at.
    """
    alpha_bar, before = schedule.alpha_bar(entry), schedule.alpha_bar(entry - 1)
    x0, share = prior.posterior(x_t, t)
    mean, variance = ddpm_posterior(x_t, x0, alpha_bar, before)
    if share is None:
        return Transition(x0, mean, variance**0.5)
    if entry == 0:  # the posterior variance is 0 here; guided diffusion takes that of the next entry for its logarithm
        variance = ddpm_posterior(x_t, x0, schedule.alpha_bar(min(1, len(schedule) - 1)), alpha_bar)[1]
    low, high = math.log(variance), math.log(1 - alpha_bar / before)
    return Transition(x0, mean, torch.exp(0.5 * (low + share * (high - low))))
