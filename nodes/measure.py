"""Measure Restoration: quality metrics as a table, JSON, plots and slices over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from .. import host
from ..assembly import chosen_detector, find_weights, fingerprint, fingerprints
from ..headless.io import io, ui
from ..host.images import from_image, to_image
from ..metrics.lpips import BACKBONES, backbone_file, lpips_or_none
from ..metrics.no_reference import SCALES, load_judge, missing, weights_file
from .faces import detector_fingerprints
from .sockets import CATEGORY, DegradationSocket, Faces

if TYPE_CHECKING:
    from ..evaluation import MeasuredFaces
    from ..metrics.identity import Embed
    from ..metrics.no_reference import Judge

FACE_COLUMN = -1
"""Value of the column widget for a column through the face."""


class ImageFrames:
    """An IMAGE as frames, each converted on access so that the clip is never copied."""

    def __init__(self, image: Tensor) -> None:
        self.image = image

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: int) -> Tensor:
        return from_image(self.image[index : index + 1])[0]


class MeasureRestoration(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRMeasureRestoration",
            display_name="Measure Restoration",
            category=f"{CATEGORY}/measure",
            description="Says in figures how good a restoration is: against the truth if you have it, against the damaged footage under its "
            "degradation, and by its own steadiness and sharpness. Gives a table, JSON, a plot over the frames and one column over time.",
            search_aliases=["PSNR", "SSIM", "LPIPS", "metrics", "flicker", "warping error", "identity similarity", "benchmark", "evaluate"],
            is_output_node=True,
            inputs=[
                io.Image.Input("restored", tooltip="The restored frames."),
                io.Combo.Input(
                    "detector",
                    options=["off", "auto", "blazeface", "retinaface", "mtcnn"],
                    default="off",
                    tooltip="Finds faces in restored and reference, for landmark distances and the face's own figures: 0.2 s a frame of each.",
                ),
                io.Int.Input(
                    "column",
                    default=FACE_COLUMN,
                    min=-1,
                    max=16384,
                    tooltip="Which column of pixels is shown over time; -1 takes the one through the first face's eye, or the middle.",
                ),
                io.Int.Input(
                    "every",
                    default=1,
                    min=1,
                    max=1000,
                    tooltip="LPIPS, MUSIQ and the like, identity, flicker and warping error are measured in each so many-th frame; more is faster.",
                ),
                io.Combo.Input(
                    "motion",
                    options=["auto", "reference", "observation", "restored"],
                    default="auto",
                    tooltip="Whose motion flicker and warping error follow; auto is the reference, else the observation, else the restored frames.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "lpips",
                    options=[*BACKBONES, "off"],
                    default="vgg",
                    tooltip="The network of LPIPS, if the package lpips and its weights are on this machine; nothing is downloaded.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "no_reference",
                    options=["off", *SCALES, "all"],
                    default="off",
                    optional=True,
                    tooltip="Scores of each picture by itself, if the package pyiqa and their weights are on this machine; nothing is downloaded.",
                    advanced=True,
                ),
                io.Image.Input("reference", optional=True, tooltip="The truth: as many frames, of the restored size."),
                io.Image.Input("observation", optional=True, tooltip="The damaged frames that were restored: as many."),
                DegradationSocket.Input(
                    "degradation", optional=True, tooltip="What leads from clean frames to the observation; tells how well the result explains it."
                ),
                Faces.Input("faces", optional=True, tooltip="From Face Align, to measure on the face alone; without it the detector finds faces."),
            ],
            outputs=[
                io.String.Output("table", tooltip="All figures as a markdown table."),
                io.String.Output("json", tooltip="The same and every frame's figures, as JSON."),
                io.Image.Output("plot", tooltip="Each figure over the frames."),
                io.Image.Output("slices", tooltip="One column of pixels over time, for each clip: ragged lines are flicker."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, detector=None, lpips=None, no_reference="off", **others):
        network = [fingerprint(backbone_file(lpips))] if lpips in BACKBONES else []
        scores = [fingerprint(weights_file(key)) for key in scores_of(no_reference)]
        return [*detector_fingerprints(detector), *fingerprints("arcface"), *network, *scores]

    @classmethod
    def execute(
        cls,
        restored,
        detector="off",
        column=FACE_COLUMN,
        every=1,
        motion="auto",
        lpips="vgg",
        no_reference="off",
        reference=None,
        observation=None,
        degradation=None,
        faces=None,
    ):
        from ..evaluation import measured_faces
        from ..metrics.evaluate import evaluate
        from ..metrics.plot import plot
        from ..metrics.report import Report
        from ..metrics.temporal_profile import column_over_time

        given = {"restored": restored, "reference": reference, "observation": observation}
        clips = {name: ImageFrames(image) for name, image in given.items() if image is not None}
        check_clips(clips)
        truth = clips.get("reference")
        finder = None if detector == "off" else chosen_detector(detector)
        passes = 2 + len(clips) + (0 if finder is None else 2 if truth is not None else int(faces is None))  # cuts, figures, slices, faces
        with host.progress(passes * len(restored), "measure") as tick:
            seen = measured_faces(clips["restored"], truth, faces, finder, every=every, on_frame=tick)
            notes: list[str] = []
            about: dict[str, Any] = {"faces": len(seen.tracks)} if faces is not None or finder is not None else {}
            report = evaluate(
                clips["restored"],
                truth,
                clips.get("observation"),
                degradation_forward=None if degradation is None else degradation.forward,
                noise_level=0.0 if degradation is None else degradation.noise_level,
                whole_clip=degradation is not None and degradation.mixes_frames,
                region=seen.region if about else None,
                people=seen.people,
                perceptual=None if truth is None else chosen_lpips(lpips, about, notes),
                judges=chosen_judges(no_reference, notes),
                embed=chosen_identity(seen, notes),
                motion=motion,
                every=every,
                cuts=seen.cuts,
                about=about | ({} if degradation is None else {"degradation": degradation.describe()}),
                on_frame=tick,
            )
            chosen = seen.column(len(restored) // 2, restored.shape[2]) if column == FACE_COLUMN else column
            sliced = to_image(column_over_time(clips, chosen, tick)[None])
        report = Report(report.per_frame, report.summary, report.about, [*report.notes, *notes])
        drawn = to_image(plot(report)[None])
        shown = [ui.PreviewImage(picture, cls=cls).as_dict() for picture in (drawn, sliced)]
        table, text = report.table(), report.as_json()
        pictures = {**shown[0], "images": [file for one in shown for file in one["images"]]}
        return io.NodeOutput(table, text, drawn, sliced, ui={**pictures, "text": (table,), "report": (report.to_dict(),)})


def check_clips(clips: dict[str, ImageFrames]) -> None:
    """Raises ValueError unless all clips have equal length and the reference has the restored size."""
    restored = clips["restored"]
    for name, clip in clips.items():
        if len(clip) != len(restored):
            raise ValueError(
                f"Measure Restoration got {len(restored)} restored frames and {len(clip)} frames of the {name}; wire the same frames of both"
            )
    truth = clips.get("reference")
    if truth is not None and truth.image.shape[1:3] != restored.image.shape[1:3]:
        (height, width), (h, w) = restored.image.shape[1:3], truth.image.shape[1:3]
        raise ValueError(f"Measure Restoration got restored frames of {width} x {height} and a reference of {w} x {h}; scale one of them first")


def chosen_lpips(backbone: str, about: dict[str, Any], notes: list[str]) -> nn.Module | None:
    """LPIPS if wanted and available, recorded in `about`; `notes` names missing weights."""
    if backbone not in BACKBONES:
        return None
    module = lpips_or_none(host.device(), backbone)  # type: ignore[arg-type]
    if module is None:
        file = backbone_file(backbone)  # type: ignore[arg-type]
        notes.append(f"LPIPS was left out: it needs the Python package lpips and torchvision's {file.name} in {file.parent}.")
    else:
        about["lpips"] = backbone
    return module


def scores_of(choice: str | None) -> list[str]:
    """Keys of the selected no-reference metrics."""
    return list(SCALES) if choice == "all" else [key for key in SCALES if key == choice]


def chosen_judges(choice: str, notes: list[str]) -> dict[str, Judge]:
    """The available ones of the requested scores; `notes` says what others need."""
    lacking = {key: missing(key) for key in scores_of(choice)}
    notes += [sentence for sentence in lacking.values() if sentence]
    return {key: load_judge(key, host.device()) for key, sentence in lacking.items() if sentence is None}


def chosen_identity(seen: MeasuredFaces, notes: list[str]) -> Embed | None:
    """If there are faces to compare, ArcFace if its weights are in a model folder, else the package's own embedding; `notes` says
    which."""
    from ..metrics.identity import EmbeddedIdentity, load_arcface

    if not seen.people:
        return None
    weights = find_weights("arcface")
    if weights is not None:
        try:
            return load_arcface(weights, host.device())
        except ImportError as error:
            notes.append(f"Identity is not ArcFace's: {error}.")
    notes.append("Identity is the cosine of the embedded face embedding (dlib); figures of ArcFace do not compare with it.")
    return EmbeddedIdentity(host.device())
