"""Scores without a reference: the package and the files are the user's, and nothing is fetched."""

from __future__ import annotations

import math
import socket
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from helpers.moving_texture import texture

from fvr.metrics.evaluate import evaluate
from fvr.metrics.no_reference import SCALES, load_judge, missing, score_region, weights_file
from fvr.metrics.registry import FACE, MEASURES
from fvr.nodes.measure import chosen_judges

CPU = torch.device("cpu")
NETWORKS = [key for key, scale in SCALES.items() if not scale.file.endswith(".mat")]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub folder of the test's own, and no way out of the machine."""

    def refuse(*args, **options):
        raise AssertionError("a measure went to the network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    (tmp_path / "pyiqa").mkdir()
    return tmp_path


def test_every_score_has_a_line_in_the_report():
    assert {key: measure.best for key in SCALES for measure in MEASURES if measure.key == key} == {"musiq": "high", "maniqa": "high", "niqe": "low"}


@pytest.mark.parametrize("key", SCALES)
def test_missing_packages_are_named(key, hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    notes: list[str] = []
    assert chosen_judges(key, notes) == {}
    assert len(notes) == 1 and all(word in notes[0] for word in ("pyiqa", SCALES[key].name, SCALES[key].file, str(hub), "non-commercial"))
    monkeypatch.setitem(sys.modules, "pyiqa", ModuleType("pyiqa"))
    said = missing(key)
    assert said is not None and SCALES[key].file in said and str(hub) in said
    weights_file(key).write_bytes(b"weights")
    assert missing(key) is None
    assert chosen_judges("off", notes) == {} and len(notes) == 1


@pytest.mark.parametrize("key", NETWORKS)
def test_weights_come_from_the_file_without_unpickling_or_download(key, hub, monkeypatch):
    """A stand-in for pyiqa as it behaves: it fetches weights unless it is told not to, and its MANIQA asks timm for a backbone anyway."""

    def create_model(name, pretrained=False):
        assert not pretrained, "timm would fetch the backbone"

    arch = SimpleNamespace(timm=SimpleNamespace(create_model=create_model))

    class Metric(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(3, 1, bias=False)

        def forward(self, x):
            return self.net(x.mean((2, 3)))

    def create_metric(name, *, device, pretrained=True):
        assert name == key and not pretrained
        arch.timm.create_model("vit_base_patch8_224", pretrained=True) if key == "maniqa" else None
        return Metric()

    package = ModuleType("pyiqa")
    package.create_metric = create_metric
    monkeypatch.setitem(sys.modules, "pyiqa", package)
    monkeypatch.setitem(sys.modules, "pyiqa.archs", ModuleType("pyiqa.archs"))
    monkeypatch.setitem(sys.modules, "pyiqa.archs.maniqa_arch", arch)
    torch.save({"weight": torch.tensor([[10.0, 20.0, 30.0]])}, weights_file(key))
    judge, before = load_judge(key, CPU), arch.timm.create_model
    assert before is create_model  # timm is itself again
    x = torch.full((1, 3, SCALES[key].least, 300), 0.5)
    assert judge(x) == pytest.approx(30) and math.isnan(judge(x[..., :-1, :]))
    torch.save({"weight": torch.zeros(1, 4)}, weights_file(key))
    with pytest.raises(ValueError, match=f"does not hold {SCALES[key].name}"):
        load_judge(key, CPU)


def test_a_face_is_scored_in_its_rectangle_and_every_so_many_frames():
    clip = torch.cat([texture(seed=t) for t in range(3)])
    clip[:, :, 10:50, 20:60] = 1
    region = torch.zeros(clip.shape[-2:])
    region[10:50, 20:60] = 1

    def brightness(frame):
        return float(frame.mean())

    assert score_region(brightness, clip[:1], region[None, None]) == pytest.approx(1)
    report = evaluate(clip, region=lambda t: region, judges={"musiq": brightness}, every=2)
    assert report.per_frame["musiq" + FACE] == [pytest.approx(1), None, pytest.approx(1)]
    assert report.summary["musiq"] == pytest.approx(float(clip[[0, 2]].mean()), rel=1e-4) and "MUSIQ" in report.table()


@pytest.mark.parametrize("key", NETWORKS)
def test_with_the_real_package(key, hub):
    """Random weights in pyiqa's own network: shapes and names are its own."""
    pytest.importorskip("pyiqa", reason="the package pyiqa is optional")
    arch = pytest.importorskip(f"pyiqa.archs.{key}_arch")
    if key == "maniqa":
        pytest.skip("makes a network of 136 million parameters; a minute a frame")
    torch.manual_seed(0)
    torch.save(arch.MUSIQ(pretrained=False).state_dict(), weights_file(key))
    assert missing(key) is None
    judge = load_judge(key, CPU)
    x = torch.rand(1, 3, 96, 128)
    assert math.isfinite(judge(x)) and judge(x) != judge(1 - x)
