"""ComfyUI's own picture nodes in the headless runner: the same files as ComfyUI writes, from the same files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fvr import headless, host
from fvr.headless.core_nodes import CORE_NODES


def run(folder, image):
    prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a/b"}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    with host.workspace(input=folder, output=folder / "out", temp=folder / "temp"):
        return headless.run_prompt(prompt, CORE_NODES, keep=["1"])


def picture(seed=0, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (12, 10, channels), dtype=np.uint8)


def test_a_picture_survives_to_the_bit(tmp_path):
    pixels = picture()
    Image.fromarray(pixels).save(tmp_path / "in.png")
    result = run(tmp_path, "in.png")
    assert [file.name for file in result.files][:1] == ["b_00001_.png"] and len(result.files) == 2
    for file in result.files:
        np.testing.assert_array_equal(np.asarray(Image.open(file)), pixels)
    assert not result.outputs["1"][1].any()
    assert run(tmp_path, "in.png").files[0].name == "b_00002_.png"


def test_alpha_is_a_mask_of_what_is_missing(tmp_path):
    pixels = picture(1, 4)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    image, mask = run(tmp_path, "in.png").outputs["1"]
    torch.testing.assert_close(mask[0], 1 - torch.from_numpy(pixels[..., 3]).float() / 255)
    assert image.shape == (1, 12, 10, 3)


def test_photographs_stand_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise
    Image.fromarray(picture()).save(tmp_path / "in.jpg", exif=exif)
    assert run(tmp_path, "in.jpg").outputs["1"][0].shape == (1, 10, 12, 3)


def test_a_missing_picture_is_named(tmp_path):
    try:
        run(tmp_path, "gone.png")
    except ValueError as error:
        assert "gone.png" in str(error)
    else:
        raise AssertionError("a missing picture was loaded")


@pytest.mark.parametrize("prefix", ["../out", "/elsewhere/out", "a/../../b", "folder/", "..", "x" * 250, "a\0b", "\ud800" * 90])
def test_a_prefix_that_leads_out_is_refused_before_the_work(prefix, tmp_path):
    Image.fromarray(picture()).save(tmp_path / "in.png")
    prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "in.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    }
    ran = []
    with host.workspace(input=tmp_path, output=tmp_path / "out"), pytest.raises(headless.PromptRefused, match="file name prefix"):
        headless.run_prompt(prompt, CORE_NODES, on_node=ran.append)
    assert ran == [] and not (tmp_path / "out").exists()
