"""Pseudo-Target Generate, called as the host calls it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict

import pytest
import torch
from helpers.code_networks import moving, small_codeformer, track
from helpers.seeded_weights import seed_weights
from torch.testing import assert_close

from fvr import host
from fvr.faces.types import FaceClip
from fvr.finetune.dataset import Pairs
from fvr.methods.codeformer import CodeFormerRestorer
from fvr.methods.pseudo_target.algorithm import PRESETS
from fvr.methods.pseudo_target.dataset import read_png
from fvr.methods.pseudo_target.frame_selection import ChoiceOptions
from fvr.models.difface_unet import DifFaceConfig, DifFaceUNet
from fvr.nodes.pseudo_target import PseudoTargetGenerate, output_folder
from fvr.priors.image_ddpm import ImagePrior

FAST = {"preset": {"preset": "codeformer", "N": 4, "K": 60, "L": 20, "steps": 100, "scaled": False}}


@pytest.fixture(scope="module")
def parts():
    network = seed_weights(DifFaceUNet(DifFaceConfig(32, (1, 1), (1, 1), (), 32)), "small").requires_grad_(False)
    return {"restorer": CodeFormerRestorer(small_codeformer()), "prior": ImagePrior(network, native_size=32)}


@pytest.fixture
def place(tmp_path):
    with host.workspace(input=tmp_path, output=tmp_path / "out", temp=tmp_path / "temp"):
        yield tmp_path


def frames(count: int = 4) -> torch.Tensor:
    return moving(count, side=64).permute(0, 2, 3, 1).contiguous()


def run(parts, **inputs):
    with torch.inference_mode():
        return PseudoTargetGenerate.execute(**parts, **{**FAST, **inputs})


def test_frames_become_pairs_for_fine_tuning(parts, place):
    shown = frames()
    before = shown.clone()
    out = run(parts, frames=shown, selection={"selection": "every", "every": 1, "least": 0.5})
    targets, inputs, initial, report = out.result
    assert torch.equal(shown, before) and torch.equal(inputs, shown)
    assert targets.shape == initial.shape == (4, 512, 512, 3) and targets.min() >= 0 and targets.max() <= 1
    expected = parts["restorer"].open()
    assert_close(initial.permute(0, 3, 1, 2), torch.cat([expected.push(moving(4, side=64)), expected.close()]), atol=1e-5, rtol=0)
    assert (targets - initial).abs().mean() > 0.005
    assert report.startswith("4 of 4 faces chosen. codeformer, then 6 diffusion steps at 32 x 32")
    assert len(out.ui["images"]) == 1 and out.ui["text"] == (report,)
    (info,) = json.loads(json.dumps(out.ui["report"], allow_nan=False))
    assert (info["candidates"], info["near_duplicates"], info["poor"], info["found"], info["folder"]) == (4, 0, 0, 0, None)
    assert [(pair["source"], pair["frame"]) for pair in info["pairs"]] == [("frames", i) for i in range(4)] and info["options"]["K"] == 60
    moved = sum(pair["drift"] for pair in info["pairs"]) / 4
    assert info["restorer"] == "codeformer" and f"low frequencies moved by {100 * moved:.2f} % of the range" in report
    assert len(Pairs.of_images(inputs.permute(0, 3, 1, 2), targets.permute(0, 3, 1, 2), 64)) == 4
    again = run(parts, frames=shown, selection={"selection": "every", "every": 1, "least": 0.5}).result
    assert torch.equal(again[0], targets)
    assert not torch.equal(run(parts, frames=shown[:1], seed=1).result[0], targets[:1])


def test_faces_of_two_people_with_near_duplicates(parts, place):
    crops = moving(3, side=64)
    clips = [FaceClip(track(0, n=4), torch.cat([crops[:1], crops])), FaceClip(track(1, start=5, n=2), crops[:2].flip(-1))]
    targets, inputs, _, report = run(parts, faces=clips, selection={"selection": "diverse", "least": 0.5, "poor": 0.0}, count=0).result
    assert len(targets) == len(inputs) == 5
    assert "5 of 6 faces chosen (1 near-duplicate left out)." in report
    few = run(parts, faces=clips, selection={"selection": "diverse"}, count=2).result[0]
    assert len(few) == 2


def test_a_folder_goes_on_and_feeds_the_fine_tuning(parts, place):
    widgets = {"selection": {"selection": "every", "every": 1, "least": 0.5}, "folder": "pairs/phone"}
    assert PseudoTargetGenerate.fingerprint_inputs(folder="pairs/phone") is None
    first = run(parts, frames=frames(2), **widgets)
    changed = PseudoTargetGenerate.fingerprint_inputs(folder="pairs/phone", seed=0)
    grown = run(parts, frames=frames(4), **widgets)
    targets, inputs, initial, report = grown.result
    assert grown.ui["report"][0]["found"] == 2 and grown.ui["report"][0]["folder"] == str(place / "out" / "pairs" / "phone")
    assert "2 were in the folder already. 4 pairs lie in" in report and PseudoTargetGenerate.fingerprint_inputs(folder="pairs/phone") != changed
    assert torch.equal(targets[:2], first.result[0])
    folder = place / "out" / "pairs" / "phone"
    for name, batch in (("targets", targets), ("inputs", inputs), ("initial", initial)):
        assert [path.name for path in sorted((folder / name).iterdir())] == [f"{i:06}.png" for i in range(4)]
        assert torch.equal(read_png(folder / name / "000003.png"), batch[3].permute(2, 0, 1))
    lines = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2, 3] and len({line["parameters"] for line in lines}) == 1
    assert len(Pairs.of_folder(folder, 64)) == 4
    with pytest.raises(ValueError, match=r"begun with other parameters \(seed 0, now 1\)"):
        run(parts, frames=frames(2), seed=1, **widgets)


CHOSEN = {"preset": {"preset": "codeformer"}, "selection": {"selection": "every"}}


@pytest.mark.parametrize("name", ["../elsewhere", "/tmp/elsewhere", "a/../..", ".", "a/../"])
def test_a_folder_stays_below_the_output_folder(name, place):
    with pytest.raises(ValueError, match="leads out of"):
        output_folder(name)
    assert "leads out of" in PseudoTargetGenerate.validate_inputs(**CHOSEN, folder=name)
    assert PseudoTargetGenerate.fingerprint_inputs(folder=name) is None


def test_an_empty_name_is_no_folder(place):
    assert output_folder("  ") is None and PseudoTargetGenerate.validate_inputs(**CHOSEN, folder="", faces=None) is True
    assert PseudoTargetGenerate.validate_inputs(**CHOSEN, folder="a/b", faces=None) is True and not (place / "out").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"preset": {"preset": "embedded", "K": 200, "L": 240, "steps": 50}}, "so L must be below K, got K 200 and L 240"),
        ({"preset": {"preset": "embedded", "K": 400, "L": 399, "steps": 50}}, "one and the same of 50 steps"),
        ({"selection": {"selection": "diverse", "least": 300.0}}, "between 0 and 255 grey levels, got 300"),
    ],
)
def test_options_that_do_not_fit_together_are_said_before_any_work(changes, says, parts, place):
    """ComfyUI has checked each by itself."""
    with pytest.raises(ValueError, match=re.escape(says)):
        run(parts, frames=frames(1), **changes)


def test_frames_that_are_not_square_are_refused(parts, place):
    with pytest.raises(ValueError, match=r"got pictures of 128 x 64 pixels, but crops of aligned faces are square; cut them out with Face Align"):
        run(parts, frames=torch.rand(2, 64, 128, 3))


def test_a_folder_that_cannot_be_made_is_said_in_a_sentence(parts, place):
    (place / "out").mkdir()
    (place / "out" / "taken").write_bytes(b"x")
    for folder in ("taken", "taken/below"):
        with pytest.raises(ValueError, match=r"the folder .*taken.* cannot be made \(Not a directory\); choose another name as `folder`"):
            run(parts, frames=frames(1), folder=folder)
    assert (place / "out" / "taken").read_bytes() == b"x"


def test_a_stop_is_heard_and_keeps_what_was_written(parts, place):
    folder = {"folder": "stopped", "selection": {"selection": "every", "every": 1, "least": 0.5}}
    calls: list[int] = []
    network = parts["prior"].network

    def count(*_):
        calls.append(1)
        if len(calls) == 9:  # in the second face
            host.interrupt()

    hook = network.register_forward_hook(count)
    try:
        with pytest.raises(host.Interrupted):
            run(parts, frames=frames(3), **folder)
    finally:
        hook.remove()
        host.clear_interrupt()
    assert len(calls) == 9
    assert len((place / "out" / "stopped" / "pairs.jsonl").read_text().splitlines()) == 1
    assert "1 was in the folder already" in run(parts, frames=frames(3), **folder).result[3]


@pytest.mark.parametrize(
    ("inputs", "says"),
    [({}, "got neither"), ({"faces": []}, "got 0 faces and none of them can be used"), ({"faces": [], "frames": frames(1)}, "got both")],
)
def test_what_cannot_be_done_is_refused(parts, place, inputs, says):
    with pytest.raises(ValueError, match=says):
        run(parts, **inputs)


def test_widgets_start_at_the_presets_values():
    combos = {one.id: one.options for one in PseudoTargetGenerate.define_schema().inputs if one.id in ("preset", "selection")}
    shown = {name: {option.key: {widget.id: widget.default for widget in option.inputs} for option in options} for name, options in combos.items()}
    assert shown["preset"] == {name: asdict(preset) for name, preset in PRESETS.items()}
    start = ChoiceOptions()
    assert shown["selection"] == {
        "every": {"every": start.every, "least": start.least, "poor": start.poor},
        "diverse": {"least": start.least, "poor": start.poor},
    }
