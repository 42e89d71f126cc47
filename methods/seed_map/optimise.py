"""Algorithm 1 of Wang et al. (AAAI 2026): a clip restored by optimising the seed of a diffusion model and residuals per frame."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...models.device import CheckInterrupt, no_check
from ...motion.flow import FlowSource
from ...physics.base import Degradation
from .data_term import Observation, unexplained
from .generator import SeedGenerator
from .options import SeedMapOptions
from .variables import Unknowns, unknowns
from .warping_term import EARLIEST_START, LATEST_START, ProgressiveWarping

PATIENCE = 10
"""Consecutive overflowing gradients after which the optimisation gives up."""


@dataclass(frozen=True)
class Terms:
    """One iteration: `data` is l(Y, A(X')), `warp` is L_warp before its weight (None while it is off), both in the [-1, 1] range;
    `flow_change` the mean change of the flow in pixels when it is estimated again, else None; `fullness` the largest norm of a residual over its
    radius; `travel` the sum of the seed's learning rates so far, about how far it can have moved."""

    data: float
    warp: float | None
    flow_change: float | None
    fullness: float
    travel: float


@dataclass
class SeedMapResult:
    """The result of the optimisation.

    Attributes:
        frames: (N, 3, H, W) float32 in [0, 1] on the CPU.
        terms: one entry per iteration.
        warped_from: the iteration at which the warping began, or None.
        residuals: RMS of A(x'_n) - y_n over the known pixels of each frame, in units of [0, 1].
        contrast: standard deviation of each observed frame, over the same pixels.
        unexplained: frames whose observation the result does not explain.
        skipped: iterations whose gradient overflowed and that changed nothing.
    """

    frames: Tensor
    terms: list[Terms] = field(default_factory=list)
    warped_from: int | None = None
    residuals: list[float] = field(default_factory=list)
    contrast: list[float] = field(default_factory=list)
    unexplained: list[int] = field(default_factory=list)
    skipped: int = 0


OnIteration = Callable[[int, Terms, Tensor], None]
"""(iteration, its terms, the clip's middle frame (3, H, W) in [0, 1])."""


def seed_map(
    y: Tensor,
    operator: Degradation,
    generator: SeedGenerator,
    options: SeedMapOptions | None = None,
    *,
    flow: FlowSource | None = None,
    seed: int = 0,
    check_interrupt: CheckInterrupt = no_check,
    on_iteration: OnIteration = lambda iteration, terms, frame: None,
) -> SeedMapResult:
    """min over z and r_1..r_N of l(Y, A(X')) + w L_warp, x'_n = D1(D2(R(z)) + r_n), ||r_n|| <= C sqrt(dim r_n).

    Runs with gradients whatever the caller's grad or inference mode.

    Args:
        y: the observation, (N, 3, h, w) in [0, 1].
        operator: A, whose clean frames have the size of `generator.size`.
        flow: finds the flow for the warping; None leaves the warping out.
        seed: of z and the residuals' start.

    Raises:
        ValueError: if y is not the size of what A makes of the generator's frames, or gradients overflow again and again.
    """
    options = (options or SeedMapOptions()).resolved(operator)
    _check(y, operator, generator)
    with torch.inference_mode(False), torch.enable_grad():
        observed = Observation(y.detach().to(generator.device, torch.float32, copy=True), operator, options.loss)
        free = unknowns(generator, len(y), options, seed, check_interrupt)
        wanted = flow is not None and options.warp_weight > 0 and len(y) > 1
        warping = ProgressiveWarping(flow, options.flow_decay, options.loss, check_interrupt) if flow is not None and wanted else None
        return _descend(observed, free, warping, generator, options, check_interrupt, on_iteration)


def _descend(
    observed: Observation,
    free: Unknowns,
    warping: ProgressiveWarping | None,
    generator: SeedGenerator,
    options: SeedMapOptions,
    check_interrupt: CheckInterrupt,
    on_iteration: OnIteration,
) -> SeedMapResult:
    adam = torch.optim.Adam(free.groups(), foreach=False)  # one tensor at a time: no second copy of all residuals
    rates = torch.optim.lr_scheduler.LambdaLR(adam, lambda e: _cosine_decay(e / options.iterations, options.rate_floor))
    result = SeedMapResult(torch.empty(0))
    overflows, travel = 0, 0.0
    for e in range(options.iterations):
        check_interrupt()
        frames = free.render()
        data, gradient = observed.value_and_gradient(frames)
        warp, change = None, None
        if warping is not None:
            change = _update_flow(warping, frames, e, options, result)
            if result.warped_from is not None:
                warp, pull = warping.value_and_gradient(frames)
                gradient += options.warp_weight * pull
        before = travel
        if free.backward(gradient):
            adam.step()
            travel += adam.param_groups[0]["lr"]  # the first group is the seed's
            free.project()
            overflows = 0
            rates.step()
        else:
            generator.overflowed()
            result.skipped, overflows = result.skipped + 1, overflows + 1
            if overflows == PATIENCE:
                raise ValueError(
                    f"the gradient through the model was infinite {PATIENCE} times in a row at iteration {e + 1}; "
                    "run the model in float32 or bfloat16 (--force-fp32, --fp32-vae) or lower the learning rates"
                )
        terms = Terms(data, warp, change, free.fullness, before)
        result.terms.append(terms)
        on_iteration(e, terms, (frames[len(frames) // 2].clamp(-1, 1) + 1) / 2)
    frames = free.render().clamp(-1, 1)
    result.residuals = observed.residuals(frames).tolist()
    result.contrast = observed.contrast().tolist()
    result.unexplained = unexplained(result.residuals, result.contrast, observed.noise)
    result.frames = ((frames + 1) / 2).cpu()
    return result


def _cosine_decay(share: float, floor: float) -> float:
    """A half cosine from 1 at share 0 to `floor` at 1."""
    return floor + (1 - floor) * (1 + math.cos(math.pi * min(share, 1.0))) / 2


def _update_flow(warping: ProgressiveWarping, frames: Tensor, e: int, options: SeedMapOptions, result: SeedMapResult) -> float | None:
    """Estimates the flow where it is due, and switches the warping on at E_T; returns how much the flow changed, where it was estimated."""
    found = None
    if result.warped_from is None:
        if options.warp_start is not None:
            begins = e >= options.warp_start * options.iterations
        else:
            if e % options.warp_every == 0:
                found = warping.look(frames)
            share = e / options.iterations
            begins = (share >= EARLIEST_START and warping.settled) or share >= LATEST_START
        if begins:
            result.warped_from = e
    if result.warped_from is not None and (e - result.warped_from) % options.warp_every == 0:
        found = warping.look(frames) if found is None else found
        warping.refresh(found)
    return warping.changes[-1] if found is not None and warping.changes else None


def _check(y: Tensor, operator: Degradation, generator: SeedGenerator) -> None:
    if y.ndim != 4 or y.shape[1] != 3 or len(y) == 0:
        raise ValueError(f"seed-space MAP takes RGB frames (N, 3, h, w), got {tuple(y.shape)}")
    expected, got = operator.output_size(generator.size), tuple(y.shape[-2:])
    if expected != got:
        raise ValueError(
            f"{operator.describe()} turns the restored {generator.size[1]} x {generator.size[0]} frames into {expected[1]} x {expected[0]}, "
            f"but the input is {got[1]} x {got[0]} (width x height); wire the degradation that made these frames"
        )
