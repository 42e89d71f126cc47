"""The JSON report of a run: it is enough to have the run again."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from fvr import headless, host, record
from fvr.cli import main
from fvr.demo import moving_portrait
from fvr.models.checkpoints.origin import origins
from fvr.models.embedded import CODEBOOK, FOLDER, KEEP, PRIOR
from fvr.nodes import registry
from fvr.video import FrameTimes, open_sink, read_frames

BLUR = "gaussian_blur(sigma=1.5) + noise(sigma=0.01)"
GRAPH = {
    "1": {"class_type": "FVRLoadFaceRestorer", "inputs": {"model": "embedded codeformer"}},
    "2": {"class_type": "FVRRestoreVideo", "inputs": {"restorer": ["1", 0], "file": "in.mkv", "seed": 5, "max_frames": 2, "codec": "ffv1"}},
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current directory, with a short clip in it, and no weights but the embedded."""
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FVR_MODELS", str(tmp_path / "models"))
    times = FrameTimes.constant(3, Fraction(25))
    with open_sink("in.mkv", None, size=(320, 320), codec="ffv1") as sink:
        sink.write(moving_portrait(3), times.starts, times.ends)
    return tmp_path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def reported(line: str) -> dict:
    """The report of a command."""
    assert main([*shlex.split(line), "--report", "report.json"]) == 0
    return json.loads(Path("report.json").read_text(encoding="utf-8"))


def test_its_command_gives_the_same_pixels_and_it_names_all_that_they_depend_on(place):
    report = reported(f"restore in.mkv out.mkv --count 1 --seed 5 --codec ffv1 --set steps=2 --degradation '{BLUR}'")
    first = read_frames("out.mkv")[0]
    Path("out.mkv").unlink()
    program, *again = shlex.split(report["command"])
    assert program == "fvr" and main(again) == 0
    assert torch.equal(read_frames("out.mkv")[0], first)
    assert (report["input"], report["output"], report["seed"], report["degradation"]) == ("in.mkv", "out.mkv", 5, BLUR)
    assert report["device"] == str(host.device()) and report["warnings"] == [] and report["version"]["torch"] == torch.__version__
    assert {one["file"] for one in report["weights"]} >= {PRIOR, CODEBOOK}
    assert all(one["sha256"] == sha256(FOLDER / one["file"]) and one["licence"] for one in report["weights"])
    settings = report["settings"]
    assert settings["restorer"]["steps"] == 2 and settings["restorer"]["enhancer"]["method"] == "codeformer"
    assert settings["pasting"]["feather"] == 24 and settings["pasting"]["parser"] is False
    assert settings["finding"] == {"faces": "all", "min_size": 0.0, "detector": "blazeface"}
    assert settings["encoding"]["crf"] == 17 and settings["frames"]["count"] == 1


def test_the_node_tells_the_same_as_the_command_line(place):
    with host.workspace(input=place, output=place):
        (node,) = headless.run_prompt(GRAPH, registry()).ui["2"]["report"]
    node = json.loads(json.dumps(node, allow_nan=False))
    line = reported("restore in.mkv out.mkv --method codeformer --count 2 --seed 5 --codec ffv1")
    assert node.keys() == line.keys() and node["settings"].keys() == line["settings"].keys()
    for name in ("version", "weights", "seed", "device", "degradation", "faces", "frames", "method"):
        assert node[name] == line[name], name
    for name in ("restorer", "pasting", "finding"):
        assert node["settings"][name] == line["settings"][name], name
    assert (place / node["output"]).is_file() and node["input"] == "in.mkv"


def test_a_file_that_builds_on_another_is_named_with_it(place):
    files = [one["file"] for one in reported("restore in.mkv out.mkv --method keep --count 1 --codec ffv1")["weights"]]
    assert files[:2] == [KEEP, CODEBOOK]


def test_aligned_frames_have_no_finding_and_no_pasting(place):
    settings = reported("restore in.mkv out.mkv --aligned --method codeformer --count 1 --codec ffv1")["settings"]
    assert settings["finding"] is None and settings["pasting"] is None


def test_the_version_is_the_projects_own():
    """Whether the folder is run, as ComfyUI does, or what was installed from it."""
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert record.version() == re.search(r'version = "(.+)"', text)[1]


def test_networks_that_no_file_holds_have_no_origin():
    assert origins(torch.nn.Linear(2, 2), None, "text") == {} and record.weights_of(restorer=torch.nn.Linear(2, 2)) == []
