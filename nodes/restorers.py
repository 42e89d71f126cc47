"""Load Face Restorer, Restorer Settings, and Restore Faces, which runs any restorer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import host
from ..assembly import AUTO, PRECISIONS, chosen_method, fingerprint, resolved_precision, restorer_files, weights_for
from ..headless.io import io, newer
from ..methods.base import Restorer
from ..methods.blind.restorer import BlindOptions
from ..methods.codeformer import CodeFormerOptions
from ..methods.dicface import DicFaceOptions
from ..methods.keep import KeepOptions
from ..methods.per_frame import PerFrameOptions
from ..methods.registry import methods, restorer_from, with_estimates, with_precleaner
from ..models.checkpoints.load import load_network
from ..models.checkpoints.origin import origins
from ..models.compiled import compile_parts
from .choices import check_choice
from .faces import crops_image
from .restoring import check_wiring, face_inputs, face_outputs, require, restore_people, result_ui
from .sockets import ABSENT, CATEGORY, RestorerSocket, seed_input
from .widgets import from_widgets, widgets

UNSET = -1.0
"""Value of a fidelity widget that leaves the restorer's own setting."""


class LoadFaceRestorer(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRLoadFaceRestorer",
            display_name="Load Face Restorer",
            category=f"{CATEGORY}/models",
            description="Loads CodeFormer, KEEP, DicFace, RestoreFormer, GFPGAN and their like: one loader, which recognises the file.",
            search_aliases=["codeformer", "keep", "dicface", "gfpgan", "restoreformer", "face restore model"],
            **newer(has_intermediate_output=True),
            inputs=[
                io.Combo.Input(
                    "model",
                    options=[AUTO, *restorer_files()],
                    tooltip="auto takes FLAIR for faces in which it detects a blur, and for all others KEEP's published weights if they are here, "
                    "else the embedded blind restorer, with embedded KEEP over it for small faces. The embedded ones come with this pack; but for "
                    "blind they are small, 128 x 128. Others are files in models/face_video_restoration, facerestore_models, upscale_models or "
                    "checkpoints. The command `fvr` (after `python -m pip install .` in this pack's folder): `fvr models` lists what there is with "
                    "its licence, `fvr models fetch codeformer` downloads one.",
                ),
                io.Combo.Input(
                    "precision",
                    options=[AUTO, *PRECISIONS],
                    default=AUTO,
                    optional=True,
                    tooltip="Of the part that draws the picture once the codes are chosen; what chooses them stays float32, "
                    "and so does KEEP, whose pictures decide on later codes. auto is bfloat16 for the embedded blind restorer on GPUs from Ampere on "
                    "and on CPUs with AMX or AVX512_BF16, else float32.",
                ),
                io.Boolean.Input(
                    "compile",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Compiles the network with torch.compile: up to minutes the first time, the same pictures up to rounding. Where that "
                    "fails the node says so, and the network runs as it is.",
                ),
            ],
            outputs=[
                RestorerSocket.Output("restorer", tooltip="For Restore Faces, KEEP Propagate, DicFace Restore, Restore Video, FLAIR's enhancer."),
                io.String.Output("about", tooltip="What the file holds, its licence, and whether that allows commercial use."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, model=None, **others):
        return fingerprint(restorer_file(model))

    @classmethod
    def execute(cls, model, precision=None, compile=False):
        restorer, about = load_restorer(model, precision or AUTO)
        if compile:
            compile_parts(origins(restorer), host.say)
        return io.NodeOutput(restorer, about, ui={"text": (about,)})


def load_restorer(model: str, precision: str = AUTO) -> tuple[Restorer, str]:
    """The restorer of a menu entry, and a text of the file's contents and licence. Raises ValueError if the file is missing."""
    path = restorer_file(model)
    if path is None:
        place = host.model_folders()["facerestore_models"][0]
        raise ValueError(
            f"no face restorer {model!r} is in the model folders; put one into {place}, or "
            "run `fvr models fetch codeformer` (`fvr` is there after `python -m pip install .` in this pack's folder)"
        )
    device = host.device()
    dtype = PRECISIONS.get(resolved_precision(precision, device))
    loaded = load_network(path, dtype)
    restorer: Restorer = with_precleaner(restorer_from(loaded, place=host.managed(loaded.network)), loaded, host.managed, dtype)
    if model == AUTO:
        restorer = with_estimates(restorer, device=device, precision=dtype, placed=host.managed)
    return restorer, f"{path.name}: {loaded.detail}; {loaded.licence}"


def restorer_file(model: str | None) -> Path | None:
    """The file of a loader menu entry; None if it is missing."""
    return weights_for(chosen_method(False)[0], {}) if model == AUTO else restorer_files().get(model or "")


def fidelity_input(tooltip: str) -> Any:
    """Fidelity of CodeFormer and DicFace; `UNSET` keeps the restorer's."""
    return io.Float.Input("fidelity", default=UNSET, min=UNSET, max=1.0, step=0.05, tooltip=tooltip)


def takes_fidelity(restorer: Restorer) -> bool:
    return hasattr(getattr(restorer, "options", None), "fidelity")


class RestoreFaces(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRRestoreFaces",
            display_name="Restore Faces",
            category=f"{CATEGORY}/restore",
            description="Restores aligned faces with any restorer, each person on their own. "
            "Wire faces, or a batch of aligned frames of one person; a single picture works too.",
            search_aliases=["face restoration", "aligned faces"],
            **newer(has_intermediate_output=True),
            inputs=[
                RestorerSocket.Input("restorer", tooltip="From Load Face Restorer, Restorer Settings or FLAIR Restorer."),
                fidelity_input("CodeFormer and DicFace: 0 invents the cleanest face, 1 keeps what the input shows; -1 leaves the restorer as it is."),
                seed_input(),
                *face_inputs(),
            ],
            outputs=face_outputs(),
        )

    @classmethod
    def validate_inputs(cls, restorer=None, faces=ABSENT, frames=ABSENT):
        return check_wiring(cls, faces, frames)

    @classmethod
    def execute(cls, restorer, fidelity=UNSET, seed=0, faces=None, frames=None):
        if fidelity >= 0:
            require(restorer, takes_fidelity(restorer), "fidelity is a setting of CodeFormer and DicFace", "set it to -1")
            restorer = restorer.configured(fidelity=fidelity)
        restored, _ = restore_people(restorer, faces, frames, seed=seed)
        return io.NodeOutput(restored, crops_image(restored), ui=result_ui(cls, restored, faces, frames))


KEEP = ("reset_every", "gain_window", "flow")


def method_inputs() -> dict[str, list]:
    """Each method's settings as widgets."""
    return {
        "blind": widgets(BlindOptions(), "detail", "carry"),
        "codeformer": widgets(CodeFormerOptions(), "fidelity", "mode", "keep_luminance", "smoothing", "batch"),
        "keep": widgets(KeepOptions(), *KEEP),
        "dicface": widgets(DicFaceOptions(), "fidelity", "dirichlet", "mode", "keep_luminance"),
        "per-frame": widgets(PerFrameOptions(), "batch"),
    }


class RestorerSettings(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRRestorerSettings",
            display_name="Restorer Settings",
            category=f"{CATEGORY}/models",
            description="Sets the parameters of a loaded restorer, for Restore Video, Restore Faces, or as FLAIR's enhancer.",
            search_aliases=["restorer options", "fidelity", "codeformer weight"],
            inputs=[
                RestorerSocket.Input("restorer", tooltip="From Load Face Restorer."),
                io.DynamicCombo.Input(
                    "method",
                    options=[io.DynamicCombo.Option(name, inputs) for name, inputs in method_inputs().items()],
                    tooltip="The method of the loaded file; per-frame is RestoreFormer, GFPGAN and others.",
                ),
            ],
            outputs=[RestorerSocket.Output("restorer", tooltip="The same restorer with these parameters.")],
        )

    @classmethod
    def validate_inputs(cls, restorer=None, method=None):
        return check_choice(cls, "method", method)

    @classmethod
    def execute(cls, restorer, method):
        kind = method["method"]
        given = type(getattr(restorer, "options", None))
        own = next((name for name in method_inputs() if methods()[name].options is given), None)
        remedy = f"choose {own} as the method, or load another file" if own else "its own node sets it, so leave this one out"
        require(restorer, own == kind, f"these are settings of {kind}", remedy)
        changes = from_widgets(methods()[kind].options, {name: value for name, value in method.items() if name != "method"})
        return io.NodeOutput(restorer.configured(**changes))
