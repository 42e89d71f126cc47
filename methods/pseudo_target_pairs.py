"""The walk over chosen faces: those that are not yet in the folder go through the maker, batch by batch; all come out in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..faces.types import FaceClip
from .frame_choice import Choice, ChoiceOptions, choose_frames, chosen_of, quality, thumbnails
from .pseudo_target_faces import TargetMaker
from .pseudo_target_folder import PairFolder, PairLine, describe_parts, digest_of
from .restorer import Heartbeat, no_heartbeat

SQUARE = "crops of aligned faces are square; cut them out with Face Align first"


@dataclass(frozen=True)
class ChosenFace:
    """A degraded crop and where it comes from.

    Attributes:
        crop: (3, H, W) in [0, 1].
        source: what the manifest calls its clip or person.
        person, frame: what its noise is drawn for besides the seed.
    """

    crop: Tensor
    source: str
    person: int
    frame: int


@dataclass(frozen=True)
class Pairs:
    """What was made, or found made, in the order of the chosen faces.

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
    """The chosen ones of aligned frames (N, 3, S, S) of one person.

    Raises:
        ValueError: if they are not square.
    """
    check_square(frames)
    choice = choose_frames(thumbnails(frames), quality(frames), options)
    return [ChosenFace(frames[i], "frames", 0, i) for i in choice.chosen], choice


def check_square(pictures: Tensor) -> None:
    """Raises ValueError unless pictures (..., H, W) are as high as they are wide: others would be squashed into pairs that show no face."""
    height, width = pictures.shape[-2:]
    if height != width:
        raise ValueError(f"got pictures of {width} x {height} pixels, but {SQUARE}")


def parameters_of(maker: TargetMaker, seed: int) -> dict[str, Any]:
    """All that decides what a pair looks like, for PairFolder; how many faces go at once does not."""
    parts = describe_parts(restorer=maker.restorer, prior=maker.prior, options=maker.options)
    del parts["options"]["batch"]
    return {**parts.pop("options"), **parts, "seed": seed}


def make_pairs(
    faces: Sequence[ChosenFace],
    maker: TargetMaker,
    *,
    seed: int = 0,
    folder: PairFolder | None = None,
    heartbeat: Heartbeat = no_heartbeat,
    on_step: Callable[[int, Tensor], None] = lambda faces, preview: None,
) -> Pairs:
    """Input, initial restoration and pseudo-target of every face.

    With a folder, each batch is written as soon as it is made, what is there is not made again, and the result is what the folder holds: eight
    bits a value. So a run that was stopped and one that was not give the same.

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
        heartbeat()
        crops = torch.stack([faces[i].crop for i in batch]).float().clamp(0, 1)
        keys = [(faces[i].person, faces[i].frame) for i in batch]
        made = maker.make(crops, keys, seed=seed, heartbeat=heartbeat, on_step=on_step)
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
    """A few sentences for people."""
    count = len(pairs.sharper)
    text = f"{count} of {candidates} faces chosen"
    left = [f"{n} {what}" for n, what in ((choice.duplicates, "near-duplicates"), (choice.poor, "of poor quality")) if n]
    text += f" ({', '.join(left)} left out)." if left else "."
    text += f" {maker.describe()}"
    if count:
        better = sum(value > 0 for value in pairs.sharper)
        text += (
            f" {better} of {count} targets are sharper than the restorer's output (metric Q {sum(pairs.sharper) / count:+.1%} on average); "
            f"low frequencies moved by {100 * sum(pairs.drift) / count:.2f} % of the range, at most {100 * max(pairs.drift):.2f} %."
        )
    return text + (f" {pairs.found} were in the folder already." if pairs.found else "")


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
