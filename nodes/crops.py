"""Crops to Faces: any model as the restorer, by turning edited crops back into faces."""

from __future__ import annotations

from ..faces.compositing.edited import edited_faces
from ..headless.io import io, newer
from ..host.images import from_image, from_mask
from ..plurals import counted
from .faces import crops_image
from .sockets import ABSENT, CATEGORY, Faces


class CropsToFaces(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRCropsToFaces",
            display_name="Crops to Faces",
            category=f"{CATEGORY}/faces",
            description="Makes any model a face restorer: takes Face Align's crops back after other nodes have changed them, for Paste Back.",
            search_aliases=["face detailer", "detail faces", "inpaint faces", "ksampler faces", "seedvr2 faces", "custom face restorer"],
            **newer(has_intermediate_output=True),
            inputs=[
                Faces.Input("faces", tooltip="From Face Align, whose crops were changed."),
                io.Image.Input(
                    "crops", lazy=True, tooltip="Face Align's crops after anything has changed them: as many, in the same order, square, at any size."
                ),
                io.Float.Input("strength", default=1.0, min=0.0, max=1.0, step=0.05, tooltip="1 shows what the other model made, 0 the crop before."),
                io.Image.Input(
                    "decoded",
                    optional=True,
                    lazy=True,
                    tooltip="Face Align's crops through the same VAE, unchanged. Only the difference is pasted then, so what the VAE costs cancels.",
                ),
                io.Mask.Input("mask", optional=True, tooltip="Where changes count, over the crops: one for all, or one per crop, at any size."),
            ],
            outputs=[
                Faces.Output("faces", tooltip="For Paste Back."),
                io.Image.Output("crops", tooltip="What will be pasted, person after person, 512 x 512."),
            ],
        )

    @classmethod
    def check_lazy_status(cls, faces, decoded=ABSENT, **others):
        """Without faces no crops are requested: they would be blocked, but the frames should pass through."""
        return ["crops", *([] if decoded is ABSENT else ["decoded"])] if faces else []

    @classmethod
    def execute(cls, faces, crops=None, strength=1.0, decoded=None, mask=None):
        if not faces:
            return io.NodeOutput([], crops_image([]), ui={"text": ("No face came in, so the frames stay as they are.",)})
        done = edited_faces(
            faces,
            from_image(crops),
            decoded=None if decoded is None else from_image(decoded),
            mask=None if mask is None else from_mask(mask),
            strength=strength,
        )
        count = sum(len(clip.crops) for clip in done)
        how = "" if decoded is None else ", to be pasted as a difference"
        text = f"{counted(len(done), 'person', 'people')}, {counted(count, 'crop')}{how}"
        return io.NodeOutput(done, crops_image(done), ui={"text": (text,)})
