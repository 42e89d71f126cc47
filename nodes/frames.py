"""Restore Frames: detects, restores and pastes in one node, for pictures and short clips."""

from __future__ import annotations

from typing import Any

from .. import host
from ..assembly import AUTO, chosen_detector, chosen_paster, fingerprint, fingerprints, restorer_files
from ..faces import check_selection
from ..headless.io import io, newer
from ..host.images import from_image, to_image
from ..pipeline import restore_clip_in_frames
from ..video import FramesSink, FramesSource, FrameTimes
from .faces import (
    detector_fingerprints,
    detector_input,
    gate_inputs,
    grain_input,
    identity_of,
    like_input,
    pasting_inputs,
    picture_fingerprints,
    resolve_faces,
    scale_inputs,
    selection_inputs,
    upscaler_of,
)
from .page.before_after import Watched
from .restorers import UNSET, fidelity_input, load_restorer, restorer_file, takes_fidelity
from .sockets import CATEGORY, RestorerSocket, advanced, optional, seed_input


class RestoreFrames(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRRestoreFrames",
            display_name="Restore Frames",
            category=f"{CATEGORY}/restore",
            description="Finds, restores and pastes the faces of pictures or of a short clip in one node; frames without a face pass through.",
            search_aliases=[
                "restore face",
                "facerestore",
                "reactor restore face",
                "codeformer",
                "gfpgan",
                "face restore with model",
                "face enhance",
                "upscale faces",
                "face upscale",
                "fix faces",
                "sharpen faces",
                "blurry faces",
                "old photo",
            ],
            **newer(has_intermediate_output=True),
            inputs=[
                io.Image.Input("frames", tooltip="A picture, or the frames of one clip in order."),
                *optional(
                    io.Combo.Input(
                        "model",
                        options=[AUTO, *restorer_files()],
                        default=AUTO,
                        tooltip="The face restorer, as in Load Face Restorer. Ignored when a restorer is wired.",
                    ),
                    fidelity_input(
                        "CodeFormer and DicFace: 0 invents the cleanest face, 1 keeps what the input shows; others have none. -1 leaves "
                        "the restorer as it is."
                    ),
                    seed_input(),
                    detector_input(),
                    *advanced(selection_inputs(), "min_size"),
                    *advanced(pasting_inputs(), "feather", "colour_match", "fade"),
                    grain_input(),
                    *scale_inputs(),
                    *gate_inputs(),
                ),
                RestorerSocket.Input(
                    "restorer", optional=True, tooltip="From Load Face Restorer, FLAIR Restorer or any other, instead of the model."
                ),
                like_input(),
            ],
            outputs=[
                io.Image.Output("frames", tooltip="Same number as the input frames, and scale times their size."),
                io.String.Output("report", tooltip="How many people and frames, and why frames pass through."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, model=None, detector=None, faces=None, **others):
        return [fingerprint(restorer_file(model)), *detector_fingerprints(detector), *picture_fingerprints(faces), *fingerprints("parsenet")]

    @classmethod
    def execute(
        cls,
        frames,
        model=AUTO,
        fidelity=UNSET,
        seed=0,
        detector="auto",
        faces="all",
        min_size=0,
        upscale_model=None,
        restorer=None,
        like=None,
        **pasting,
    ):
        check_selection(faces)
        pictures = from_image(frames)
        if restorer is None:
            restorer, _ = load_restorer(model)
        if fidelity >= 0 and takes_fidelity(restorer):
            restorer = restorer.configured(fidelity=fidelity)
        paster = chosen_paster(upscaler=upscaler_of(upscale_model), **pasting)
        source = FramesSource(pictures, FrameTimes.constant(len(pictures), 25))
        sink: Any = FramesSink(len(pictures), paster.size(pictures.shape[-2], pictures.shape[-1]))
        with host.progress(2 * len(pictures), "restore") as tick:
            watched = Watched(len(pictures), tick)
            summary = restore_clip_in_frames(
                watched.source(source),
                watched.sink(sink),
                restorer,
                chosen_detector(detector),
                paster=paster,
                faces=resolve_faces(faces),
                like=identity_of(like),
                min_size=min_size,
                seed=seed,
                check_interrupt=host.check_interrupt,
                on_found=watched.on_found,
                on_people=watched.on_people,
                on_written=watched.on_written,
            )
        text = summary.to_text()
        return io.NodeOutput(to_image(sink.frames), text, ui={**watched.ui(cls), "text": (text,), "report": (summary.to_dict(),)})
