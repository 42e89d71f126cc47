"""DicFace: restoration, colourisation and inpainting in windows of five frames, with uncertainty."""

from __future__ import annotations

from torch import Tensor

from .. import host
from ..headless.io import io, newer
from ..host.images import to_mask
from ..methods.dicface import DicFaceOptions
from .choices import check_choice
from .faces import crops_image
from .restoring import check_wiring, face_inputs, face_outputs, require, restore_people, result_ui
from .sockets import ABSENT, CATEGORY, RestorerSocket, first_fault, seed_input
from .widgets import widgets


class DicFaceRestore(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRDicFaceRestore",
            display_name="DicFace Restore",
            category=f"{CATEGORY}/restore",
            description="Restores, colourises or fills in aligned faces with DicFace, looking at five frames at a time, and shows where it invented.",
            search_aliases=["dicface", "dirichlet", "colorize", "inpaint face"],
            **newer(has_intermediate_output=True),
            inputs=[
                RestorerSocket.Input("restorer", tooltip="A DicFace checkpoint from Load Face Restorer, the one for the mode."),
                io.DynamicCombo.Input(
                    "mode",
                    options=[
                        io.DynamicCombo.Option("restore", []),
                        io.DynamicCombo.Option("colourise", widgets(DicFaceOptions(), "keep_luminance")),
                        io.DynamicCombo.Option("inpaint", []),
                    ],
                    tooltip="restore (bfr_100k), colourise (color_100k) or inpaint (inpainting_100k); embedded weights have a file for each.",
                ),
                *widgets(DicFaceOptions(), "fidelity", "dirichlet"),
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
                io.Mask.Output("uncertainty", tooltip="How undecided the codes are: 0 settled, 0.5 as the prior; no meaning for embedded weights."),
            ],
        )

    @classmethod
    def validate_inputs(cls, restorer=None, mode=None, faces=ABSENT, frames=ABSENT):
        return first_fault(check_choice(cls, "mode", mode), check_wiring(cls, faces, frames))

    @classmethod
    def execute(cls, restorer, mode, fidelity=None, dirichlet=None, seed=0, faces=None, frames=None, mask=None):
        fits = {"masks", "uncertainty"} <= restorer.supports
        require(restorer, fits, "DicFace Restore needs a DicFace checkpoint", "choose one in Load Face Restorer, or use Restore Faces")
        given = {"fidelity": fidelity, "dirichlet": dirichlet, **mode}
        given["keep_luminance"] = bool(given.get("keep_luminance"))
        restorer = restorer.configured(**{name: value for name, value in given.items() if value is not None})
        said = None if mask is None else mask_note(mode["mode"], mask)
        holes = mask if mode["mode"] == "inpaint" else None
        done, maps = restore_people(restorer, faces, frames, mask=holes, seed=seed, maps=True)
        uncertainty = to_mask(maps["uncertainty"]) if maps else host.nothing()
        return io.NodeOutput(done, crops_image(done), uncertainty, ui=result_ui(cls, done, faces, frames, said))


def mask_note(mode: str, mask: Tensor) -> str | None:
    """A note about a wired mask; Load Image outputs 64 x 64 zeros for a picture without alpha."""
    if mode != "inpaint":
        return f"The mask is left aside: {mode} fills nothing, inpaint does." if mask.any() else None
    return None if mask.any() else "The mask is empty, so nothing is filled."
