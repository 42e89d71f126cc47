"""KEEP: restoration that propagates its state from frame to frame."""

from __future__ import annotations

from .. import host
from ..headless.io import io, newer
from ..methods.keep import KeepOptions
from ..motion.raft import RaftFlow
from .faces import crops_image
from .restorers import KEEP
from .restoring import check_wiring, face_inputs, face_outputs, require, restore_people, result_ui
from .sockets import ABSENT, CATEGORY, OpticalFlow, RestorerSocket
from .widgets import widgets


class KeepPropagate(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRKeepPropagate",
            display_name="KEEP Propagate",
            category=f"{CATEGORY}/restore",
            description="Restores aligned faces with KEEP: what the last restored frame predicts, corrected by what the new frame shows. "
            "Every person and every shot begins anew.",
            search_aliases=["keep", "kalman", "temporal consistency", "deflicker"],
            **newer(has_intermediate_output=True),
            inputs=[
                RestorerSocket.Input("restorer", tooltip="A KEEP checkpoint from Load Face Restorer."),
                *widgets(KeepOptions(), *KEEP),
                *face_inputs(),
                OpticalFlow.Input("optical_flow", optional=True, tooltip="ComfyUI's RAFT, from Load Optical Flow Model, instead of flow."),
            ],
            outputs=face_outputs(),
        )

    @classmethod
    def validate_inputs(cls, restorer=None, faces=ABSENT, frames=ABSENT):
        return check_wiring(cls, faces, frames)

    @classmethod
    def execute(cls, restorer, reset_every=None, gain_window=None, flow=None, faces=None, frames=None, optical_flow=None):
        fits = "optical_flow" in restorer.supports
        require(restorer, fits, "KEEP Propagate needs a KEEP checkpoint", "choose one in Load Face Restorer, or use Restore Faces")
        given = {"reset_every": reset_every, "gain_window": gain_window, "flow": flow}
        restorer = restorer.configured(**{name: value for name, value in given.items() if value is not None})
        if optical_flow is not None:
            restorer = restorer.guided_by(RaftFlow(optical_flow.model, host.managed(optical_flow)))
        restored, _ = restore_people(restorer, faces, frames)
        return io.NodeOutput(restored, crops_image(restored), ui=result_ui(cls, restored, faces, frames))
