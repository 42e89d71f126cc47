"""The bundled workflows: valid against the node schemas, the two formats agree, and they run headless."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from code_networks import small_codeformer, small_dicface
from flair_small import LIGHT, seeded
from small_keep import small_keep

from fvr.demo import moving_portrait, save
from fvr.models.catalogue import published_as
from fvr.nodes import registry
from fvr.runtime import graph, host
from fvr.video import FrameTimes, open_source
from fvr.workflows import FOLDER, bundled

API = sorted((FOLDER / "api").glob("*.json"))
PAGES = sorted(FOLDER.glob("*.json"))


STAND_INS = {
    "codeformer": small_codeformer,
    "KEEP": small_keep,
    "bfr": small_dicface,
    "color": small_dicface,
    "inpainting": small_dicface,
    "flair_x8": lambda: seeded("bicubic", sizes=LIGHT),
    "flair_gaussian": lambda: seeded("blur", sizes=LIGHT),
}
"""What stands in for a published file whose name begins so: the same network, small and with seeded weights."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """In a folder of their own: a clip of three frames with a face, the same 64 x 64, a picture of the first frame, a third of it masked."""
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    from PIL import Image

    folder = tmp_path_factory.mktemp("input")
    frames = moving_portrait(3)
    save(folder / "clip.mp4", frames, FrameTimes.constant(3, 25))
    save(folder / "small.mp4", torch.nn.functional.interpolate(frames, (64, 64), mode="area"), FrameTimes.constant(3, 25))
    alpha = torch.ones(1, *frames.shape[-2:])
    alpha[:, : frames.shape[-2] // 3] = 0
    pixels = (torch.cat([frames[0], alpha]) * 255).round().to(torch.uint8)
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / "frame.png")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A model folder with every restorer and prior that the workflows name."""
    folder = tmp_path_factory.mktemp("models")
    places = {"model": folder / "facerestore_models", "prior": folder / "face_video_restoration"}
    for place in places.values():
        place.mkdir()
    nodes = [node["inputs"] for path in API for node in json.loads(path.read_text()).values()]
    for widget, name in {(widget, node[widget]) for node in nodes for widget in places if isinstance(node.get(widget), str)}:
        make = next((make for start, make in STAND_INS.items() if name.startswith(start)), None)
        if make is not None:
            torch.save({"params_ema": make().state_dict()}, places[widget] / name)
    return folder


def test_every_page_has_its_twin_and_its_picture():
    assert {path.name for path in API} == {path.name for path in PAGES}
    assert all(path.with_suffix(".jpg").is_file() for path in PAGES)


@pytest.mark.parametrize("path", API, ids=lambda path: path.stem)
def test_the_page_says_what_its_twin_says(path):
    """Same nodes, and every widget value of the API form stands in the page form."""
    prompt = json.loads(path.read_text(encoding="utf-8"))
    page = json.loads((FOLDER / path.name).read_text(encoding="utf-8"))
    nodes = {str(node["id"]): node for node in page["nodes"] if node["type"] not in ("Note", "MarkdownNote")}
    assert {key: node["class_type"] for key, node in prompt.items()} == {key: node["type"] for key, node in nodes.items()}
    links = {link[0]: [str(link[1]), link[2]] for link in page["links"]}
    for key, node in prompt.items():
        wired = {socket["name"]: links[socket["link"]] for socket in nodes[key]["inputs"] if socket.get("link")}
        assert {name: value for name, value in node["inputs"].items() if isinstance(value, list)} == wired
        for name, value in node["inputs"].items():
            if not isinstance(value, list):
                assert value in nodes[key]["widgets_values"], f"{path.stem}: {node['class_type']}.{name} is {value!r} in the API form only"


@pytest.mark.parametrize("path", API, ids=lambda path: path.stem)
def test_runs_headless(path, inputs, models, tmp_path, monkeypatch):
    monkeypatch.setenv("FVR_MODELS", str(models))
    prompt = graph.load_prompt(path)
    theirs = {node["class_type"] for node in prompt.values()} - set(registry())
    if theirs:
        pytest.skip(f"needs ComfyUI's own {', '.join(sorted(theirs))}")
    heavy = any(str(node["inputs"].get("prior")).endswith(".pt") for node in prompt.values())  # FLAIR's networks, at 512 even when small
    given = {
        "preset": ("preset.steps", "2"),
        "file": ("file", "small.mp4" if path.stem == "flair_x8" else "clip.mp4"),
        "image": ("image", "frame.png"),
        "max_frames": ("max_frames", "1" if heavy else "0"),
    }
    changes = [f"{key}.{name}={value}" for key, node in prompt.items() for widget, (name, value) in given.items() if widget in node["inputs"]]
    prompt = graph.apply_overrides(prompt, changes)
    with host.workspace(input=inputs, output=tmp_path):
        result = graph.run_prompt(prompt, registry())
    made = [file for file in result.files if file.is_relative_to(tmp_path)]
    assert made
    for file in made:
        if file.suffix == ".mp4":
            assert sum(len(chunk.frames) for chunk in open_source(file).chunks()) == (1 if heavy else 3)


def test_pages_say_where_missing_restorers_come_from():
    """The page shows a row with name, address and folder for a combo whose file is not there."""
    for path in PAGES:
        for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]:
            if node["type"] == "FVRLoadFaceRestorer":
                assert [(model["name"], model["directory"]) for model in node["properties"]["models"]] == [
                    (node["widgets_values"][0], "facerestore_models")
                ]
                assert node["properties"]["models"][0]["url"] == published_as(node["widgets_values"][0]).url


def test_a_name_that_is_not_there_lists_those_that_are():
    with pytest.raises(FileNotFoundError, match="restore_face_video"):
        bundled("restore_faces")
