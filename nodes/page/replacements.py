"""Equivalents of other packs' nodes, which ComfyUI offers for a saved graph whose pack is missing."""

from __future__ import annotations

from typing import Any

from ... import host
from ...headless.io import io

FRAMES, LOADER = "FVRRestoreFrames", "FVRLoadFaceRestorer"
KEEP = {"restorer": "keep_model", "scale": "final_upscale_factor"}

REPLACEMENTS: dict[str, tuple[str, list[str], dict[str, str], dict[str, Any]]] = {
    "FaceRestoreModelLoader": (LOADER, ["model_name"], {"model": "model_name"}, {}),
    "FaceRestoreCFWithModel": (
        FRAMES,
        ["facedetection", "codeformer_fidelity"],
        {"frames": "image", "restorer": "facerestore_model", "fidelity": "codeformer_fidelity"},
        {},
    ),
    "ReActorRestoreFace": (
        FRAMES,
        ["facedetection", "model", "visibility", "codeformer_weight"],
        {"frames": "image", "model": "model", "strength": "visibility", "fidelity": "codeformer_weight"},
        {},
    ),
    "ReActorRestoreFaceAdvanced": (
        FRAMES,
        ["facedetection", "model", "visibility", "codeformer_weight", "face_selection", "sort_by", "reverse_order", "take_start", "take_count"],
        {"frames": "image", "model": "model", "strength": "visibility", "fidelity": "codeformer_weight", "faces": "face_selection"},
        {},
    ),
    "KEEP_ModelLoader": (LOADER, ["model", "detection_model"], {}, {"model": "KEEP-b76feb75.pth"}),
    "KEEP_FaceUpscaleImage": (
        FRAMES,
        ["final_upscale_factor", "has_aligned_face", "only_center_face", "draw_bounding_box"],
        {"frames": "image", **KEEP},
        {},
    ),
    "KEEP_ProcessImageSequence": (
        FRAMES,
        ["final_upscale_factor", "has_aligned_frames", "only_center_face", "draw_bounding_box", "max_clip_length"],
        {"frames": "images", **KEEP},
        {},
    ),
}
"""Old node id -> (our node id, old widgets in order, our input -> old input, our input -> fixed value).

facerestore_cf, ReActor and ComfyUI-KEEP as of November 2026. Each has one output, which is our first. Of the advanced node's three
selections, ours also has "all" and "largest"; "filter" fails with a list of the valid ones. Left out: facerestore_cf's CropFace, which outputs
crops frame after frame, black without a face, while ours go person after person; and face swapping, which we lack."""


async def announce_replacements() -> None:
    """Registers them, if ComfyUI supports it."""
    api = host.comfy_api()
    if api is None or not hasattr(io, "NodeReplace"):
        return

    class FirstOutput(io.NodeReplace):
        """Maps the first output to the first, for the page only. The server would look up the link by its consumer's old input name, which
        fails if it replaced the consumer before (ComfyUI 0.33, app/node_replace_manager.py, in random order)."""

        def as_dict(self) -> dict[str, Any]:
            return super().as_dict() | {"output_mapping": [{"new_idx": 0, "old_idx": 0}]}

    register = api.ComfyAPI().node_replacement.register
    for old, (new, widgets, wires, values) in REPLACEMENTS.items():
        inputs = [{"new_id": ours, "old_id": theirs} for ours, theirs in wires.items()]
        inputs += [{"new_id": ours, "set_value": value} for ours, value in values.items()]
        await register(FirstOutput(new_node_id=new, old_node_id=old, old_widget_ids=widgets, input_mapping=inputs))
