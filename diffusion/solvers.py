"""Solvers of the reverse process: which steps of a schedule are visited, and how each leads to the next.

A solver asks for one estimate of the clean frame per step. It may be changed before the step is taken (data consistency, enhancement):
whatever x_0 a step is given is the one it moves towards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from .schedule import Schedule
from .steps import ddim_step, dpm_solver_step, renoising_step

SolverName = Literal["ddpm", "ddim", "dpm++2m"]
Spacing = Literal["auto", "uniform", "log-snr", "trailing"]
Step = Callable[..., Tensor]
"""(x_t, x0, alpha_bar_t, alpha_bar_{t-1}, noise=None) -> x_{t-1}, all (N, 3, H, W), as those of steps.py; with alpha_bar_{t-1} 1 it is x0."""


@dataclass(frozen=True)
class Solver:
    """The steps of one trajectory, in order from noise to clean.

    Attributes:
        draws: whether steps use noise.
    """

    step: Step
    draws: bool = False


def dpm_solver_2m() -> Step:
    """DPM-Solver++ 2M (Lu et al. 2022): second order from the last two estimates; deterministic. Its first step is DDIM's."""
    before: tuple[Tensor, float] | None = None

    def step(x_t: Tensor, x0: Tensor, alpha_bar: float, alpha_bar_prev: float, *, noise: Tensor | None = None) -> Tensor:
        nonlocal before
        x_prev = dpm_solver_step(x_t, x0, alpha_bar, alpha_bar_prev, before=before)
        before = x0, alpha_bar
        return x_prev

    return step


def make_solver(name: SolverName, rho: float = 0.0) -> Solver:
    """A new trajectory's solver. `rho` in [0, 1] is how much noise is drawn anew: FLAIR's rho for "ddpm", which is FLAIR's own step, eta for "ddim"
    (Song et al. 2021), nothing for "dpm++2m".

    Raises:
        ValueError: for an unknown name.
    """
    if name == "ddpm":
        return Solver(partial(renoising_step, rho=rho), rho > 0)
    if name == "ddim":
        return Solver(partial(ddim_step, eta=rho), rho > 0)
    if name == "dpm++2m":
        return Solver(dpm_solver_2m())
    raise ValueError(f"no solver is called {name!r}; choose one of {', '.join(get_args(SolverName))}")


def spaced(schedule: Schedule, steps: int, start: float = 1.0, spacing: Spacing = "uniform") -> Schedule:
    """`steps` entries of a schedule up to step start * (T - 1).

    Args:
        spacing: "uniform": evenly in t from step 0 on, ends included, as FLAIR's code; "log-snr": the same ends, evenly in
            lambda = log(sqrt(alpha_bar / (1 - alpha_bar))), each at the nearest step of the schedule that is still free; "trailing": evenly in t,
            the cleanest as far from a clean frame as from its neighbour (Lin et al. 2024, table 2): none of few steps is spent where there is
            hardly any noise. ("auto" is for callers to resolve; here it is "uniform".)

    Raises:
        ValueError: as Schedule.respaced.

    >>> from .schedule import linear_schedule
    >>> spaced(linear_schedule(1000), 5).timesteps
    (0, 250, 500, 749, 999)
    """
    even = schedule.respaced(steps, start)
    last = round(start * (len(schedule) - 1))
    if spacing == "trailing" and last >= steps:
        return schedule.at([round(last * k / steps) for k in range(1, steps + 1)])
    if spacing != "log-snr" or steps < 3:
        return even
    levels = schedule.alphas_cumprod[: last + 1].logit() / 2  # log_snr of each
    goals = torch.linspace(float(levels[0]), float(levels[-1]), steps, dtype=torch.float64)
    chosen: list[int] = []
    for k, goal in enumerate(goals):
        nearest = int((levels - goal).abs().argmin())
        lowest = chosen[-1] + 1 if chosen else 0
        chosen.append(min(max(nearest, lowest), last - (steps - 1 - k)))  # steps still to come need room
    return schedule.at(chosen)
