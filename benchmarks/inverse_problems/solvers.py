"""What fewer steps cost: FLAIR's sampler by solver and number of steps, against a long run of the same; markdown tables.

    python benchmarks/inverse_problems/solvers.py

Part 1, exact: three Gaussian priors whose flow is known, x_T to clean; the distance to where the flow ends.
Part 2, the sampler: one degraded picture. "to 200" is the mean absolute difference, in grey levels, to 200 steps of deterministic DDIM
from the same noise (149 where sampling starts late and the schedule has no more); PSNR is against the truth. FLAIR's own steps ("ddpm")
draw noise on the way, so that their distance also holds what chance does: the row of another seed says how much.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace

import skimage.data
import torch
from torch import Tensor
from torch.nn import functional as F

from fvr.diffusion.schedule import linear_schedule
from fvr.diffusion.solvers import SolverName, Spacing, make_solver, spaced
from fvr.methods.base import restore_frames
from fvr.methods.flair.sampler import FlairOptions, FlairRestorer
from fvr.metrics.fidelity import psnr
from fvr.physics.base import Degradation
from fvr.physics.identity import GaussianNoise
from fvr.physics.linear.blur import Blur
from fvr.priors.base import Prior
from fvr.priors.wiener import GaussianPrior

KINDS: list[tuple[SolverName, Spacing]] = [("ddim", "uniform"), ("ddim", "log-snr"), ("dpm++2m", "uniform"), ("dpm++2m", "log-snr")]


def exact_error(name: SolverName, spacing: Spacing, steps: int) -> float:
    """Largest error over N(0.3, 0.05^2), N(0.3, 0.3^2) and N(0.3, 1.5^2) at the schedule's cleanest step, x_T two deviations out."""
    spread = torch.tensor([0.05, 0.3, 1.5], dtype=torch.float64)
    schedule = spaced(linear_schedule(), steps, 1.0, spacing)

    def deviation(alpha_bar: float) -> Tensor:
        return (alpha_bar * spread**2 + 1 - alpha_bar).sqrt()

    first, last = schedule.alpha_bar(steps - 1), schedule.alpha_bar(0)
    x, solver = first**0.5 * 0.3 + 2 * deviation(first), make_solver(name)
    for t in range(steps - 1, 0, -1):
        alpha_bar = schedule.alpha_bar(t)
        x0 = 0.3 + alpha_bar**0.5 * spread**2 / deviation(alpha_bar) ** 2 * (x - alpha_bar**0.5 * 0.3)
        x = solver.step(x, x0, alpha_bar, schedule.alpha_bar(t - 1))
    return float((x - (last**0.5 * 0.3 + 2 * deviation(last))).abs().max())


def portrait() -> Tensor:
    """The astronaut's head (NASA, public domain), (1, 3, 512, 512) in [0, 1]."""
    pixels = torch.from_numpy(skimage.data.astronaut().copy()).permute(2, 0, 1)[None] / 255
    return F.interpolate(pixels[..., 0:256, 96:352], size=(512, 512), mode="bicubic").clamp(0, 1)


def timed(prior: Prior, operator: Degradation, y: Tensor, options: FlairOptions, seed: int = 0) -> tuple[Tensor, float]:
    begun = time.perf_counter()
    return restore_frames(FlairRestorer(prior, operator, options), y, seed=seed), time.perf_counter() - begun


def sampler_rows(prior: Prior, base: FlairOptions, long: int, counts: list[int]) -> Iterator[str]:
    truth = portrait()
    operator = GaussianNoise(0.03) @ Blur.gaussian(2.0, factor=4)
    y = operator.observe(truth, torch.Generator().manual_seed(0))
    still, long = replace(base, rho=0.0), min(long, int(base.start * (len(prior.schedule) - 1)))
    timed(prior, operator, y, replace(still, steps=2))  # decompositions are made once

    def row(name: str, options: FlairOptions, seed: int = 0) -> str:
        out, seconds = timed(prior, operator, y, options, seed)
        away = 255 * (out - goal).abs().mean()
        return f"| {name} | {options.steps} | {away:.2f} | {psnr(out, truth).mean():.2f} | {seconds:.1f} |"

    goal, seconds = timed(prior, operator, y, replace(still, steps=long, solver="ddim", spacing="uniform"))
    yield f"| solver | steps | to {long} | PSNR | s/frame |"
    yield "| --- | --- | --- | --- | --- |"
    yield f"| ddim, uniform | {long} | 0 | {psnr(goal, truth).mean():.2f} | {seconds:.1f} |"
    yield row("ddim, uniform, another seed", replace(still, steps=max(counts), solver="ddim", spacing="uniform"), seed=1)
    for steps in (long // 2, *counts):
        yield row(f"ddpm, rho {base.rho:g}", replace(base, steps=steps))
    for solver, spacing in KINDS:
        for steps in counts:
            yield row(f"{solver}, {spacing}", replace(still, steps=steps, solver=solver, spacing=spacing))


def main() -> None:
    parser = argparse.ArgumentParser(description="FLAIR's sampler by solver and number of steps; prints markdown tables.")
    parser.add_argument("--steps", default="10,15,25", help="numbers of steps")
    parser.add_argument("--long", type=int, default=200, help="steps of the run that the others are compared with")
    arguments = parser.parse_args()
    counts = [int(text) for text in arguments.steps.split(",")]

    print("Known flow, largest error:\n\n| solver | " + " | ".join(f"{n} steps" for n in [*counts, 50, 100]) + " |")
    print("| --- |" + " --- |" * (len(counts) + 2))
    for solver, spacing in KINDS:
        print(f"| {solver}, {spacing} | " + " | ".join(f"{exact_error(solver, spacing, n):.4f}" for n in [*counts, 50, 100]) + " |", flush=True)

    published = FlairOptions(start=1.0, temperature=1.0, self_condition=False, rho=0.25, enhance=False)
    jobs = [
        ("Prior without weights, from pure noise", GaussianPrior(), published),
        ("Prior without weights, its defaults", GaussianPrior(), FlairOptions(enhance=False)),
    ]
    for title, prior, base in jobs:
        print(f"\n{title}:\n")
        for line in sampler_rows(prior, base, arguments.long, counts):
            print(line, flush=True)


if __name__ == "__main__":
    main()
