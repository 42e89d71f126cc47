"""From degraded faces to pairs for fine-tuning: the restorer's output, and the pseudo-target that a diffusion prior makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...diffusion.rng import seeded_noise
from ...faces.types import CROP, FaceClip
from ...metrics.metric_q import content_gain
from ...models.device import CheckInterrupt, no_check
from ...physics.numerics import cached
from ...plurals import counted
from ...priors.base import Prior
from ..base import Restorer, check_square, resized, restore_frames
from .algorithm import LowPass, PseudoTargetOptions, TargetStep, Trajectory, pseudo_target, trajectory
from .dataset import PairFolder, PairLine, describe_parts, digest_of
from .frame_selection import Choice, ChoiceOptions, choose_frames, chosen_of, quality, thumbnails

Key = tuple[int, ...]
"""Key of a face's noise besides the seed: the person and the frame."""


@dataclass(frozen=True)
class Targets:
    """Pairs of one batch.

    Attributes:
        initial: y_0 = R(y), (n, 3, 512, 512) in [0, 1].
        targets: the pseudo-targets, likewise.
        sharper: of each face, by what share the target's content exceeds that of y_0, at the prior's side: Zhu and Milanfar's metric Q, which sharp
            edges raise and noise lowers (metrics/metric_q.py).
        drift: of each face, the mean absolute difference of phi_N(target) and phi_N(y_0), as a share of the range from black to white.
    """

    initial: Tensor
    targets: Tensor
    sharper: tuple[float, ...]
    drift: tuple[float, ...]


class TargetMaker:
    """Makes pseudo-targets of faces, each independently: a result depends on the face, its key and the seed alone.

    The prior works at the side S it was trained for (512 for one that takes any), on y_0 averaged down to S. Its change is projected back onto
    y_0: target = y_0 + C (x - A y_0), with A the averaging and C an enlargement for which A C = 1, so that A target = x.

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
        self.prior = prior.native()
        self.options = options or PseudoTargetOptions()
        self.device = torch.device(device)
        self.trajectory: Trajectory = trajectory(self.options, self.prior, self.prior.native_size or CROP)

    @property
    def steps(self) -> int:
        """Diffusion steps that a face takes."""
        return self.trajectory.K

    def describe(self) -> str:
        """One sentence: the restorer and what Algorithm 1 runs with."""
        numbers = self.trajectory
        variance = "its learnt variance" if self.prior.learns_variance else "DDPM's posterior variance, as this prior has learnt none"
        stamp = numbers.schedule.timesteps
        return (
            f"{self.restorer.name}, then {numbers.K} diffusion steps at {numbers.side} x {numbers.side} from step {stamp[numbers.K]}, "
            f"low frequencies (phi_{numbers.N}) held down to step {stamp[numbers.L]}, with {variance}."
        )

    @torch.inference_mode()
    def initial(self, crops: Tensor, keys: Sequence[Key], *, seed: int = 0, check_interrupt: CheckInterrupt = no_check) -> Tensor:
        """y_0 = R(y): each face restored as a clip of one frame, (n, 3, H, W) in [0, 1] to (n, 3, 512, 512)."""
        done = []
        for crop, key in zip(crops, keys, strict=True):
            done.append(restore_frames(self.restorer, crop[None], seed=seed + key[-1], check_interrupt=check_interrupt))
        return torch.cat(done).clamp(0, 1)

    @torch.inference_mode()
    def make(
        self,
        crops: Tensor,
        keys: Sequence[Key],
        *,
        seed: int = 0,
        check_interrupt: CheckInterrupt = no_check,
        on_step: Callable[[int, Tensor], None] = lambda faces, preview: None,
    ) -> Targets:
        """The pairs of one batch of crops (n, 3, H, W) in [0, 1].

        Args:
            keys: of each face.
            on_step: called after each of `steps` steps with the number of faces and the last one's clean estimate (3, S, S) in [0, 1].
        """
        y0 = self.initial(crops, keys, seed=seed, check_interrupt=check_interrupt)
        side = self.trajectory.side
        small = at_side(y0, side).to(self.device)
        count = -1

        def draw() -> Tensor:
            nonlocal count
            count += 1
            return torch.stack([seeded_noise((3, side, side), seed, *key, count) for key in keys]).to(small)

        def after(step: TargetStep) -> None:
            check_interrupt()
            on_step(len(crops), (step.x0[-1] + 1) / 2)

        x = pseudo_target(small, self.prior, self.trajectory, draw, after)
        phi = LowPass(self.trajectory.N)
        drift = (phi(x) - phi(small)).abs().mean((1, 2, 3))
        sharper = content_gain(x.cpu(), small.cpu())
        return Targets(y0, back_project(y0, x.cpu()), tuple(sharper.tolist()), tuple(drift.tolist()))


def at_side(images: Tensor, side: int) -> Tensor:
    """Images (n, 3, H, W) at side x side: A, averaged over areas, or cubic when that is larger."""
    return resized(images, side, "bicubic").clamp(0, 1)


def back_project(y0: Tensor, x: Tensor) -> Tensor:
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


@dataclass(frozen=True)
class ChosenFace:
    """A degraded crop and its source.

    Attributes:
        crop: (3, H, W) in [0, 1].
        source: name of its clip or person in the manifest.
        person, frame: the key of its noise besides the seed.
    """

    crop: Tensor
    source: str
    person: int
    frame: int


@dataclass(frozen=True)
class Pairs:
    """The pairs that were made or found in the folder, in the order of the chosen faces.

    Attributes:
        inputs: (n, 3, H, W) in [0, 1], the degraded crops.
        initial, targets: (n, 3, 512, 512) in [0, 1].
        sharper, drift: see Targets.
        found: how many were in the folder already.
    """

    inputs: Tensor
    initial: Tensor
    targets: Tensor
    sharper: tuple[float, ...]
    drift: tuple[float, ...]
    found: int


def faces_of(clips: Sequence[FaceClip], options: ChoiceOptions) -> tuple[list[ChosenFace], Choice]:
    """The chosen faces of people's clips."""
    chosen, choice = chosen_of(clips, options)
    faces = [
        ChosenFace(clip.crops[i], f"person {clip.track.person}", clip.track.person, clip.track.start + i)
        for clip, indices in zip(clips, chosen, strict=True)
        for i in indices
    ]
    return faces, choice


def faces_of_frames(frames: Tensor, options: ChoiceOptions) -> tuple[list[ChosenFace], Choice]:
    """The chosen ones of aligned frames (N, 3, S, S) of one person. Raises ValueError if they are not square."""
    check_square(frames)
    choice = choose_frames(thumbnails(frames), quality(frames), options)
    return [ChosenFace(frames[i], "frames", 0, i) for i in choice.chosen], choice


def parameters_of(maker: TargetMaker, seed: int) -> dict[str, Any]:
    """Everything that a pair depends on, for PairFolder; the batch size is not part of it."""
    parts = describe_parts(restorer=maker.restorer, prior=maker.prior, options=maker.options)
    del parts["options"]["batch"]
    return {**parts.pop("options"), **parts, "seed": seed}


def make_pairs(
    faces: Sequence[ChosenFace],
    maker: TargetMaker,
    *,
    seed: int = 0,
    folder: PairFolder | None = None,
    check_interrupt: CheckInterrupt = no_check,
    on_step: Callable[[int, Tensor], None] = lambda faces, preview: None,
) -> Pairs:
    """Input, initial restoration and pseudo-target of every face.

    With a folder, each batch is written as soon as it is made, existing pairs are not made again, and the result is read from the folder, with 8 bits
    per value. So an interrupted and resumed run gives the same result as an uninterrupted one.

    Args:
        on_step: as TargetMaker.make; called only for faces that are made.
    """
    lines: dict[int, PairLine] = {}
    if folder is not None:
        known = ((i, folder.find(face.source, face.frame, digest_of(face.crop))) for i, face in enumerate(faces))
        lines = {i: line for i, line in known if line is not None}
    found = len(lines)
    todo = [i for i in range(len(faces)) if i not in lines]
    fresh: dict[int, tuple[Tensor, Tensor, float, float]] = {}
    for batch in _batches(faces, todo, maker.options.batch):
        check_interrupt()
        crops = torch.stack([faces[i].crop for i in batch]).float().clamp(0, 1)
        keys = [(faces[i].person, faces[i].frame) for i in batch]
        made = maker.make(crops, keys, seed=seed, check_interrupt=check_interrupt, on_step=on_step)
        for k, i in enumerate(batch):
            if folder is None:
                fresh[i] = made.initial[k], made.targets[k], made.sharper[k], made.drift[k]
            else:
                face = faces[i]
                lines[i] = folder.add(
                    face.source, face.frame, seed, face.crop, made.initial[k], made.targets[k], sharper=made.sharper[k], drift=made.drift[k]
                )
    if folder is None:
        results = [(faces[i].crop, *fresh[i]) for i in range(len(faces))]
    else:
        results = [(*folder.read(lines[i]), lines[i].sharper, lines[i].drift) for i in range(len(faces))]
    inputs, initial, targets, sharper, drift = zip(*results, strict=True) if results else ((),) * 5
    return Pairs(_stacked(inputs), _stacked(initial), _stacked(targets), tuple(sharper), tuple(drift), found)


def summary(pairs: Pairs, choice: Choice, candidates: int, maker: TargetMaker) -> str:
    """A few sentences for the user."""
    count = len(pairs.sharper)
    text = f"{count} of {counted(candidates, 'face')} chosen"
    reasons = (counted(choice.duplicates, "near-duplicate"), f"{choice.poor} of poor quality")
    left = [why for n, why in zip((choice.duplicates, choice.poor), reasons, strict=True) if n]
    text += f" ({', '.join(left)} left out)." if left else "."
    text += f" {maker.describe()}"
    if count:
        better = sum(value > 0 for value in pairs.sharper)
        text += (
            f" {better} of {counted(count, 'target is', 'targets are')} sharper than the restorer's output "
            f"(metric Q {sum(pairs.sharper) / count:+.1%} on average); "
            f"low frequencies moved by {100 * sum(pairs.drift) / count:.2f} % of the range, at most {100 * max(pairs.drift):.2f} %."
        )
    return text + (f" {pairs.found} {'was' if pairs.found == 1 else 'were'} in the folder already." if pairs.found else "")


def _batches(faces: Sequence[ChosenFace], todo: Sequence[int], size: int) -> list[list[int]]:
    """Faces of one size that follow each other, at most so many at once."""
    batches: list[list[int]] = []
    for i in todo:
        if batches and len(batches[-1]) < size and faces[batches[-1][0]].crop.shape == faces[i].crop.shape:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def _stacked(pictures: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(pictures)) if pictures else torch.empty(0, 3, 512, 512)
