"""The face prior's two stages on faces and a network that take seconds."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.tiny_codebook import SHORT, SIDE, draw_faces, faces_of
from safetensors.torch import load_file

from fvr.cli import main
from fvr.diffusion.schedule import linear_schedule
from fvr.models.embedded import SIZES
from fvr.models.flair.bicubic import BicubicConfig, BicubicUNet
from fvr.models.flair.blur import BlurConfig
from fvr.models.flair.residual import ResBlock
from fvr.models.flair.spynet import SPyNet
from fvr.models.flair.temporal import split_parameters
from fvr.training import cli, prior
from fvr.training.data.degradations import BENCHMARK, NATIVE_128, Deblurring, KnownDegradation
from fvr.training.data.faces import Faces
from fvr.training.data.synthetic_motion import Clips
from fvr.training.engine import STATE, Run, Stopped, generator_for, train
from fvr.training.flow_weights import load_spynet
from fvr.training.prior import ImagePriorStage, PriorRecipe, VideoPriorStage, random_weight_mask, stages_of

SIZES_64 = BicubicConfig(side=SIDE, channels=32, multipliers=(1, 1), res_blocks=1, attention=frozenset({1}), recurrence=frozenset(), head=32)
TINY = PriorRecipe("tiny prior", SIZES_64, replace(SHORT, batch=2), SHORT, frames=3, blind=NATIVE_128.at(SIDE), levels="angle", weighting="v")
CPU = torch.device("cpu")


def stages(folder: Path, recipe: PriorRecipe = TINY) -> tuple[ImagePriorStage, VideoPriorStage]:
    image, video = stages_of(recipe, *faces_of(folder), CPU)
    assert isinstance(image, ImagePriorStage) and isinstance(video, VideoPriorStage)
    return image, video


@pytest.fixture
def quick_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """One judged degradation instead of three."""
    monkeypatch.setattr(prior, "BENCHMARK", {"x8 bicubic": BENCHMARK["x8 bicubic"]})


@pytest.mark.usefixtures("quick_validation")
def test_each_stage_trains_its_own_layers_only(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = TINY.sizes.network()
    spatial, temporal, _ = split_parameters(network)
    before = {name: value.clone() for name, value in network.named_parameters()}
    train(network, list(stages(tmp_path / "faces")), Run(tmp_path / "work", precision=None, validate_every=0), TINY.name)
    state = torch.load(tmp_path / "work" / STATE, weights_only=True)
    assert (state["stage"], state["step"]) == ("video", TINY.video.steps)
    now = dict(network.named_parameters())
    assert any(not torch.equal(now[name], before[name]) for name in spatial)
    assert any(not torch.equal(now[name], before[name]) for name in temporal)
    image, video = (load_file(tmp_path / "work" / f"{name}.safetensors") for name in ("image", "video"))
    assert all(torch.equal(image[name], before[name]) for name in temporal)
    assert all(torch.equal(image[name], video[name]) for name in spatial)


def test_the_loss_is_eq_6_weighted_as_the_recipe_says(tmp_path: Path) -> None:
    """A network that always says 0 errs by the noise itself: 1 per value, over alpha_bar with the weights of v."""
    image, _ = stages(tmp_path)
    batch = image.batch(0, generator_for(0))
    nothing = lambda noisy, condition, level, **others: torch.zeros_like(noisy)  # noqa: E731
    power = batch["noise"].square().mean((1, 2, 3))
    weighted = image.denoising(nothing, batch, 1, False)["noise"]  # type: ignore[arg-type]
    assert torch.allclose(weighted, (power * batch["level"].pow(-2).clamp_max(50)).mean())
    plain = ImagePriorStage(replace(TINY, weighting="eps"), image.faces, image.held_out, CPU)
    assert torch.allclose(plain.denoising(nothing, batch, 1, False)["noise"], power.mean())  # type: ignore[arg-type]


def test_noisy_faces_are_samples_of_the_forward_process(tmp_path: Path) -> None:
    image, video = stages(tmp_path)
    for stage, clips in ((image, 2), (video, 1)):
        batch = stage.batch(3, generator_for(1))
        level = batch["level"][:, None, None, None]
        clean = (batch["noisy"] - (1 - level**2).sqrt() * batch["noise"]) / level
        assert clean.abs().max() < 1 + 1e-3 and clean.std() > 0.05
        assert len(batch["level"].unique()) <= clips
        assert bool((batch["level"] >= math.cos(math.radians(87)) - 1e-4).all())


def test_conditions_are_dropped_and_masked_with_the_given_probabilities(tmp_path: Path) -> None:
    always = stages(tmp_path, replace(TINY, dropped=1.0))[0]
    assert bool((always.batch(0, generator_for(0))["condition"] == 0).all())
    never = stages(tmp_path, replace(TINY, dropped=0.0, masked=0.0))[0]
    masked = stages(tmp_path, replace(TINY, dropped=0.0, masked=1.0))[0]
    kept, thin = (stage.batch(0, generator_for(0))["condition"] for stage in (never, masked))
    assert bool((thin.abs() <= kept.abs() + 1e-6).all()) and (thin.abs() < 0.9 * kept.abs()).float().mean() > 0.05
    weights = torch.stack([random_weight_mask(64, generator_for(i)) for i in range(50)])
    assert 0.22 < (weights < 1).float().mean() < 0.38


@pytest.mark.usefixtures("quick_validation")
def test_the_command_writes_a_prior_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import safe_open

    from fvr.priors.load import prior_from_file
    from fvr.priors.pyramid import PyramidPrior

    monkeypatch.setitem(cli.RECIPES, "prior", {"small": TINY})
    draw_faces(tmp_path / "faces")
    out = tmp_path / "prior.safetensors"
    assert main(["train", "prior", "--faces", str(tmp_path / "faces"), "--out", str(out), "--device", "cpu", "--precision", "float32"]) == 0
    with safe_open(out, "pt") as file:
        assert json.loads(file.metadata()[SIZES])["side"] == SIDE
    prior = prior_from_file(out)
    assert isinstance(prior, PyramidPrior) and prior.coarse.network.config == SIZES_64
    assert "diffusion prior" in out.with_suffix(".md").read_text()


@pytest.mark.parametrize("task", prior.TASKS)
def test_the_published_recipes_are_table_11(task: str) -> None:
    """2 M samples in batches of 64 and 0.3 M in batches of 4; EMA 0.9999 and none; weight decay 0.05 in both; dropout 0.2 (A.1)."""
    recipe = prior.paper(task)
    image, video = recipe.image, recipe.video
    assert (image.steps, image.batch, image.rate, image.final_rate, image.ema, image.decay) == (31_250, 64, 1.5e-4, 1.5e-4, 0.9999, 0.05)
    assert (video.steps, video.batch, video.rate, video.final_rate, video.ema, video.decay) == (75_000, 4, 1e-4, 1e-4, 0.0, 0.05)
    assert (recipe.frames, recipe.dropout, recipe.dropped, recipe.levels, recipe.weighting) == (10, 0.2, 0.2, "schedule", "eps")
    assert isinstance(recipe.sizes, BicubicConfig if task.startswith("x") else BlurConfig) and recipe.video_blind is not None
    if isinstance(recipe.blind, KnownDegradation):
        assert recipe.blind.text == "bicubic(factor=8)" and recipe.video_blind.text == f"bicubic(factor={task[1:]})"
    else:
        assert recipe.blind.motion == 0.5 and recipe.blind.quality == ((60, 100) if task == "jpeg" else None)
        assert isinstance(recipe.video_blind, Deblurring) and recipe.video_blind.motion == {"gaussian": 0, "motion": 1, "jpeg": 0.5}[task]


@pytest.mark.usefixtures("quick_validation")
def test_the_blur_network_trains_in_both_stages(tmp_path: Path) -> None:
    """It is told the step of the linear schedule; dropout acts on the image network only while that learns; the last weights are kept."""
    sizes = BlurConfig(side=SIDE, channels=32, multipliers=(1, 1), res_blocks=1, attention=frozenset({1}), recurrence=frozenset(), head=32)
    plans = (replace(SHORT, steps=2, ema=0.0, decay=0.05) for _ in range(2))
    recipe = PriorRecipe("tiny blur", sizes, *plans, frames=3, blind=Deblurring(SIDE), video_blind=Deblurring(SIDE, quality=(60, 100)), dropout=0.2)
    image, video = stages(tmp_path, recipe)
    table = linear_schedule().alphas_cumprod.sqrt().float()
    assert image.level_input(table[[3, 700, 999]]).tolist() == [3, 700, 999]
    assert 0.0 < image.batch(0, generator_for(0))["condition"].diff(dim=-1).eq(0).float().mean() < 1  # pixels are repeated 4 x 4
    network = recipe.sizes.network()
    before = {name: value.clone() for name, value in network.named_parameters()}
    image.start(network, {})
    assert {module.dropout for module in network.modules() if isinstance(module, ResBlock)} == {0.0, 0.2}
    train(network, [image, video], Run(tmp_path / "work", precision=None, validate_every=0), recipe.name)
    assert {module.dropout for module in network.modules() if isinstance(module, ResBlock)} == {0.0}
    spatial, temporal, _ = split_parameters(network)
    now = load_file(tmp_path / "work" / "video.safetensors")
    for names in (spatial, temporal):
        assert any(not torch.equal(now[name], before[name]) for name in names)
    assert all(torch.equal(now[name], value) for name, value in network.state_dict().items())


def test_a_task_is_one_of_the_papers(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)

    def asked(network: str, *words: str) -> argparse.Namespace:
        return parser.parse_args([network, "--faces", str(tmp_path), "--out", str(tmp_path / "x.safetensors"), *words])

    with pytest.raises(ValueError, match="FLAIR was trained for x4, x8, x16, gaussian, motion, jpeg, got 'x2'"):
        cli.run(asked("prior", "--recipe", "paper", "--task", "x2"))
    with pytest.raises(ValueError, match="add --recipe paper"):
        cli.run(asked("prior", "--task", "jpeg"))
    with pytest.raises(ValueError, match="--task is for prior, codebook, dicface"):
        cli.run(asked("keep", "--task", "inpaint"))
    with pytest.raises(ValueError, match="the codebook's one --task is keep, with --recipe paper"):
        cli.run(asked("codebook", "--task", "keep"))
    with pytest.raises(ValueError, match="DicFace learns to restore, colourise, inpaint, got --task deblur"):
        cli.run(asked("dicface", "--task", "deblur"))


FLOWING = replace(
    TINY, name="flowing", sizes=replace(SIZES_64, recurrence=frozenset({1})), image=replace(SHORT, steps=2), video=replace(SHORT, steps=2)
)
"""With the recurrence of the published network: features carried along SPyNet's flow, here at one level."""


def spynet_file(folder: Path, names: str = "mmagic") -> tuple[Path, SPyNet]:
    """A SPyNet that says something, and its file: as MMagic and BasicSR name its tensors, or inside another network."""
    torch.manual_seed(5)
    spynet = SPyNet()
    state = {key: value.clone() for key, value in spynet.state_dict().items()}
    weights = {key: value for key, value in state.items() if key not in ("mean", "std")}
    path = folder / f"{names}.pth"
    if names == "mmagic":
        torch.save(weights, path)
    elif names == "basicsr":
        numbered = {re.sub(r"(\d)\.conv", lambda found: str(2 * int(found[1])), key): value for key, value in weights.items()}
        torch.save({"params": numbered}, path)
    else:
        layers = {f"downs.{layer}.vsrpp.wrapped_module.spynet.{key}": value for layer in (1, 3) for key, value in state.items()}
        torch.save({**layers, "final_conv.weight": torch.zeros(3)}, path)
    return path, spynet


def flows_of(spynet: SPyNet) -> torch.Tensor:
    frames = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return spynet(frames[0], frames[1])


@pytest.mark.parametrize("names", ["mmagic", "basicsr", "inside"])
def test_spynet_weights_are_shared_by_every_layer(tmp_path: Path, names: str) -> None:
    path, spynet = spynet_file(tmp_path, names)
    network = FLOWING.sizes.network()
    load_spynet(network, path)
    inside = [module for name, module in network.named_modules(remove_duplicate=False) if name.endswith(".spynet")]
    assert len(inside) == 3 and all(torch.equal(flows_of(module), flows_of(spynet)) for module in inside)


def test_a_file_without_spynet_is_refused(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other.pth holds 1 tensors .* give https://\S+spynet_20210409"):
        load_spynet(FLOWING.sizes.network(), tmp_path / "other.pth")


@pytest.mark.usefixtures("quick_validation")
@pytest.mark.usefixtures("quick_validation")
def test_two_stages_with_flow_propagation_train_resume_and_load(tmp_path: Path) -> None:
    path, spynet = spynet_file(tmp_path)

    def run(folder: str, stop_at: tuple[str, int] | None = None) -> BicubicUNet:
        torch.manual_seed(0)
        network = FLOWING.sizes.network()
        load_spynet(network, path)

        def tick(stage: str, done: int, steps: int, losses: dict) -> None:
            if (stage, done) == stop_at:
                os.kill(os.getpid(), signal.SIGINT)

        settings = Run(tmp_path / folder, precision=None, validate_every=0, save_every=1)
        two = [Faces(draw_faces(tmp_path / "faces", 1), split, SIDE) for split in ("train", "val")]
        found = train(network, stages_of(FLOWING, *two, CPU), settings, FLOWING.name, tick)
        assert isinstance(found, BicubicUNet)
        return found

    whole = run("whole")
    for at in (("image", 1), ("video", 1)):
        with pytest.raises(Stopped):
            run("parts", at)
    parts = run("parts")
    expected = whole.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in parts.state_dict().items())
    image, video = (load_file(tmp_path / "whole" / f"{name}.safetensors") for name in ("image", "video"))
    carried = "downs.3.vsrpp.wrapped_module.conv_last.weight"
    assert not torch.equal(image[carried], video[carried])
    again = BicubicUNet(FLOWING.sizes)
    again.load_state_dict(video)
    found = next(module for module in again.modules() if isinstance(module, SPyNet))
    assert torch.equal(flows_of(found), flows_of(spynet))  # never trained


def test_feature_propagation_uses_the_flow_of_the_condition(tmp_path: Path) -> None:
    """The loss of a clip depends on SPyNet's weights once the carried features count; in bfloat16 too, in which flow stays float32."""
    path, _ = spynet_file(tmp_path)
    torch.manual_seed(0)
    network = FLOWING.sizes.network()
    for name, parameter in network.named_parameters():
        if "conv_last" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    _, video = stages(tmp_path / "faces", FLOWING)
    batch = video.batch(0, generator_for(0))
    seen = []
    next(module for module in network.modules() if isinstance(module, SPyNet)).register_forward_hook(
        lambda module, given, flow: seen.append(flow.dtype)
    )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = video.losses(network, batch, 0, generator_for(0))["noise"]
        load_spynet(network, path)
        after = video.losses(network, batch, 0, generator_for(0))["noise"]
    assert before != after and set(seen) == {torch.float32} and len(seen) == 2 * 2 * 2  # runs, pairs, directions


def test_half_of_the_videos_clips_are_the_users(tmp_path: Path) -> None:
    for index in range(5):
        (tmp_path / "clips" / "anna").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "clips" / "anna" / f"{index}.png"), np.full((SIDE, SIDE, 3), 128, np.uint8))
    clips = Clips(tmp_path / "clips", SIDE, TINY.frames)
    _, video = stages_of(TINY, *faces_of(tmp_path / "faces"), CPU, clips)
    grey = 0
    for seed in range(20):
        batch = video.batch(0, generator_for(seed))
        level = batch["level"][:, None, None, None]
        clean = (batch["noisy"] - (1 - level**2).sqrt() * batch["noise"]) / level
        grey += bool(clean.std() < 1e-3)
    assert 4 <= grey <= 16


@pytest.mark.usefixtures("quick_validation")
def test_the_command_asks_for_spynet_and_writes_a_prior_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fvr.priors.load import prior_from_file
    from fvr.priors.pyramid import PyramidPrior

    path, spynet = spynet_file(tmp_path)
    short = replace(SHORT, steps=1)
    monkeypatch.setitem(cli.RECIPES, "prior", {"paper": replace(FLOWING, image=short, video=short), "small": TINY})
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    out = tmp_path / "prior.safetensors"
    common = ["--faces", str(draw_faces(tmp_path / "faces", 1)), "--out", str(out), "--device", "cpu", "--precision", "float32"]
    with pytest.raises(ValueError, match=r"flowing carries features along the flow of SPyNet, .* give --spynet the file https://"):
        cli.run(parser.parse_args(["prior", *common, "--recipe", "paper"]))
    assert not (tmp_path / "prior-training").exists()
    for network, said in (("prior", "tiny prior does not; leave it out"), ("codebook", "--spynet is for prior")):
        with pytest.raises(ValueError, match=said):
            cli.run(parser.parse_args([network, *common, "--spynet", str(path)]))
    assert cli.run(parser.parse_args(["prior", *common, "--recipe", "paper", "--spynet", str(path)])) == 0
    prior = prior_from_file(out)
    assert isinstance(prior, PyramidPrior)
    found = next(module for module in prior.coarse.network.modules() if isinstance(module, SPyNet))
    assert torch.allclose(flows_of(found), flows_of(spynet), atol=0.02)
    card = out.with_suffix(".md").read_text()
    assert "--spynet mmagic.pth" in card and "The licences of mmagic.pth hold for it too" in card
