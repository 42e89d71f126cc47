"""The bundled workflows: valid against the node schemas, the two formats agree, and they run headless."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fvr.demo import moving_portrait, save
from fvr.nodes import registry
from fvr.runtime import graph, host
from fvr.video import FrameTimes, open_source
from fvr.workflows import FOLDER, bundled

REGISTRY = registry()
API = sorted((FOLDER / "api").glob("*.json"))
PAGES = sorted(FOLDER.glob("*.json"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Three frames with a face, in a folder of its own."""
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    path = tmp_path_factory.mktemp("input") / "clip.mp4"
    save(path, moving_portrait(3), FrameTimes.constant(3, 25))
    return path


def test_every_page_has_its_twin_and_its_picture():
    assert {path.name for path in API} == {path.name for path in PAGES}
    assert all(path.with_suffix(".jpg").is_file() for path in PAGES)


@pytest.mark.parametrize("path", API, ids=lambda path: path.stem)
def test_the_page_says_what_its_twin_says(path):
    """Same nodes, and every widget value of the API form stands in the page form."""
    prompt = json.loads(path.read_text(encoding="utf-8"))
    page = json.loads((FOLDER / path.name).read_text(encoding="utf-8"))
    nodes = {str(node["id"]): node for node in page["nodes"] if node["type"].startswith("FVR")}
    assert {key: node["class_type"] for key, node in prompt.items()} == {key: node["type"] for key, node in nodes.items()}
    links = {link[0]: [str(link[1]), link[2]] for link in page["links"]}
    for key, node in prompt.items():
        wired = {socket["name"]: links[socket["link"]] for socket in nodes[key]["inputs"] if socket.get("link")}
        assert {name: value for name, value in node["inputs"].items() if isinstance(value, list)} == wired
        for name, value in node["inputs"].items():
            if not isinstance(value, list):
                assert value in nodes[key]["widgets_values"], f"{path.stem}: {node['class_type']}.{name} is {value!r} in the API form only"


@pytest.mark.parametrize("path", API, ids=lambda path: path.stem)
def test_runs_headless(path, clip, tmp_path):
    prompt = graph.load_prompt(path)
    samplers = [f"{key}.preset.steps=2" for key, node in prompt.items() if "preset" in node["inputs"]]
    loaders = [f"{key}.file={clip.name}" for key, node in prompt.items() if "file" in node["inputs"]]
    prompt = graph.apply_overrides(prompt, samplers + loaders)
    with host.workspace(input=clip.parent, output=tmp_path):
        result = graph.run_prompt(prompt, REGISTRY)
    clips = [file for file in result.files if file.suffix == ".mp4"]
    assert clips
    for file in clips:
        assert sum(len(chunk.frames) for chunk in open_source(file).chunks()) == 3


def test_a_name_that_is_not_there_lists_those_that_are():
    with pytest.raises(FileNotFoundError, match="restore_face_video"):
        bundled("restore_faces")
