"""One reverse step p(x_{t-1} | x_t) of any pixel-space prior, with the variance that its network learnt where it learnt one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...diffusion.schedule import Schedule, eps_to_x0
from ...diffusion.steps import ddpm_posterior
from ...models.device import in_batches
from ...models.difface_unet import DifFaceUNet
from ...priors.base import Prior
from ...priors.image_ddpm import ImagePrior
from ...priors.pyramid import PyramidPrior


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


def own_size(prior: Prior) -> Prior:
    """The prior at the size its network was trained for: of a pyramid, its coarse level, which is the part that was trained."""
    return prior.coarse if isinstance(prior, PyramidPrior) else prior


def learns_variance(prior: Prior) -> bool:
    """Whether a prior's network predicts the variance of its steps, as DifFace's does (Nichol and Dhariwal 2021)."""
    return isinstance(prior, ImagePrior) and isinstance(prior.network, DifFaceUNet) and prior.network.config.outputs == 6


def transition(prior: Prior, x_t: Tensor, t: int, schedule: Schedule, entry: int) -> Transition:
    """p(x_{t-1} | x_t) with the mean of q(x_{t-1} | x_t, x_0) at the clamped estimate x_0, without a condition.

    A learnt variance lies between beta_t and the posterior's, on a logarithmic scale (eq. 15 of Nichol and Dhariwal): the network says where.
    Other priors give x_0 only; their steps have the posterior variance of DDPM (Ho et al. 2020, eq. 7).

    Args:
        x_t: (n, 3, H, W).
        t: the index into the prior's own schedule.
        schedule, entry: the respaced schedule, and which of its entries x_t is at.
    """
    alpha_bar, before = schedule.alpha_bar(entry), schedule.alpha_bar(entry - 1)
    share: Tensor | None = None
    if learns_variance(prior):
        assert isinstance(prior, ImagePrior)
        x0, share = _estimate_and_share(prior, x_t, t)
    else:
        x0 = prior.predict_x0(x_t, t).clamp(-1, 1)
    mean, variance = ddpm_posterior(x_t, x0, alpha_bar, before)
    if share is None:
        return Transition(x0, mean, variance**0.5)
    if entry == 0:  # its own is 0, whose logarithm there is none; the next one's, as guided diffusion has it
        variance = ddpm_posterior(x_t, x0, schedule.alpha_bar(min(1, len(schedule) - 1)), alpha_bar)[1]
    low, high = math.log(variance), math.log(1 - alpha_bar / before)
    return Transition(x0, mean, torch.exp(0.5 * (low + share * (high - low))))


def _estimate_and_share(prior: ImagePrior, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """The clamped x_0, and where between the two variances the network sees its own: 0 the posterior's, 1 beta_t."""
    network = prior.network
    assert isinstance(network, DifFaceUNet)
    step = prior.schedule.timesteps[t]
    seen = torch.cat([x_t, torch.zeros_like(x_t)], 1) if prior.conditional else x_t

    def run(x: Tensor) -> Tensor:
        place = prior.place(network.working_bytes(len(x), x.shape[-2], x.shape[-1]))
        x = x.to(place).contiguous(memory_format=torch.channels_last)
        return network(x, torch.full((len(x),), step, device=place), variance=True).to(x_t)

    out = in_batches(run, seen, len(seen))
    return eps_to_x0(x_t, out[:, :3], prior.schedule.alpha_bar(t)).clamp(-1, 1), (out[:, 3:] + 1) / 2
