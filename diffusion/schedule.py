"""Noise schedules of diffusion models, and the two ways of saying what a network predicts.

x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps, eps ~ N(0, I); t counts from 0, the cleanest step (Ho et al. 2020, eq. 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Schedule:
    """A decreasing table of alpha_bar_t and, for each entry, the step of the training schedule it stands for.

    Attributes:
        alphas_cumprod: (K,) float64 on the CPU, strictly decreasing in (0, 1].
        timesteps: K increasing training steps; index i of this schedule is training step timesteps[i].

    Raises:
        ValueError: if the table is empty, does not decrease inside (0, 1], or does not match `timesteps`.
    """

    alphas_cumprod: Tensor
    timesteps: tuple[int, ...]

    def __post_init__(self) -> None:
        table = self.alphas_cumprod
        if table.ndim != 1 or len(table) < 1 or len(table) != len(self.timesteps):
            raise ValueError(f"a schedule needs one alpha_bar per timestep, got {tuple(table.shape)} values for {len(self.timesteps)} timesteps")
        if not bool(((table > 0) & (table <= 1)).all()) or not bool((table.diff() < 0).all()):
            raise ValueError("a schedule's alpha_bar must fall strictly from at most 1 towards 0; give the cleanest step first")

    def __len__(self) -> int:
        return len(self.timesteps)

    def alpha_bar(self, t: int) -> float:
        """alpha_bar_t; 1 for t = -1, the clean frame."""
        if not -1 <= t < len(self):
            raise IndexError(f"step {t} is outside this schedule's -1..{len(self) - 1}")
        return 1.0 if t < 0 else float(self.alphas_cumprod[t])

    def sigma(self, t: int) -> float:
        """sqrt((1 - alpha_bar_t) / alpha_bar_t): the standard deviation of the noise in x_t / sqrt(alpha_bar_t)."""
        alpha_bar = self.alpha_bar(t)
        return ((1 - alpha_bar) / alpha_bar) ** 0.5

    def respaced(self, steps: int, start: float = 1.0) -> Schedule:
        """`steps` entries spread evenly from step 0 to step start * (T - 1), ends included, rounded as FLAIR's code rounds them.

        Args:
            steps: K, 1 to T.
            start: how noisy the first step is, as a share of the schedule in (0, 1]; below 1 sampling begins at a cleaner step
                (CCDF, Chung et al. 2022). With a `start` that leaves fewer than K steps, neighbours would repeat: an error.
        """
        last = start * (len(self) - 1)
        if not 1 <= steps <= len(self):
            raise ValueError(f"cannot spread {steps} steps over a schedule of {len(self)}; choose 1 to {len(self)}")
        if not 0 < start <= 1:
            raise ValueError(f"start is a share of the schedule in (0, 1], got {start}")
        if steps > 1 and last < steps - 1:
            raise ValueError(f"{steps} steps do not fit below step {last:.0f} of the schedule; lower steps or raise start")
        chosen, position = [], 0.0
        for _ in range(steps):
            chosen.append(round(position))
            position += last / (steps - 1) if steps > 1 else 1.0
        chosen = [min(t, len(self) - 1) for t in chosen]
        return self.at(chosen)

    def at(self, steps: Sequence[int]) -> Schedule:
        """The schedule of some of this one's steps, in rising order."""
        return Schedule(self.alphas_cumprod[list(steps)], tuple(self.timesteps[t] for t in steps))


def linear_schedule(steps: int = 1000, first: float = 1e-4, last: float = 2e-2) -> Schedule:
    """alpha_bar_t = prod_{s <= t} (1 - beta_s), beta linear from `first` to `last` (Ho et al. 2020; FLAIR's blur and JPEG networks).

    >>> round(float(linear_schedule(1000).alphas_cumprod[0]), 6)
    0.9999
    """
    if steps < 1 or not 0 < first <= last < 1:
        raise ValueError(f"a linear schedule needs at least one step and 0 < first <= last < 1, got steps={steps}, first={first}, last={last}")
    beta = torch.linspace(first, last, steps, dtype=torch.float64)
    return Schedule(torch.cumprod(1 - beta, 0), tuple(range(steps)))


def bicubic_schedule() -> Schedule:
    """FLAIR's x8 and x16 networks: 2000 linear steps, beta 1e-6 to 1e-2 (Table 11)."""
    return linear_schedule(2000, 1e-6, 1e-2)


def eps_to_x0(x_t: Tensor, eps: Tensor, alpha_bar: float) -> Tensor:
    """x_0 = (x_t - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar)."""
    return (x_t - (1 - alpha_bar) ** 0.5 * eps) / alpha_bar**0.5


def x0_to_eps(x_t: Tensor, x0: Tensor, alpha_bar: float) -> Tensor:
    """eps = (x_t - sqrt(alpha_bar) x_0) / sqrt(1 - alpha_bar), for alpha_bar < 1."""
    return (x_t - alpha_bar**0.5 * x0) / (1 - alpha_bar) ** 0.5


def add_noise(x0: Tensor, noise: Tensor, alpha_bar: float) -> Tensor:
    """A sample of q(x_t | x_0): sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise."""
    return alpha_bar**0.5 * x0 + (1 - alpha_bar) ** 0.5 * noise
