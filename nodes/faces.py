"""Face Align and Paste Back: detection, tracking, alignment and compositing; and inputs shared with other nodes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import host
from ..assembly import chosen_detector, chosen_paster, fingerprints
from ..faces import (
    LIKE,
    ExternalDetections,
    FaceClip,
    FaceTrack,
    Identity,
    Thumbnails,
    align,
    check_selection,
    clock,
    contact_sheet,
    crop_clip,
    faces_from_boxes,
    faces_from_landmarks,
    find_tracks,
    identity_in,
    photo_path,
    report,
    select_tracks,
    with_context,
)
from ..faces.compositing.enlarge import MAX_SCALE
from ..faces.compositing.grain import GRAIN
from ..faces.compositing.paste import OCCLUSION
from ..faces.compositing.strength import Gates
from ..faces.detection.anisotropic_pixels import plausible
from ..headless.io import io, newer, ui
from ..host.images import from_image, to_image, to_mask
from ..models.upscaling import Upscaler
from ..pipeline import CHUNK
from ..plurals import counted
from ..video import ShotCutDetector
from .page.before_after import evenly_spaced, slider
from .page.people import page_files, people
from .sockets import CATEGORY, Faces, Times, check_text


def detector_input() -> Any:
    return io.Combo.Input(
        "detector",
        options=["auto", "blazeface", "retinaface", "mtcnn"],
        default="auto",
        tooltip="auto takes RetinaFace if detection_Resnet50_Final.pth is in a model folder, else BlazeFace, which comes with this pack and also "
        "finds faces that lie or stand on their heads; mtcnn needs the package facenet-pytorch.",
    )


def selection_inputs() -> list:
    return [
        io.String.Input(
            "faces",
            default="all",
            tooltip='Whom to restore: "all", "largest", ids of people such as "0,2" (shown here after a run; click to choose), or "like:photo.jpg", '
            "the person on a picture in the input folder.",
        ),
        io.Int.Input("min_size", default=0, min=0, max=4096, tooltip="Faces smaller than this many frame pixels are left alone."),
    ]


def check_faces(which: Any) -> bool | str:
    """Validates the selection of people; whether their ids occur in the clip is known later."""
    return check_text(check_selection, resolve_faces, faces=which)


def like_input() -> Any:
    return io.Image.Input("like", optional=True, tooltip="A picture of the person to restore, instead of ids; its largest face counts.")


def identity_of(like: Any) -> Identity | None:
    """The identity of the person in a wired picture, or None."""
    return None if like is None or host.is_nothing(like) else identity_in(from_image(like)[0])


def resolve_faces(faces: str) -> str:
    """`faces` with the picture of "like:photo.jpg" resolved in the host's folders. Raises ValueError or OSError if not found."""
    name = photo_path(faces)
    return faces if name is None else f"{LIKE}{host.resolve_input(name)}"


def picture_fingerprints(faces: str | None) -> list:
    """Changes with the picture of "like:photo.jpg"; `faces` is None if wired."""
    name = None if faces is None else photo_path(faces)
    return [] if name is None else [host.file_fingerprint(name)]


def pasting_inputs() -> list:
    return [
        io.Int.Input("feather", default=24, min=0, max=128, tooltip="Width of the soft border, in pixels of the 512 crop."),
        io.Float.Input("strength", default=1.0, min=0.0, max=1.0, step=0.05, tooltip="1 shows the restored face, 0 the original."),
        io.Boolean.Input("colour_match", default=False, tooltip="Gives the restored face the mean and contrast of the original's colours."),
        io.Boolean.Input("fade", default=True, tooltip="Weakens the effect gradually on tiny, blurred or filled-in faces, so that nothing pops."),
    ]


def grain_input() -> Any:
    """Last among a node's widgets: saved workflows store widget values by position."""
    return io.Combo.Input(
        "grain",
        options=list(GRAIN),
        default="auto",
        optional=True,
        advanced=True,
        tooltip="auto gives a face that lost it the film grain back that the frame around it keeps, if no codec has eaten it; off leaves it clean.",
    )


def scale_inputs() -> list:
    """Last, as `grain_input`; the socket is no widget."""
    return [
        io.Int.Input(
            "scale",
            default=1,
            min=1,
            max=MAX_SCALE,
            optional=True,
            advanced=True,
            tooltip="How many times the frames' size comes out: they are enlarged, and faces keep the detail of their 512 crops.",
        ),
        io.UpscaleModel.Input("upscale_model", optional=True, tooltip="Enlarges the frames, instead of Lanczos; scale is then 2 to 4."),
    ]


def gate_inputs() -> list:
    """As `grain_input`, last."""
    common: dict[str, Any] = dict(optional=True, advanced=True)
    return [
        io.String.Input(
            "gates",
            default="",
            tooltip=f'Between which two values a face fades: {Gates().to_text()}. Name those to change, such as "yaw=90-70"; "off" uses none.',
            **common,
        ),
        io.Combo.Input(
            "occlusion",
            options=list(OCCLUSION),
            default="auto",
            tooltip="on keeps what lies before a face (a hand, a microphone, hair) where the restored face differs from it in colour or structure; "
            "auto does for restorers that draw faces anew, and not for colours, filled holes or edits.",
            **common,
        ),
    ]


def upscaler_of(model: Any) -> Upscaler | None:
    """A paster's upscaler for an UPSCALE_MODEL."""
    if model is None:
        return None
    place = host.managed(getattr(model, "patcher", None) or model.model)
    return Upscaler.of(model, name="the wired upscale model", place=place, check_interrupt=host.check_interrupt)


def detector_fingerprints(detector: str | None) -> list:
    """Changes with the weights `chosen_detector` loads; the name is None if wired."""
    return [] if detector in ("blazeface", "mtcnn", "off") else fingerprints("retinaface")


class FaceAlign(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRFaceAlign",
            display_name="Face Align",
            category=f"{CATEGORY}/faces",
            description="Finds every face, follows each person through the clip, and cuts out steady 512 x 512 crops. Shot cuts end a track.",
            search_aliases=[
                "detect faces",
                "face detection",
                "retinaface",
                "mtcnn",
                "blazeface",
                "mediapipe",
                "crop faces",
                "face track",
                "extract faces",
            ],
            **newer(has_intermediate_output=True),
            inputs=[
                io.Image.Input("frames", tooltip="The frames of one clip, in order."),
                detector_input(),
                *selection_inputs(),
                io.Float.Input(
                    "smoothing",
                    default=2.0,
                    min=0.0,
                    max=20.0,
                    step=0.5,
                    tooltip="Steadiness of the crop: Gaussian sigma over time, in frames.",
                    advanced=True,
                ),
                io.Int.Input(
                    "max_gap",
                    default=10,
                    min=0,
                    max=300,
                    tooltip="A face that is lost for at most this many frames is filled in between.",
                    advanced=True,
                ),
                io.Float.Input(
                    "context",
                    default=1.0,
                    min=1.0,
                    max=3.0,
                    step=0.1,
                    optional=True,
                    advanced=True,
                    tooltip="How much the crops show around a face: 1, for face restorers, is 1.6 face heights (chin to forehead); for models of "
                    "other kinds, through Crops to Faces, 1.3 is two heights and 1.9 three. The face alone is pasted back.",
                ),
                io.Custom("FACE_LANDMARKS").Input(
                    "landmarks", optional=True, tooltip="Faces found by ComfyUI's own face landmarker, instead of the detector."
                ),
                io.Custom("BOUNDING_BOX").Input(
                    "boxes", optional=True, extra_dict={"forceInput": True}, tooltip="Face boxes from another node, instead of the detector."
                ),
                Times.Input(
                    "times",
                    optional=True,
                    tooltip="From Load Video Frames, for clips whose pixels are not square (PAL, anamorphic): cuts faces out as they are displayed.",
                ),
                like_input(),
            ],
            outputs=[
                Faces.Output("faces", tooltip="One clip of aligned crops per person."),
                io.Image.Output("crops", tooltip="All crops, person after person, 512 x 512."),
                io.Image.Output("contact_sheet", tooltip="One row per person: id, frames, when first seen, size, what is odd, samples."),
                io.String.Output("report", tooltip="How many people and frames, and why frames pass through."),
            ],
        )

    @classmethod
    def validate_inputs(cls, faces="all"):
        return check_faces(faces)

    @classmethod
    def fingerprint_inputs(cls, detector=None, faces=None, **others):
        return [*detector_fingerprints(detector), *picture_fingerprints(faces)]

    @classmethod
    def execute(
        cls,
        frames,
        detector="auto",
        faces="all",
        min_size=0,
        smoothing=2.0,
        max_gap=10,
        context=1.0,
        landmarks=None,
        boxes=None,
        times=None,
        like=None,
    ):
        faces, known = resolve_faces(faces), identity_of(like)
        pictures = from_image(frames)
        given = external_detections(landmarks, boxes, pictures)
        with host.progress(len(pictures), "find faces") as tick:
            tracks = find_tracks(
                ((start, pictures[start : start + CHUNK]) for start in range(0, len(pictures), CHUNK)),
                given or chosen_detector(detector),
                ShotCutDetector(),
                sigma=smoothing,
                max_gap=max_gap,
                aspect=1.0 if times is None or times.source is None else plausible(float(times.source.sample_aspect)),
                on_frame=tick,
            )
        chosen = select_tracks(tracks, faces, min_size, known)
        clips = [crop_clip(pictures, with_context(track, context)) for track in chosen]
        thumbnails = Thumbnails(tracks)
        thumbnails.push(0, pictures)
        sheet = to_image(contact_sheet(tracks, thumbnails, str if times is None or len(times) != len(pictures) else clock(times.starts))[None])
        found = report(tracks, chosen, len(pictures), min_size)
        text = found.to_text("found")
        shown = {
            "contact_sheet": page_files(ui.PreviewImage(sheet, cls=cls).as_dict()["images"]),  # too wide to show on the node, which has `people`
            **people(cls, chosen, thumbnails),
            "text": (text,),
            "report": (found.to_dict(),),
        }
        return io.NodeOutput(clips, crops_image(clips), sheet, text, ui=shown)


def crops_image(clips: list[FaceClip]) -> Any:
    """All crops, person after person, as one IMAGE; `host.nothing` if there are none, so that a preview does not fail."""
    return to_image(torch.cat([clip.crops for clip in clips])) if clips else host.nothing()


def restored_text(clips: list[FaceClip]) -> str:
    """A restoring node's result text."""
    if not clips:
        return "No face came in, so nothing was restored; the report of Face Align says why."
    count = sum(len(clip.crops) for clip in clips)
    what = f"{counted(len(clips), 'person', 'people')}, {counted(count, 'face')} restored"
    return "\n".join([what, *(f"person {clip.track.person}: {clip.note}" for clip in clips if clip.note)])


def external_detections(landmarks: Any, boxes: Any, frames: Tensor) -> ExternalDetections | None:
    """A detector that returns another node's detections, or None if none are wired."""
    if landmarks is not None:
        return ExternalDetections(faces_from_landmarks(landmarks, len(frames), (frames.shape[-2], frames.shape[-1])))
    if boxes is not None:
        return ExternalDetections(faces_from_boxes(boxes, len(frames)))
    return None


class PasteBack(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRPasteBack",
            display_name="Paste Back",
            category=f"{CATEGORY}/faces",
            description="Puts restored faces back into the frames they were cut from. Frames without a face pass through unchanged.",
            search_aliases=["paste faces", "composite faces", "unalign", "insert faces"],
            **newer(has_intermediate_output=True),
            inputs=[
                io.Image.Input("frames", tooltip="The frames that went into Face Align, in the same order."),
                Faces.Input("faces", tooltip="Restored faces, one clip per person."),
                *pasting_inputs(),
                grain_input(),
                *scale_inputs(),
                *gate_inputs(),
            ],
            outputs=[
                io.Image.Output("frames", tooltip="Same number as the input frames, and scale times their size."),
                io.Mask.Output("mask", tooltip="Where pixels changed, and how much: 0 to 1."),
            ],
        )

    @classmethod
    def validate_inputs(cls, gates=""):
        return check_text(Gates.parse, gates=gates)

    @classmethod
    def fingerprint_inputs(cls, **others):
        return fingerprints("parsenet")

    @classmethod
    def execute(cls, frames, faces, upscale_model=None, **pasting):
        pictures = from_image(frames)
        check_faces_fit(faces, pictures)
        paster = chosen_paster(upscaler=upscaler_of(upscale_model), **pasting)
        size = paster.size(pictures.shape[-2], pictures.shape[-1])
        pasted, masks = pictures.new_empty(len(pictures), 3, *size), pictures.new_empty(len(pictures), *size)
        at_once = min(CHUNK, paster.at_once(pictures.shape[-2], pictures.shape[-1]))
        with host.progress(len(pictures), "paste") as tick:
            for start in range(0, len(pictures), at_once):
                piece = pictures[start : start + at_once]
                stop = start + len(piece)
                pasted[start:stop], masks[start:stop] = paster.paste(piece, start, paste_items(faces, piece, start))
                tick(len(piece))
        places = torch.nonzero(masks.amax((-2, -1)) > 0)[:, 0]
        changed, picks = len(places), evenly_spaced(len(pictures), places)
        text = f"{counted(len(pictures), 'frame')}, {changed:,} with a restored face, {len(pictures) - changed:,} unchanged"
        shown = {"text": (text,), **slider(cls, pictures[picks], pasted[picks])}
        return io.NodeOutput(to_image(pasted), to_mask(masks), ui=shown)


def paste_items(faces: list[FaceClip], frames: Tensor, start: int) -> list[tuple[FaceTrack, Tensor, Tensor]]:
    """(track, restored crops, original crops) per person in these frames."""
    items = []
    for clip in faces:
        first, last = max(start, clip.track.start), min(start + len(frames), clip.track.stop)
        if first < last:
            restored = clip.crops[first - clip.track.start : last - clip.track.start]
            items.append((clip.track, restored, align(frames[first - start : last - start], clip.track, first)))
    return items


def check_faces_fit(faces: list[FaceClip], frames: Tensor) -> None:
    """Raises ValueError if a track lies outside these frames."""
    for clip in faces:
        if clip.track.stop > len(frames) or clip.track.frame_size != tuple(frames.shape[-2:]):
            height, width = clip.track.frame_size
            raise ValueError(
                f"Paste Back got {len(frames)} frames of {frames.shape[-1]} x {frames.shape[-2]}, but person {clip.track.person} was cut from frames "
                f"{clip.track.start} to {clip.track.stop - 1} of {width} x {height}; wire the same frames that went into Face Align"
            )
