"""Seed-Space MAP Optimize: with a pixel prior anywhere, with a MODEL and VAE inside ComfyUI."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.comfyui_process import in_comfyui, needs_comfyui
from helpers.tiny_seed_models import TinyUNet

from fvr.methods.seed_map.options import SeedMapOptions
from fvr.nodes.seed_map import WIDGETS, SeedMapOptimize, options_of, whole_operator
from fvr.physics import AveragePool, Blur, Jpeg, RandomInpaint

PROGRAM = (Path(__file__).parent / "seed_map_program.py").read_text(encoding="utf-8")
EXPECTED = {
    "frames": [[4, 64, 64, 3], True, False, "cpu"],
    "plot": [4, True],
    "losses fall": True,
    "warping": [6, None, True],
    "reported": ["Temporal blur over 3 frames (circular ends), average down x2", 0, 4, 4],
    "same seed, same pixels": True,
    "another seed": True,
    "same image after": True,
    "stopped": "InterruptProcessingException",
    "same image after stopping": True,
    "inference mode": True,
    "told before the first step": True,
    "course": [12, True],
    "prior": [True, 3, 0],
    "prior stopped": "InterruptProcessingException",
    "same prior after stopping": [True, True, False],
    "mask": [[4, 64, 64, 3], "No degradation, inpainting, 75% of the pixels known"],
    "raft": 0,
}
REFUSED = {
    "flow": "is a flow-matching model; choose another checkpoint",
    "half": "takes a model with its vae, or a prior, and got model; wire",
    "both": "got model and vae and prior",
    "nothing": "needs to know what damaged the frames; wire a degradation",
}


@pytest.fixture(scope="module")
def said() -> dict:
    return in_comfyui(PROGRAM)


@needs_comfyui
@pytest.mark.parametrize("what", EXPECTED)
def test_between_two_samplers_in_comfyui(what, said):
    assert said[what] == EXPECTED[what]


@needs_comfyui
@pytest.mark.parametrize("what", ["stopped after", "prior stopped after"])
def test_a_stop_is_heard_within_two_seconds(what, said):
    assert 0 <= said[what] < 2


@needs_comfyui
def test_time_and_memory_are_told_beforehand(said):
    assert "about" in said["expected"] and ("seconds" in said["expected"] or "minutes" in said["expected"]) and "MB" in said["expected"]


@needs_comfyui
@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_done_is_refused_in_a_sentence(what, said):
    assert REFUSED[what] in said["refused"][what]


def clip(count: int = 4) -> torch.Tensor:
    ramp = torch.linspace(0.2, 0.8, 32).expand(3, 32, 32)
    return torch.stack([ramp.roll(n, -1) for n in range(count)])


def run(operator, prior=None, **widgets):
    y = operator.observe(clip(), torch.Generator().manual_seed(0))
    with torch.inference_mode():
        out = SeedMapOptimize.execute(frames=y.permute(0, 2, 3, 1), degradation=operator, prior=prior or TinyUNet(), **widgets)
    return y, out.result


@pytest.mark.parametrize("operator", [AveragePool(2), RandomInpaint(0.5, 1), Jpeg(50) @ AveragePool(2)], ids=str)
def test_a_prior_alone_explains_the_frames_better_and_better(operator):
    _, (frames, plot, report) = run(operator, iterations=40, seed_rate=0.05, warp_start=0.8)
    said = json.loads(report)
    losses = said["terms"]["data"]
    assert losses[-1] < 0.5 * losses[0]
    assert frames.shape == (4, 32, 32, 3) and frames.min() >= 0 and frames.max() <= 1
    assert said["warped_from"] == 32 and said["terms"]["warp"][31] is None and said["terms"]["warp"][32] > 0
    assert len(plot) == 1 and plot.std() > 0.05


def test_networks_made_under_inference_mode_are_taken_too():
    with torch.inference_mode():
        prior = TinyUNet()
    assert prior.down.weight.is_inference()
    made = prior.down.weight
    _, (_, _, report) = run(AveragePool(2), prior, iterations=2)
    assert json.loads(report)["skipped_iterations"] == 0
    assert prior.down.weight is made


def textured(count: int = 3, side: int = 32) -> torch.Tensor:
    """Noise that moves, as sharp as can be and away from black and white, so that undoing a blur stays in range."""
    wide = 0.3 + 0.4 * torch.rand(1, 3, side + 8, side + 8, generator=torch.Generator().manual_seed(0))
    return torch.cat([wide[..., n : n + side, n : n + side] for n in range(count)])


@pytest.mark.parametrize(("described", "wrong"), [(Blur.gaussian(1), False), (Blur.gaussian(3), True)], ids=["right", "wrong"])
def test_a_wrong_operator_is_said(described, wrong):
    """Frames blurred by 1 pixel and described so are explained; described as blurred by 3 pixels they cannot be, and every frame is named."""
    frames = Blur.gaussian(1).forward(textured()).permute(0, 2, 3, 1)
    with torch.inference_mode():
        out = SeedMapOptimize.execute(
            frames=frames, degradation=described, prior=TinyUNet(), iterations=150, seed_rate=0.1, residual_rate=0.01, warp_weight=0.0
        )
    info, text = json.loads(out.result[2]), out.ui["text"][0]
    assert info["frames"]["unexplained"] == ([0, 1, 2] if wrong else [])
    assert ("the degradation is probably described wrongly" in text) is wrong


def test_what_nobody_saw_is_no_fault():
    """A mask that hides everything explains everything."""
    with torch.inference_mode():
        noise = torch.rand(3, 32, 32, 3, generator=torch.Generator().manual_seed(0))
        _, _, report = SeedMapOptimize.execute(frames=noise, mask=torch.ones(1, 32, 32), degradation=None, prior=TinyUNet(), iterations=2).result
    assert json.loads(report)["frames"]["unexplained"] == []


def test_the_size_of_a_prior_is_respected():
    with pytest.raises(ValueError, match="works on 64 x 64 frames, but the restored frames would be 32 x 32"):
        run(AveragePool(2), TinyUNet(native_size=64), iterations=1)


def test_masks_fit_the_frames():
    y = torch.rand(3, 3, 8, 8)
    with pytest.raises(ValueError, match="the mask has 2 frames and the clip 3"):
        whole_operator(None, torch.zeros(2, 8, 8), y)
    moving = torch.zeros(3, 8, 8)
    moving[1, :4] = 1
    hidden = whole_operator(None, moving, y).forward(y)
    assert (hidden[1, :, :4] == 0).all() and torch.equal(hidden[[0, 2]], y[[0, 2]]) and torch.equal(hidden[1, :, 4:], y[1, :, 4:])


@pytest.mark.parametrize(
    ("widgets", "sentence"),
    [
        ({"warp_start": -0.5}, r"warp_start must lie between 0 and 1 \(or -1: when the flow settles\), got -0.5"),
        ({"residual_init": 0.0}, r"residual_init must lie between 0.0001 and 10 \(or -1: by the operator\), got 0"),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_the_widgets(widgets, sentence):
    with pytest.raises(ValueError, match=sentence):
        run(AveragePool(2), iterations=1, **widgets)


def test_every_option_is_a_widget_that_starts_at_its_default():
    from dataclasses import asdict

    from fvr.nodes.widgets import widgets

    values = {declared.id: declared.default for declared in widgets(SeedMapOptions(), *WIDGETS)}
    assert set(values) == set(asdict(SeedMapOptions())) and options_of(values) == SeedMapOptions()
