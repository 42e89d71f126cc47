"""Wan Face Restorer inside ComfyUI: a tiny Wan 2.1 of ComfyUI's own classes, against the published formula."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.comfyui_process import in_comfyui, needs_comfyui

PROGRAM = (Path(__file__).parent / "wan_program.py").read_text(encoding="utf-8")

EXPECTED = {
    "latents": [[1, 16, 3, 8, 8], True],
    "velocity": True,
    "formula": True,
    "moves": True,
    "no text": True,
    "restorer": [2, 3, 512, 512],
    "weights": [True, False],
}
REFUSED = {
    "another model": "takes Wan 2.1 text to video with VividFace's weights, and the wired model is BaseModel",
    "another vae": "takes the VAE of Wan 2.1, and the wired one is AutoencoderKL of 4 channels",
    "two texts": "takes CONDITIONING of one entry, got 2",
}


@pytest.fixture(scope="module")
def said():
    return in_comfyui(PROGRAM)


@needs_comfyui
@pytest.mark.parametrize("what", EXPECTED)
def test_inside_comfyui(said, what):
    assert said[what] == EXPECTED[what]


@needs_comfyui
@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_wan_is_refused_in_a_sentence(said, what):
    assert REFUSED[what] in said["refused"][what]
