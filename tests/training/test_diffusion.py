"""The face prior's two stages on faces and a network that take seconds."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import SHORT, SIDE, draw_faces, faces_of

from fvr.models.embedded import SIZES
from fvr.models.flair.bicubic import BicubicConfig
from fvr.models.flair.temporal import split_parameters
from fvr.training import command
from fvr.training.degrade import NATIVE_128
from fvr.training.diffusion import ImageStage, PriorRecipe, VideoStage, network_of, stages_of, thinning
from fvr.training.loop import Run, generator_for, train

SIZES_64 = BicubicConfig(side=SIDE, channels=32, multipliers=(1, 1), res_blocks=1, attention=frozenset({1}), recurrence=frozenset(), head=32)
TINY = PriorRecipe("tiny prior", SIZES_64, replace(SHORT, batch=2), SHORT, frames=3, blind=NATIVE_128.at(SIDE), levels="angle", weighting="v")
CPU = torch.device("cpu")


def stages(folder: Path, recipe: PriorRecipe = TINY) -> tuple[ImageStage, VideoStage]:
    image, video = stages_of(recipe, *faces_of(folder), CPU)
    assert isinstance(image, ImageStage) and isinstance(video, VideoStage)
    return image, video


def test_each_stage_trains_its_own_layers_only(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = network_of(TINY)
    spatial, temporal, _ = split_parameters(network)
    before = {name: value.clone() for name, value in network.named_parameters()}
    train(network, list(stages(tmp_path / "faces")), Run(tmp_path / "work", bfloat16=False, validate_every=0), TINY.name)
    after_image = torch.load(tmp_path / "work" / "state.pt", weights_only=True) if (tmp_path / "work" / "state.pt").exists() else None
    assert after_image is None or after_image["stage"] == "video"
    now = dict(network.named_parameters())
    assert any(not torch.equal(now[name], before[name]) for name in spatial)
    assert any(not torch.equal(now[name], before[name]) for name in temporal)
    from safetensors.torch import load_file

    image, video = (load_file(tmp_path / "work" / f"{name}.safetensors") for name in ("image", "video"))
    assert all(torch.equal(image[name], before[name]) for name in temporal)
    assert all(torch.equal(image[name], video[name]) for name in spatial)


def test_the_loss_is_eq_6_weighted_as_the_recipe_says(tmp_path: Path) -> None:
    """A network that always says 0 errs by the noise itself: 1 per value, over abar with the weights of v."""
    image, _ = stages(tmp_path)
    batch = image.batch(0, generator_for(0))
    nothing = lambda noisy, condition, level, **others: torch.zeros_like(noisy)  # noqa: E731
    power = batch["noise"].square().mean((1, 2, 3))
    weighted = image.denoising(nothing, batch, 1, False)["noise"]  # type: ignore[arg-type]
    assert torch.allclose(weighted, (power * batch["level"].pow(-2).clamp_max(50)).mean())
    plain = ImageStage(replace(TINY, weighting="eps"), image.faces, image.held_out, CPU)
    assert torch.allclose(plain.denoising(nothing, batch, 1, False)["noise"], power.mean())  # type: ignore[arg-type]


def test_noisy_faces_are_samples_of_q(tmp_path: Path) -> None:
    image, video = stages(tmp_path)
    for stage, clips in ((image, 2), (video, 1)):
        batch = stage.batch(3, generator_for(1))
        level = batch["level"][:, None, None, None]
        clean = (batch["noisy"] - (1 - level**2).sqrt() * batch["noise"]) / level
        assert clean.abs().max() < 1 + 1e-3 and clean.std() > 0.05
        assert len(batch["level"].unique()) <= clips
        assert bool((batch["level"] >= math.cos(math.radians(87)) - 1e-4).all())


def test_conditions_are_dropped_and_thinned_as_often_as_asked(tmp_path: Path) -> None:
    always = stages(tmp_path, replace(TINY, dropped=1.0))[0]
    assert bool((always.batch(0, generator_for(0))["condition"] == 0).all())
    never = stages(tmp_path, replace(TINY, dropped=0.0, masked=0.0))[0]
    masked = stages(tmp_path, replace(TINY, dropped=0.0, masked=1.0))[0]
    kept, thin = (stage.batch(0, generator_for(0))["condition"] for stage in (never, masked))
    assert bool((thin.abs() <= kept.abs() + 1e-6).all()) and (thin.abs() < 0.9 * kept.abs()).float().mean() > 0.05
    weights = torch.stack([thinning(64, generator_for(i)) for i in range(50)])
    assert 0.22 < (weights < 1).float().mean() < 0.38


def test_the_command_writes_a_prior_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import safe_open

    from fvr.methods.face_prior import PyramidPrior
    from fvr.methods.prior_files import prior_from_file

    monkeypatch.setitem(command.RECIPES, "prior", {"small": TINY})
    draw_faces(tmp_path / "faces")
    out = tmp_path / "prior.safetensors"
    monkeypatch.setattr(
        "sys.argv", ["train", "prior", "--faces", str(tmp_path / "faces"), "--out", str(out), "--device", "cpu", "--precision", "float32"]
    )
    assert command.main() == 0
    with safe_open(out, "pt") as file:
        assert json.loads(file.metadata()[SIZES])["side"] == SIDE
    prior = prior_from_file(out)
    assert isinstance(prior, PyramidPrior) and prior.coarse.network.config == SIZES_64
    assert "diffusion prior" in out.with_suffix(".md").read_text()


def test_degradations_must_fit_the_network() -> None:
    with pytest.raises(ValueError, match="128 pixels and the network for 64"):
        replace(TINY, blind=NATIVE_128)
