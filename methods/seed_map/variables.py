"""The optimised variables, and the two-stage vector-Jacobian product that keeps memory independent of the number of frames.

Frames are rendered without a graph, and the loss gives its gradient with respect to them. Then, one frame at a time, the last layer is run again and
the gradient is propagated through it to that frame's residual and, summed over frames, to the shared features. The networks before those get one
gradient in all. The result is the exact gradient, not an approximation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ...diffusion.rng import seeded_noise
from ...models.device import CheckInterrupt, no_check
from .generator import VJP, SeedGenerator
from .low_rank import LowRank
from .options import RESIDUAL_INIT_FRAMEWISE, SeedMapOptions


class Unknowns(ABC):
    """The parameters of a clip of N frames."""

    @abstractmethod
    def render(self) -> Tensor:
        """The frames x' (N, 3, H, W) around [-1, 1], without a graph."""

    @abstractmethod
    def backward(self, grad: Tensor) -> bool:
        """Sets the gradients of all parameters from d loss / d x' (N, 3, H, W) for the frames of the last `render`.

        Returns:
            whether all are finite.
        """

    @abstractmethod
    def groups(self) -> list[dict]:
        """Parameters and learning rates, as torch.optim takes them."""

    def project(self) -> None:  # noqa: B027
        """Projects the parameters back onto the feasible set after a step."""

    @property
    def fullness(self) -> float:
        """The largest residual as a share of the radius, 0 to 1."""
        return 0.0


class SharedSeed(Unknowns):
    """Eq. 12: one seed z and N residuals r_n; x'_n = D1(D2(R(z)) + r_n), ||r_n|| <= C sqrt(dim r_n)."""

    def __init__(self, generator: SeedGenerator, frames: int, options: SeedMapOptions, seed: int, check_interrupt: CheckInterrupt = no_check) -> None:
        self.generator, self.options, self.check_interrupt = generator, options, check_interrupt
        self.z = seeded_noise(generator.seed_shape, seed).to(generator.device).requires_grad_()
        shape = generator.feature_shape
        scale = RESIDUAL_INIT_FRAMEWISE if options.residual_init is None else options.residual_init
        rank = generator.rank_for(options.rank)
        self.residuals = [LowRank.start(shape, rank, scale, generator.device, seed, 1, n) for n in range(frames)]
        self.radius = options.radius * (shape[0] * shape[1] * shape[2]) ** 0.5
        self._held: tuple[Tensor, VJP] | None = None

    def render(self) -> Tensor:
        h, vjp = self.generator.features(self.z)
        self._held = h, vjp
        with torch.no_grad():
            return torch.cat([self._frame(h, residual) for residual in self.residuals])

    def backward(self, grad: Tensor) -> bool:
        if self._held is None:
            raise RuntimeError("render() comes before backward()")
        h, vjp = self._held
        self._held = None
        total = torch.zeros_like(h)
        for residual, wanted in zip(self.residuals, grad.split(1), strict=True):
            feature = h.requires_grad_()
            parts = torch.autograd.grad(self._frame(feature, residual), (feature, residual.a, residual.b), wanted)
            total += parts[0]
            residual.a.grad, residual.b.grad = parts[1], parts[2]
        self.z.grad = vjp(total)
        return bool(self.z.grad.isfinite().all())

    def groups(self) -> list[dict]:
        factors = [factor for residual in self.residuals for factor in (residual.a, residual.b)]
        return [{"params": [self.z], "lr": self.options.seed_rate}, {"params": factors, "lr": self.options.residual_rate}]

    def project(self) -> None:
        for residual in self.residuals:
            residual.project(self.radius)

    @property
    def fullness(self) -> float:
        return max(residual.norm() for residual in self.residuals) / self.radius

    def _frame(self, h: Tensor, residual: LowRank) -> Tensor:
        self.check_interrupt()
        return self.generator.tail(h + residual.dense())


class SeedPerFrame(Unknowns):
    """Eq. 5: every frame has a seed of its own and no residual, x'_n = D(R(z_n)); the paper's "base", N times the work."""

    def __init__(self, generator: SeedGenerator, frames: int, options: SeedMapOptions, seed: int) -> None:
        self.generator, self.options = generator, options
        self.seeds = [seeded_noise(generator.seed_shape, seed, 2, n).to(generator.device).requires_grad_() for n in range(frames)]

    def render(self) -> Tensor:
        frames = []
        for n, z in enumerate(self.seeds):
            h, _ = self.generator.features(z, n)
            with torch.no_grad():
                frames.append(self.generator.tail(h))
        return torch.cat(frames)

    def backward(self, grad: Tensor) -> bool:
        finite = True
        for n, (z, wanted) in enumerate(zip(self.seeds, grad.split(1), strict=True)):
            h, vjp = self.generator.features(z, n)
            feature = h.requires_grad_()
            z.grad = vjp(torch.autograd.grad(self.generator.tail(feature), feature, wanted)[0])
            finite = finite and bool(z.grad.isfinite().all())
        return finite

    def groups(self) -> list[dict]:
        return [{"params": self.seeds, "lr": self.options.seed_rate}]


def unknowns(generator: SeedGenerator, frames: int, options: SeedMapOptions, seed: int, check_interrupt: CheckInterrupt = no_check) -> Unknowns:
    """The parametrisation that `options.noise_prior` asks for."""
    if options.noise_prior:
        return SharedSeed(generator, frames, options, seed, check_interrupt)
    return SeedPerFrame(generator, frames, options, seed)
