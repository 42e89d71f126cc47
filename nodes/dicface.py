"""DicFace: restoration, colours and filled holes over five frames, and where the network invents."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import host
from ..faces import FaceClip, align, aligned_track
from ..faces.types import FaceTrack
from ..headless.io import io
from ..host.images import fitted_mask, from_image, from_mask, to_mask
from ..methods.dicface import DicFaceRestorer
from .choices import check_choice
from .faces import crops_image, restored_text
from .flair import check_one_is_wired
from .restorers import dirichlet_knob, expect, face_inputs, face_outputs, fidelity_knob, luminance_knob
from .sockets import CATEGORY, RestorerSocket, seed_input

CHUNK = 4


class DicFaceRestore(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRDicFaceRestore",
            display_name="DicFace Restore",
            category=f"{CATEGORY}/restore",
            description="Restores, colourises or fills in aligned faces with DicFace, looking at five frames at a time, and shows where it invented.",
            search_aliases=["dicface", "dirichlet", "colorize", "inpaint face", "video face restoration"],
            inputs=[
                RestorerSocket.Input("restorer", tooltip="A DicFace checkpoint from Load Face Restorer, the one for the mode."),
                io.DynamicCombo.Input(
                    "mode",
                    options=[
                        io.DynamicCombo.Option("restore", []),
                        io.DynamicCombo.Option("colourise", [luminance_knob()]),
                        io.DynamicCombo.Option("inpaint", []),
                    ],
                    tooltip="restore (bfr_100k), colourise (color_100k) or inpaint (inpainting_100k).",
                ),
                fidelity_knob(1.0),
                dirichlet_knob(),
                seed_input(),
                *face_inputs(),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="inpaint: where pixels are missing, of the whole frames with faces, of the crops with frames, at any size; one for all "
                    "or one per frame. Without it, pure white counts as missing. Other modes leave it aside.",
                ),
            ],
            outputs=[
                *face_outputs(),
                io.Mask.Output("uncertainty", tooltip="Where the network invents: 0 sure, 1 anything goes; person after person, 512 x 512."),
            ],
        )

    @classmethod
    def validate_inputs(cls, restorer=None, mode=None):
        return check_choice(cls, "mode", mode)

    @classmethod
    def execute(cls, restorer, mode, fidelity=None, dirichlet=None, seed=0, faces=None, frames=None, mask=None):
        expect(restorer, DicFaceRestorer, "DicFace Restore needs a DicFace checkpoint", "choose one in Load Face Restorer, or use Restore Faces")
        given = {"fidelity": fidelity, "dirichlet": dirichlet, **mode}
        given["keep_luminance"] = bool(given.get("keep_luminance"))
        restorer = restorer.configured(**{name: value for name, value in given.items() if value is not None})
        done, unsure = [], []
        said = [of_the_mask(mode["mode"], mask)] if mask is not None else []
        people = shown(faces, frames, mask if mode["mode"] == "inpaint" else None)
        with host.progress(sum([len(crops) for _, crops, _ in people]), "restore") as tick:
            for track, crops, holes in people:
                restored, maps = restore_person(restorer, track, crops, holes, seed=seed, tick=tick)
                done.append(FaceClip(track or aligned_track(len(restored)), restored))
                unsure.append(maps)
        text = "\n".join([restored_text(done), *filter(None, said)])
        return io.NodeOutput(done, crops_image(done), to_mask(torch.cat(unsure)) if unsure else host.nothing(), ui={"text": (text,)})


def of_the_mask(mode: str, mask: Tensor) -> str | None:
    """What should be said of a wired mask; Load Image gives one of 64 x 64 zeros for every picture without alpha."""
    if mode != "inpaint":
        return f"The mask is left aside: {mode} fills nothing, inpaint does." if mask.any() else None
    return None if mask.any() else "The mask is empty, so nothing is filled."


Person = tuple[FaceTrack | None, Tensor, Tensor | None]
"""A track or None, crops (n, 3, H, W), and masks (n, 1, H, W) or None."""


def shown(faces: list[FaceClip] | None, frames: Tensor | None, mask: Tensor | None) -> list[Person]:
    """What a node's sockets show of each person; masks of whole frames are cut out along the tracks.

    Raises:
        ValueError: unless exactly one of faces and frames is wired, or if the mask does not fit.
    """
    check_one_is_wired("DicFace", faces, frames)
    holes = None if mask is None else from_mask(mask)
    if faces is not None:
        return [(clip.track, clip.crops, None if holes is None else followed(holes, clip.track)) for clip in faces]
    assert frames is not None
    crops = from_image(frames)
    return [(None, crops, None if holes is None else one_each(holes, len(crops), (crops.shape[-2], crops.shape[-1])))]


def followed(holes: Tensor, track: FaceTrack) -> Tensor:
    """The crops (n, 1, 512, 512) of masks of whole frames (T, 1, H, W), or of one for all; a pixel missing in part counts as missing.

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


def one_each(holes: Tensor, count: int, size: tuple[int, int]) -> Tensor:
    """One mask per aligned frame, (count, 1, H, W).

    Raises:
        ValueError: if neither one mask nor as many as frames came.
    """
    if len(holes) not in (1, count):
        raise ValueError(f"{len(holes)} masks came for {count} frames; give one for all, or one per frame")
    return fitted_mask(holes, size).expand(count, -1, -1, -1)


def restore_person(
    restorer: DicFaceRestorer, track: FaceTrack | None, crops: Tensor, holes: Tensor | None, *, seed: int, tick: host.Tick
) -> tuple[Tensor, Tensor]:
    """Restored crops (n, 3, 512, 512) and where they are invented (n, 1, 512, 512)."""
    session = restorer.open(track, seed=seed, heartbeat=host.heartbeat)
    session.doubts = True
    ready = []
    for start in range(0, len(crops), CHUNK):
        part = slice(start, start + CHUNK)
        ready.append(session.push(crops[part], None if holes is None else holes[part]))
        tick(len(ready[-1]))
    ready.append(session.close())
    tick(len(ready[-1]))
    return torch.cat(ready), session.uncertainty()
