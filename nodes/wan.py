"""A one-step video prior as the restorer: ComfyUI's MODEL and VAE of Wan 2.1."""

from __future__ import annotations

from ..headless.io import io
from ..host.wan_model import WanModel
from ..methods.wan import WanOptions, WanRestorer
from .sockets import CATEGORY, RestorerSocket
from .widgets import widgets


class WanFaceRestorer(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRWanFaceRestorer",
            display_name="Wan Face Restorer",
            category=f"{CATEGORY}/models",
            description="Wan 2.1 1.3B with VividFace's weights as a restorer: one step for a whole window of frames.",
            search_aliases=["vividface", "wan 2.1", "one step diffusion", "video diffusion restorer"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="VividFace's weights, from Load Diffusion Model or another loader of Wan 2.1 1.3B; no smaller precision was tried.",
                ),
                io.Vae.Input("vae", tooltip="The VAE of Wan 2.1, from Load VAE."),
                *widgets(WanOptions(), "window", "overlap"),
                io.Conditioning.Input(
                    "conditioning",
                    optional=True,
                    tooltip="The empty prompt, from CLIP Text Encode with the text encoder of Wan; without it zeros stand there.",
                ),
            ],
            outputs=[RestorerSocket.Output("restorer", tooltip="For Restore Video, Restore Faces, or as FLAIR's enhancer.")],
        )

    @classmethod
    def execute(cls, model, vae, window=21, overlap=4, conditioning=None):
        return io.NodeOutput(WanRestorer(WanModel(model, vae, conditioning), WanOptions(window=window, overlap=overlap)))
