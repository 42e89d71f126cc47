"""The seam inside ComfyUI, in a process that has ComfyUI's modules but no server."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.comfyui_process import in_comfyui, needs_comfyui

SHORT_MEMORY = (Path(__file__).parent / "short_memory_program.py").read_text(encoding="utf-8")
PROGRAM = (Path(__file__).parent / "seam_program.py").read_text(encoding="utf-8")

EXPECTED = {
    "heavy before use": [],
    "inside": [True, True, {"category": "x"}],
    "own folders": ["shared_models", "models/face_video_restoration", "cache"],
    "stable": True,
    "made": True,
    "others": ["checkpoints", "detection", "face_video_restoration", "facedetection", "facerestore_models", "upscale_models"],
    "listed": [["a.pth", "b.safetensors", "fetched.pth"], ["a.pth", "b.safetensors"]],
    "fetched": [True, ["facedetection", "facedetection"]],
    "found": True,
    "half": "torch.float16",
    "files": ["a.mp4", "link.mp4"],
    "resolved": [True, True, True],
    "refused": {
        "../outside.mp4": "ValueError",
        "/outside.mp4": "ValueError",
        "link.mp4": "ValueError",
        "gone.mp4": "FileNotFoundError",
        "../outside.mp4 [output]": "ValueError",
    },
    "next": ["output/video/restored_00008_.mp4", "video", "restored_00008_.mp4"],
    "numbers agree": [True] * 5,
    "escapes": ["../x", "/x"],
    "workspace": [True, True],
    "workspace ended": True,
    "held": [True, [3, 16, 16, 3]],
    "progress": [[1, 4, None], [3, 4, ["JPEG", [10, 8]]], [4, 4, None]],
    "interrupted at": 5,
    "ui": [True, True],
    "managed": [True, [True], True, [True, True, "torch.bfloat16"]],
}


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> dict:
    return in_comfyui(PROGRAM, str(tmp_path_factory.mktemp("comfyui")))


@needs_comfyui
@pytest.mark.parametrize("what", EXPECTED)
def test_the_seam_does_as_comfyui_does(what, said):
    assert said[what] == EXPECTED[what]


@needs_comfyui
def test_devices_are_comfyuis(said):
    device, intermediate, dtype = said["device"]
    assert (intermediate, dtype) == ("cpu", "torch.float32") and device.partition(":")[0] in ("cpu", "cuda", "mps")


@needs_comfyui
def test_networks_run_where_they_are_said_to_however_little_memory_there_is():
    """Under --lowvram, --novram and with nearly none left ComfyUI leaves weights on the CPU, for layers of its own to fetch; ours are PyTorch's.

    RetinaFace and ParseNet, too, go when ComfyUI wants their room.
    """
    pytest.importorskip("facexlib", reason="both are facexlib's")
    said = in_comfyui(SHORT_MEMORY)
    assert len(said) == 11 and not [state for state, fine in said.items() if not fine]
