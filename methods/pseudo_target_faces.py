"""Degraded faces in, pairs for fine-tuning out: a restorer's output and, by a diffusion prior, the pseudo-target made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..diffusion.prior import Prior
from ..faces.types import CROP
from ..metrics.content import content_gain
from ..physics.numerics import cached
from .network import resized
from .pseudo_target import LowPass, PseudoTargetOptions, TargetStep, Walk, pseudo_target, walk
from .pseudo_target_prior import learns_variance, own_size
from .restorer import Heartbeat, Restorer, no_heartbeat, restore_frames
from .seeds import seeded_noise

Key = tuple[int, ...]
"""What a face's noise is drawn for besides the seed: the person and the frame."""


@dataclass(frozen=True)
class Targets:
    """Pairs of one batch.

    Attributes:
        initial: y_0 = R(y), (n, 3, 512, 512) in [0, 1].
        targets: the pseudo-targets, likewise.
        sharper: of each face, by what share the target's content exceeds that of y_0, at the prior's side: Zhu and Milanfar's metric Q, which sharp
            edges raise and noise lowers (metrics/content.py).
        drift: of each face, the mean absolute difference of phi_N(target) and phi_N(y_0), as a share of the range from black to white.
    """

    initial: Tensor
    targets: Tensor
    sharper: tuple[float, ...]
    drift: tuple[float, ...]


class TargetMaker:
    """Makes pseudo-targets of faces: every face for itself, so that its result depends on the face, its key and the seed alone.

    The prior works at the side it was trained for, S (512 for one that takes any), on y_0 averaged down to S. What it changed there is put
    back into y_0: target = y_0 + C (x - A y_0), with the averaging A and an enlargement C for which A C = 1, so that averaging the target
    gives the prior's own picture x.

    Args:
        restorer: any; the published targets are of CodeFormer with its default fidelity of 0.5, and of SwinIR.
        prior: any pixel-space prior. A pyramid runs as its coarse level.
        options: Algorithm 1's parameters.
        device: where the state of the sampling lives.

    Raises:
        ValueError: if the options do not fit the prior.
    """

    def __init__(self, restorer: Restorer, prior: Prior, options: PseudoTargetOptions | None = None, *, device: torch.device | str = "cpu") -> None:
        self.restorer = restorer
        self.prior = own_size(prior)
        self.options = options or PseudoTargetOptions()
        self.device = torch.device(device)
        self.walk: Walk = walk(self.options, self.prior, self.prior.native_size or CROP)

    @property
    def steps(self) -> int:
        """Diffusion steps that a face takes."""
        return self.walk.steps

    def describe(self) -> str:
        """One sentence: the restorer and what Algorithm 1 runs with."""
        numbers = self.walk
        variance = "its learnt variance" if learns_variance(self.prior) else "DDPM's posterior variance, as this prior has learnt none"
        stamp = numbers.schedule.timesteps
        return (
            f"{self.restorer.name}, then {numbers.steps} diffusion steps at {numbers.side} x {numbers.side} from step {stamp[numbers.K]}, "
            f"low frequencies (phi_{numbers.N}) held down to step {stamp[numbers.L]}, with {variance}."
        )

    @torch.inference_mode()
    def initial(self, crops: Tensor, keys: Sequence[Key], *, seed: int = 0, heartbeat: Heartbeat = no_heartbeat) -> Tensor:
        """y_0 = R(y): each face restored as a clip of one frame, (n, 3, H, W) in [0, 1] to (n, 3, 512, 512)."""
        done = []
        for crop, key in zip(crops, keys, strict=True):
            done.append(restore_frames(self.restorer, crop[None], seed=seed + key[-1], heartbeat=heartbeat))
        return torch.cat(done).clamp(0, 1)

    @torch.inference_mode()
    def make(
        self,
        crops: Tensor,
        keys: Sequence[Key],
        *,
        seed: int = 0,
        heartbeat: Heartbeat = no_heartbeat,
        on_step: Callable[[int, Tensor], None] = lambda faces, preview: None,
    ) -> Targets:
        """The pairs of one batch of crops (n, 3, H, W) in [0, 1].

        Args:
            keys: of each face.
            on_step: told after each of `steps` steps how many faces took it, with the last one's clean estimate (3, S, S) in [0, 1].
        """
        y0 = self.initial(crops, keys, seed=seed, heartbeat=heartbeat)
        side = self.walk.side
        small = at_side(y0, side).to(self.device)
        count = -1

        def draw() -> Tensor:
            nonlocal count
            count += 1
            return torch.stack([seeded_noise((3, side, side), seed, *key, count) for key in keys]).to(small)

        def after(step: TargetStep) -> None:
            heartbeat()
            on_step(len(crops), (step.x0[-1] + 1) / 2)

        x = pseudo_target(small, self.prior, self.walk, draw, after)
        phi = LowPass(self.walk.N)
        drift = (phi(x) - phi(small)).abs().mean((1, 2, 3))
        sharper = content_gain(x.cpu(), small.cpu())
        return Targets(y0, put_back(y0, x.cpu()), tuple(sharper.tolist()), tuple(drift.tolist()))


def at_side(images: Tensor, side: int) -> Tensor:
    """Images (n, 3, H, W) at side x side: A, averaged over areas, or cubic when that is larger."""
    return resized(images, side, "bicubic").clamp(0, 1)


def put_back(y0: Tensor, x: Tensor) -> Tensor:
    """y_0 (n, 3, 512, 512) with its content up to side S replaced by x (n, 3, S, S), in [0, 1]; its average at S is x, but for clamping."""
    side, whole = x.shape[-1], y0.shape[-1]
    if side >= whole:
        return resized(x, whole, "bilinear").clamp(0, 1)
    enlarge = consistent_enlargement(side, whole).to(x)
    return (y0 + enlarge @ (x - at_side(y0, side)) @ enlarge.mT).clamp(0, 1)


@cached(8)
def consistent_enlargement(side: int, whole: int) -> Tensor:
    """C (whole, side) float64 with A C = 1 for A, the averaging of `whole` to `side`: B (A B)^-1 of cubic interpolation B."""
    across = torch.eye(side, dtype=torch.float64)[None, None]
    B = F.interpolate(across, (whole, side), mode="bicubic", align_corners=False)[0, 0]
    A = F.interpolate(torch.eye(whole, dtype=torch.float64)[None, None], (side, whole), mode="area")[0, 0]
    return B @ torch.linalg.inv(A @ B)
