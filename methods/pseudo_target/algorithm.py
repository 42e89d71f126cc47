"""Pseudo-targets: a restorer's output, refined by a diffusion prior (Kuai et al., "Towards Unsupervised Blind Face Restoration", Algorithm 1).

y_0 = R(y) is noised to step K and denoised again. Down to step L each sample takes its low frequencies from y_0 at the same noise level,
x <- x - phi_N(x) + phi_N(y_{t-1}); below L it is the prior's alone. Where the paper does not say, the official code is followed: x_0 is clamped, y_0
is noised to entry K of the respaced schedule while the first step denoises entry K - 1, and every y_{t-1} has new noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...diffusion.schedule import Schedule, add_noise
from ...faces.types import CROP
from ...options import Options, parameter
from ...physics.linear.bicubic import bicubic_matrix, cubic_matrix
from ...physics.numerics import cached
from ...priors.base import Prior
from .transition import transition

WHOLE = 1000
"""K and L are in thousandths of the training schedule; for DifFace's network these are its steps."""

ANCHORING_PASSES = 4
"""Corrections of a finished target's low frequencies: phi_N is no projection, and each pass leaves a third of the difference."""

Draw = Callable[[], Tensor]
"""Returns standard normal noise (n, 3, S, S); called in the order of Algorithm 1: for x_K, then for each x_{t-1}, and for y_{t-1} if constrained."""


def _entry(thousandths: int, steps: int) -> int:
    """The entry of a schedule of so many steps."""
    return min(round(thousandths * steps / WHOLE), steps - 1)


@dataclass(frozen=True)
class PseudoTargetOptions(Options):
    """Parameters of Algorithm 1; the defaults are those published for CodeFormer and footage shrunk four times.

    Attributes:
        N: factor of the low-pass filter phi_N: larger leaves more to the prior, smaller keeps more of the restorer's errors.
        steps: entries of the respaced schedule, of which K / 1000 are visited.
        scaled: whether N, K and L, which were chosen for faces of 512 pixels, are adapted to the side S of the prior: N is multiplied by S / 512, and
            K and L become the entries with S / 512 of the noise's standard deviation, so that a facial feature is under the same noise.
        anchored: whether phi_N of the finished target is made equal to that of y_0. Published is off: then the noise in y_{t-1} leaves brightness and
            colour some freedom. On keeps both, and with them the restorer's coarse errors.
    """

    N: int = parameter(
        8, 1, 128, advanced=True, advice="Size of what is held to the restorer's output, in pixels of the 512 face: larger leaves more to the prior."
    )
    K: int = parameter(600, 1, WHOLE, advice="Where denoising starts, in thousandths of the prior's schedule: higher changes more.")
    L: int = parameter(360, 0, WHOLE - 1, advanced=True, advice="Down to where the restorer's low frequencies are held; below it the prior is alone.")
    steps: int = parameter(250, 2, WHOLE, advanced=True, advice="Steps of the whole schedule; K thousandths of them are taken.")
    scaled: bool = parameter(
        True, advanced=True, advice="Brings N, K and L, which are meant for 512 pixels, to the size of the prior. Off takes them as they are."
    )
    anchored: bool = parameter(
        False, advanced=True, advice="Gives the finished target exactly the restorer's coarse brightness and colour. Off is as published."
    )
    batch: int = parameter(1, 1, 64, advanced=True, advice="Faces at once; more is faster on a large GPU.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.L >= self.K:
            raise ValueError(f"low frequencies are held from K down to L, so L must be below K, got K {self.K} and L {self.L}; lower L or raise K")
        if _entry(self.K, self.steps) <= _entry(self.L, self.steps):
            raise ValueError(f"K {self.K} and L {self.L} are one and the same of {self.steps} steps; raise steps or lower L")


PRESETS = {
    "embedded": PseudoTargetOptions(K=400, L=240, steps=50, anchored=True),
    "codeformer": PseudoTargetOptions(),
    "codeformer-x8": PseudoTargetOptions(N=16),
    "swinir": PseudoTargetOptions(N=16),
}
"""By restorer. Published: CodeFormer (fidelity 0.5) for footage downsampled four and eight times, and SwinIR. Ours: the embedded weights, whose small
prior works better from less noise; the range that was tried is in benchmarks/README.md."""


@dataclass(frozen=True)
class Trajectory:
    """Algorithm 1's numbers for one prior.

    Attributes:
        N: factor of the low-pass filter.
        K, L: entries of `schedule`; K steps are taken.
        schedule: the respaced schedule.
        entries: for each entry, its index in the prior's own schedule.
        side: S, the side of the faces, in pixels.
        anchored: see PseudoTargetOptions.
    """

    N: int
    K: int
    L: int
    schedule: Schedule
    entries: tuple[int, ...]
    side: int
    anchored: bool = False


def trajectory(options: PseudoTargetOptions, prior: Prior, side: int) -> Trajectory:
    """The numbers of Algorithm 1 for faces of `side` pixels under a prior.

    Raises:
        ValueError: if the prior's schedule has too few steps, or N does not divide the side.
    """
    count = min(options.steps, len(prior.schedule))
    schedule = prior.schedule.respaced(count)
    index = {step: i for i, step in enumerate(prior.schedule.timesteps)}
    N, K, L = options.N, _entry(options.K, count), _entry(options.L, count)
    if options.scaled and side != CROP:
        share = side / CROP
        N = max(2, round(N * share)) if N > 1 else 1
        K, L = (_entry_of_noise(schedule, schedule.sigma(entry) * share) if entry else 0 for entry in (K, L))
    if side % N:
        how = f"choose an N that divides {side}" if N == options.N else f"N {options.N}, scaled to it, is {N}: choose a power of 2"
        raise ValueError(f"the low-pass filter cannot shrink faces of {side} pixels {N} times; {how}")
    if K <= L:
        raise ValueError(f"K {options.K} and L {options.L} are one and the same of this prior's {count} steps; raise steps or lower L")
    return Trajectory(N, K, L, schedule, tuple(index[step] for step in schedule.timesteps), side, options.anchored)


@dataclass(frozen=True)
class TargetStep:
    """The result of one step of Algorithm 1; tensors are (n, 3, S, S), with clean faces in [-1, 1].

    Attributes:
        entry: the entry of the schedule; 0 is the last step.
        x0: the prior's clamped estimate of the clean face.
        sample: x_{t-1}, a sample of p(x_{t-1} | x_t), before the constraint.
        guide: y_{t-1}, or None where there is no constraint.
        x_prev: the input of the next step; after the last step, the pseudo-target.
    """

    entry: int
    x0: Tensor
    sample: Tensor
    guide: Tensor | None
    x_prev: Tensor


def target_steps(y0: Tensor, prior: Prior, numbers: Trajectory, draw: Draw) -> Iterator[TargetStep]:
    """Algorithm 1, step by step, from y_0 (n, 3, S, S) in [-1, 1]."""
    schedule = numbers.schedule
    phi = LowPass(numbers.N)
    x = add_noise(y0, draw(), schedule.alpha_bar(numbers.K))
    for i in range(numbers.K - 1, -1, -1):
        reverse = transition(prior, x, numbers.entries[i], schedule, i)
        sample = reverse.mean if i == 0 else reverse.mean + reverse.deviation * draw()
        guide, x = None, sample
        if i >= numbers.L and i > 0:
            guide = add_noise(y0, draw(), schedule.alpha_bar(i - 1))
            x = sample + phi(guide - sample)
        yield TargetStep(i, reverse.x0, sample, guide, x)


def pseudo_target(y0: Tensor, prior: Prior, numbers: Trajectory, draw: Draw, on_step: Callable[[TargetStep], None] = lambda step: None) -> Tensor:
    """The pseudo-targets of restored faces: (n, 3, S, S) in [0, 1], both.

    Args:
        y0: the restorer's output.
        draw: the noise, in the order that Draw says.
        on_step: called after each of K steps; may raise to stop.

    Raises:
        ValueError: if the side of y0 is not `numbers.side`.
    """
    if tuple(y0.shape[1:]) != (3, numbers.side, numbers.side):
        raise ValueError(f"the prior takes RGB faces (n, 3, {numbers.side}, {numbers.side}), got {tuple(y0.shape)}; resize them first")
    guide = y0.clamp(0, 1) * 2 - 1
    x = guide
    for step in target_steps(guide, prior, numbers, draw):
        on_step(step)
        x = step.x_prev
    if numbers.anchored:
        phi = LowPass(numbers.N)
        for _ in range(ANCHORING_PASSES):
            x = x + phi(guide - x)
    return ((x + 1) / 2).clamp(0, 1)


@dataclass(frozen=True)
class LowPass:
    """phi_N: antialiased cubic (a = -1/2) decimation by N, then cubic interpolation back, ends mirrored. Linear, but no projection.

    Takes (..., H, W) with H and W multiples of N, and gives the same. It is that of ILVR (Choi et al. 2021).
    """

    N: int

    def __call__(self, x: Tensor) -> Tensor:
        if self.N == 1:
            return x
        rows, cols = (_low_pass_on(x.shape[axis], self.N, x.dtype, x.device) for axis in (-2, -1))
        return rows @ x @ cols.mT


@cached(32)
def low_pass_matrix(length: int, N: int) -> Tensor:
    """(length, length) float64: what phi_N does along one axis. Rows sum to 1. Raises ValueError if N does not divide `length`."""
    if length % N:
        raise ValueError(f"the low-pass filter phi_{N} takes sides that are multiples of {N}, got {length}; resize the faces")
    few = length // N
    centre = (torch.arange(length, dtype=torch.float64) + 0.5) / N - 0.5
    return cubic_matrix(centre, few) @ bicubic_matrix(length, N)


@cached(32)
def _low_pass_on(length: int, N: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return low_pass_matrix(length, N).to(device, dtype)


def _entry_of_noise(schedule: Schedule, sigma: float) -> int:
    """The entry, not the cleanest, whose noise is nearest to `sigma` in ratio."""
    return min(range(1, len(schedule)), key=lambda t: abs(math.log(schedule.sigma(t) / sigma)))
