"""Shared by the restoring nodes: inputs, outputs, `ui`, and running the restorer on each person."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .. import host
from ..faces import CROP, FaceClip, FaceTrack, align, aligned_track
from ..headless.io import io
from ..host.images import fitted_mask, from_image, from_mask
from ..methods.base import Restorer, restore_frames
from .faces import restored_text
from .page.before_after import evenly_spaced, slider
from .sockets import Faces, verdict, wired


def face_inputs() -> list:
    return [
        Faces.Input("faces", optional=True, tooltip="From Face Align: each person is restored on their own."),
        io.Image.Input("frames", optional=True, tooltip="Aligned frames of one person, instead of faces; 512 x 512 is best."),
    ]


def face_outputs() -> list:
    return [
        Faces.Output("faces", tooltip="Restored faces, for Paste Back."),
        io.Image.Output("frames", tooltip="The restored crops, person after person, 512 x 512."),
    ]


def result_ui(node: Any, restored: list[FaceClip], faces: list[FaceClip] | None, frames: Tensor | None, *more: str | None) -> dict[str, Any]:
    """A restoring node's `ui`: its text, and crops before and after."""
    text = "\n".join([restored_text(restored), *filter(None, more)])
    before = torch.cat([clip.crops for clip in faces]) if faces else torch.empty(0, 3, CROP, CROP) if frames is None else from_image(frames)
    picks = evenly_spaced(len(before))
    return {"text": (text,), **slider(node, before[picks], torch.cat([clip.crops for clip in restored])[picks] if picks else before)}


PersonInput = tuple[FaceTrack | None, Tensor, Tensor | None, Tensor | None]
"""(track or None, crops (n, 3, H, W), masks (n, 1, H, W) or None, surroundings of the face or None)."""


def restore_people(
    restorer: Restorer, faces: list[FaceClip] | None, frames: Tensor | None, *, mask: Tensor | None = None, seed: int = 0, maps: bool = False
) -> tuple[list[FaceClip], dict[str, Tensor]]:
    """Restored clips of everyone in `faces` or `frames`; with `maps` also the restorer's maps by name, person after person.

    Raises:
        ValueError: unless exactly one of the two is wired and the mask fits.
    """
    people = people_of(restorer.name, faces, frames, mask)
    done, said = [], dict[str, list[Tensor]]()

    def gather(piece: dict[str, Tensor]) -> None:
        for name, found in piece.items():
            said.setdefault(name, []).append(found)

    with host.progress(restorer.units * sum(len(crops) for _, crops, *_ in people), "restore") as tick:
        stepwise = "steps" in restorer.supports
        reporting = restorer.reporting(lambda step: tick(step.frames, step.preview)) if stepwise else restorer
        for track, crops, holes, around in people:
            notes = [""]
            restored = restore_frames(
                reporting,
                crops,
                track,
                masks=holes,
                around=around,
                seed=seed,
                check_interrupt=host.check_interrupt,
                on_frame=(lambda count: None) if stepwise else tick,
                on_maps=gather if maps else None,
                on_note=notes.append,
            )
            drawn = replace(track or aligned_track(len(restored)), repainted=restorer.repaints(track))
            done.append(FaceClip(drawn, restored, notes[-1]))
    return done, {name: torch.cat(parts) for name, parts in said.items()}


def people_of(name: str, faces: list[FaceClip] | None, frames: Tensor | None, mask: Tensor | None = None) -> list[PersonInput]:
    """The restorer's input for each person; masks of whole frames are cropped along the tracks.

    Raises:
        ValueError: unless exactly one of faces and frames is wired and the mask fits.
    """
    check_one_is_wired(name, faces, frames)
    holes = None if mask is None else from_mask(mask)
    if faces is not None:
        return [(clip.track, clip.crops, None if holes is None else cropped_masks(holes, clip.track), clip.around) for clip in faces]
    assert frames is not None
    crops = from_image(frames)
    return [(None, crops, None if holes is None else masks_per_frame(holes, len(crops), (crops.shape[-2], crops.shape[-1])), None)]


def cropped_masks(holes: Tensor, track: FaceTrack) -> Tensor:
    """Crops (n, 1, 512, 512) of frame masks (T, 1, H, W), T = 1 for all frames; partly missing pixels count as missing.

    Raises:
        ValueError: if the masks end before the track.
    """
    holes = fitted_mask(holes, track.frame_size)
    if len(holes) == 1:
        here = holes.expand(len(track), -1, -1, -1)
    elif len(holes) >= track.stop:
        here = holes[track.start : track.stop]
    else:
        raise ValueError(f"{len(holes)} masks came, person {track.person} is seen up to frame {track.stop - 1}; give one per frame, or one for all")
    return (align(here, track, track.start) > 0.05).float()


def masks_per_frame(holes: Tensor, count: int, size: tuple[int, int]) -> Tensor:
    """One mask per aligned frame, (count, 1, H, W). Raises ValueError unless there are 1 or `count` masks."""
    if len(holes) not in (1, count):
        raise ValueError(f"{len(holes)} masks came for {count} frames; give one for all, or one per frame")
    return fitted_mask(holes, size).expand(count, -1, -1, -1)


def check_wiring(node: Any, faces: object, frames: object) -> bool | str:
    """For `validate_inputs`, as upstream nodes may run for minutes: True if exactly one of the two is wired, else an error message."""
    return verdict(check_one_is_wired, node.define_schema().display_name, *wired(faces, frames))


def check_one_is_wired(name: str, faces: object, frames: object) -> None:
    """Raises ValueError unless exactly one of faces and frames is wired."""
    if (faces is None) == (frames is None):
        got = "neither" if faces is None else "both"
        raise ValueError(f"{name} restores faces or frames, and got {got}; wire Face Align's faces, or aligned frames of one person")


def require(restorer: Restorer, fits: bool, why: str, remedy: str) -> None:
    """Raises ValueError unless the restorer fits."""
    if not fits:
        raise ValueError(f"{why}, and the wired restorer is {restorer.name}; {remedy}")
