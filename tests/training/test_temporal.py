"""KEEP's and DicFace's temporal parts on a tiny codebook network."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.tiny_codebook import SIDE, TINY, draw_faces, faces_of
from safetensors.torch import load_file
from torch.distributions import Dirichlet, kl_divergence

from fvr.colour import luma
from fvr.models.checkpoints.load import load_network
from fvr.models.checkpoints.state_dict import notes_of
from fvr.models.code_prediction import CodeConfig
from fvr.models.codeformer.network import CodeFormer
from fvr.models.dicface.network import DicFace, dirichlet_mean
from fvr.models.embedded import BASE
from fvr.models.keep.network import KEEP, KeepConfig
from fvr.training import cli
from fvr.training.card import OWN_LICENCE
from fvr.training.codebook import clean_encoder
from fvr.training.data.faces import Faces
from fvr.training.dicface import DICFACE_SMALL, LOGIT_SCALE, TASKS_SMALL, DicFaceStage, dicface_on, for_task, gamma_sample
from fvr.training.engine import Run, generator_for, train
from fvr.training.keep import KEEP_SMALL, KeepStage, keep_config, keep_on
from fvr.training.plan import Plan

CPU = torch.device("cpu")
PLAN = Plan(2, 1, 1e-3, 1e-4, ema=0.5)
KEEP_TINY = replace(KEEP_SMALL, plan=PLAN, blind=TINY.blind, frames=3)
DICFACE_TINY = replace(DICFACE_SMALL, plan=PLAN, blind=TINY.blind, frames=3)


@pytest.fixture(scope="module")
def base(codebook_folder: Path) -> CodeFormer:
    return CodeFormer.of(load_file(codebook_folder / "work" / "joint.safetensors")).requires_grad_(False)


def stage_of(kind: type, recipe, base: CodeFormer, folder: Path):
    faces, held_out = faces_of(folder / "faces")
    return kind(recipe, base, faces, held_out, CPU, clean_encoder(base, folder / "work" / "autoencoder.safetensors"))


def clip(frames: int) -> torch.Tensor:
    return torch.rand(frames, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_keep_starts_as_its_base_and_trains_only_its_own_layers(codebook_folder: Path, base: CodeFormer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, stage = keep_on(base), stage_of(KeepStage, KEEP_TINY, base, codebook_folder)
    stage.start(network, {})
    stage.initialise(network, generator_for(0))
    with torch.no_grad():
        first = stage.restored(network, clip(1))
        assert torch.allclose(first, base(clip(1), 1.0, match=False), atol=1e-4)
        latent, features = network.encode(clip(2))
        codes = network.quantize.lookup(network.predict_codes(latent))
        plain, cross = network.decode(codes, features)
        fused, _ = network.decode(codes, features, cross)
        assert torch.allclose(plain, fused, atol=1e-5)  # fusion adds nothing yet
    before = {key: value.clone() for key, value in network.state_dict().items()}
    trained = train(network, [stage], Run(tmp_path, precision=None, validate_every=0), "keep")
    moved = {key.split(".")[0] for key, value in trained.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"kalman_filter", "cross_fuse"}
    assert "dB over the base, frame by frame" in (tmp_path / "temporal.json").read_text()


def test_keeps_gains_learn_to_trust_a_correct_past(codebook_folder: Path, base: CodeFormer) -> None:
    """The present is noise and the past is clean: the weight of the prediction rises."""
    torch.manual_seed(0)
    network, stage = keep_on(base), stage_of(KeepStage, replace(KEEP_TINY, pixels=0.0, warping=0.0), base, codebook_folder)
    stage.start(network, {})
    stage.initialise(network, generator_for(0))
    target = stage.batch(0, generator_for(0))["target"][:, :1].expand(-1, 3, -1, -1, -1)
    source = target.clone()
    source[:, 1:] = torch.randn(source[:, 1:].shape, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 3e-3)

    def gain() -> float:
        with torch.no_grad():
            return network.kalman_filter(network.encode(source[0])[0][None])[0][:, 1:].mean().item()

    before = gain()
    for step in range(12):
        optimiser.zero_grad()
        terms = stage.losses(network, {"source": source, "target": target}, step, generator_for(step))
        terms["features"].backward()
        optimiser.step()
    assert gain() > before + 0.02


def test_dicface_starts_as_its_base_with_scaled_logits(codebook_folder: Path, base: CodeFormer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, stage = dicface_on(base, 3), stage_of(DicFaceStage, DICFACE_TINY, base, codebook_folder)
    stage.start(network, {})
    stage.initialise(network, generator_for(0))
    with torch.no_grad():
        latent, _ = network.encode(clip(3))
        assert torch.allclose(latent, base.encode(clip(3))[0], atol=1e-5)
        alpha = network.alpha(network.tokens(latent)[None])[0]
        wanted = torch.nn.functional.softplus(LOGIT_SCALE * base.logits(latent)) + 0.01
        assert torch.allclose(alpha, wanted, rtol=1e-3, atol=1e-4)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    trained = train(network, [stage], Run(tmp_path, precision=None, validate_every=0), "dicface")
    moved = {key.split(".")[0] for key, value in trained.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"position_emb_temporal", "multiscale", "dir_dist_layers", "idx_pred_layer"}
    assert isinstance(DicFace.of(trained.state_dict()), DicFace)


def test_dicfaces_loss_is_eq_9(codebook_folder: Path, base: CodeFormer) -> None:
    """L1 of what one draw of the weights decodes to (eq. 10), and the KL to the recipe's prior (eq. 8) with its weight."""
    torch.manual_seed(0)
    recipe = replace(DICFACE_TINY, sampled=True, divergence=0.5, prior=0.3, pixels=1.0, codes=0.0, anchored=False)
    network, stage = dicface_on(base, 3), stage_of(DicFaceStage, recipe, base, codebook_folder)
    stage.start(network, {})
    stage.initialise(network, generator_for(0))
    batch = stage.batch(0, generator_for(1))
    with torch.no_grad():
        terms = stage.losses(network, batch, 0, generator_for(2))
        latent, features = network.encode(batch["source"][0])
        alpha = network.alpha(network.tokens(latent)[None])[:, 1]
        drawn = dirichlet_mean(gamma_sample(alpha, generator_for(2)))
        picture = network.decode(drawn, {side: value[1:2] for side, value in features.items()})
    assert terms.keys() == {"pixels", "divergence"}
    torch.testing.assert_close(terms["pixels"], (picture - batch["target"][:, 1]).abs().mean(), rtol=1e-4, atol=1e-5)
    prior = Dirichlet(torch.full_like(alpha, 0.3))
    torch.testing.assert_close(terms["divergence"], 0.5 * kl_divergence(Dirichlet(alpha), prior).mean(), rtol=1e-4, atol=1e-4)


def test_dicface_samples_code_weights_and_has_the_kl_to_the_prior(codebook_folder: Path, base: CodeFormer) -> None:
    torch.manual_seed(0)
    recipe = replace(DICFACE_TINY, sampled=True, divergence=1.0, pixels=0.0, codes=0.0)
    network, stage = dicface_on(base, 3), stage_of(DicFaceStage, recipe, base, codebook_folder)
    stage.start(network, {})
    stage.initialise(network, generator_for(0))
    batch = stage.batch(0, generator_for(1))
    assert batch["source"].shape == (1, 3, 3, SIDE, SIDE)
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 1e-2)
    values = []
    for step in range(6):
        optimiser.zero_grad()
        loss = stage.losses(network, batch, step, generator_for(step))["divergence"]
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert values[-1] < 0.7 * values[0]
    mean = dirichlet_mean(network.alpha(network.tokens(network.encode(batch["source"][0])[0])[None]))
    assert torch.allclose(mean.sum(-1), torch.ones(()), atol=1e-5)


def test_keep_without_gmflow_stores_no_flow_weights(base: CodeFormer) -> None:
    network = keep_on(base)
    assert isinstance(network, KEEP) and not any(key.startswith("flownet") for key in network.state_dict())


def test_keep_of_published_sizes_without_gmflow_has_no_flow_network() -> None:
    """Its GMFlow would be a random one, exported and then used."""
    assert keep_config(CodeConfig()) == replace(KeepConfig(), flow_network=False)


@pytest.mark.parametrize("kind", [KeepStage, DicFaceStage])
def test_two_faces_are_enough_to_validate(kind: type, codebook_folder: Path, base: CodeFormer, tmp_path: Path) -> None:
    recipe = KEEP_TINY if kind is KeepStage else DICFACE_TINY
    draw_faces(tmp_path, 2)
    network = keep_on(base) if kind is KeepStage else dicface_on(base, 3)
    stage = stage_of(kind, recipe, base, codebook_folder)
    stage.held_out = Faces(tmp_path, "val", SIDE)
    stage.start(network, {})
    stage.initialise(network, generator_for(0))
    with torch.inference_mode():
        figures, sheet = stage.validate(network.eval())
    assert len(sheet) == 2 and abs(figures["dB over the base, frame by frame"]) < 20


def test_gamma_samples_are_repeatable_and_differentiable() -> None:
    alpha = torch.full((2000,), 3.0, requires_grad=True)
    first, again, other = (gamma_sample(alpha, generator_for(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert abs(first.mean().item() - 3) < 0.15 and abs(first.var().item() - 3) < 0.4
    first.sum().backward()
    assert alpha.grad is not None and abs(alpha.grad.mean().item() - 1) < 0.1  # d E[gamma] / d alpha = 1


def test_a_resumed_run_samples_the_same_code_weights(codebook_folder: Path, base: CodeFormer, tmp_path: Path) -> None:
    recipe = replace(DICFACE_TINY, sampled=True, plan=Plan(3, 1, 1e-3, 1e-4, ema=0.5))

    def run(folder: str, stop_at: int = 0) -> torch.nn.Module:
        torch.manual_seed(0)
        network, stage = dicface_on(base, 3), stage_of(DicFaceStage, recipe, base, codebook_folder)
        stage.validate = lambda network: ({}, None)
        if stop_at:
            torch.manual_seed(123)  # what the process drew before does not matter

        def tick(name: str, done: int, steps: int, losses: dict) -> None:
            if done == stop_at:
                raise KeyboardInterrupt

        return train(network, [stage], Run(tmp_path / folder, precision=None, validate_every=0), "dicface", tick)

    whole = run("whole").state_dict()
    with pytest.raises(KeyboardInterrupt):
        run("parts", 2)
    torch.rand(7)
    parts = run("parts", 99).state_dict()
    assert all(torch.equal(value, whole[key]) for key, value in parts.items())


@pytest.fixture
def arguments(codebook_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Options of `fvr train keep` on tiny faces, with more words."""
    monkeypatch.setitem(cli.RECIPES["keep"], "small", replace(KEEP_TINY, plan=Plan(1, 1, 1e-3, 1e-4)))
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    common = ["keep", "--faces", str(draw_faces(tmp_path / "people", 1)), "--device", "cpu", "--precision", "float32"]
    common += ["--autoencoder", str(codebook_folder / "work" / "autoencoder.safetensors")]
    return lambda *more: parser.parse_args([*common, *map(str, more)])


def test_a_base_of_another_size_or_kind_is_refused(arguments, codebook_folder: Path, base: CodeFormer, tmp_path: Path) -> None:
    out = tmp_path / "keep.safetensors"
    with pytest.raises(
        ValueError, match=r"for 512 x 512 pixels and the codebook network face-codebook-128.safetensors for 128 x 128: give --base codef"
    ):
        cli.run(arguments("--recipe", "paper", "--out", out))
    with pytest.raises(ValueError, match=r"for 64 x 64 pixels .* give --base what `fvr train codebook --recipe small` wrote"):
        cli.run(arguments("--out", out))
    torch.save(dicface_on(base, 3).state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other.pth is a DicFace; .* give the codebook network"):
        cli.run(arguments("--out", out, "--base", tmp_path / "other.pth"))
    (tmp_path / "page.pth").write_text("<html>")
    with pytest.raises(ValueError, match="a web page"):
        cli.run(arguments("--out", out, "--base", tmp_path / "page.pth"))


def test_clips_have_the_requested_length(arguments, base: CodeFormer, tmp_path: Path) -> None:
    torch.save({"params_ema": base.state_dict()}, tmp_path / "mine.pth")
    out = tmp_path / "elsewhere" / "keep.safetensors"
    seen: list[int] = []
    kind = cli.keep.KeepStage
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli.keep, "KeepStage", lambda recipe, *rest: seen.append(recipe.frames) or kind(recipe, *rest))
        assert cli.run(arguments("--out", out, "--base", tmp_path / "mine.pth", "--frames", 2)) == 0
    assert seen == [2] and "--frames 2" in out.with_suffix(".md").read_text()
    with pytest.raises(ValueError, match=r"--frames is 2 or more.* got 1$"):
        cli.run(arguments("--out", out, "--base", tmp_path / "mine.pth", "--frames", 1))


def test_an_unfinished_run_is_written_without_the_encoder_of_clean_faces(arguments, base: CodeFormer, tmp_path: Path, monkeypatch) -> None:
    """Only training asks for it."""
    monkeypatch.setitem(cli.RECIPES["keep"], "small", replace(KEEP_TINY, plan=Plan(3, 1, 1e-3, 1e-4)))
    torch.save({"params_ema": base.state_dict()}, tmp_path / "mine.pth")
    out = tmp_path / "elsewhere" / "keep.safetensors"
    words = ["--out", out, "--base", tmp_path / "mine.pth"]
    assert cli.run(arguments(*words, "--minutes", 1e-9)) == cli.EXIT_STOPPED
    options = arguments(*words, "--export-now")
    options.autoencoder = None
    assert cli.run(options) == 0 and isinstance(load_network(out).network, KEEP)


def test_a_pth_base_gives_a_self_contained_file(arguments, codebook_folder: Path, base: CodeFormer, tmp_path: Path) -> None:
    torch.save({"params_ema": base.state_dict()}, tmp_path / "mine.pth")
    out = tmp_path / "elsewhere" / "keep.safetensors"
    assert cli.run(arguments("--out", out, "--base", tmp_path / "mine.pth")) == 0
    network = load_network(out).network
    assert isinstance(network, KEEP) and BASE not in notes_of(out)
    expected = base.encoder.state_dict()["blocks.0.weight"].half().float()
    assert torch.equal(network.hq_encoder.state_dict()["blocks.0.weight"], expected)
    card = out.with_suffix(".md").read_text()
    assert f"{OWN_LICENCE} The licences of mine.pth hold for it too." in card and "starting from mine.pth" in card
    assert "1 to learn from and 1 to validate" in card


@pytest.mark.parametrize("task", ["colourise", "inpaint"])
def test_dicface_trains_for_colourisation_and_inpainting(codebook_folder: Path, base: CodeFormer, tmp_path: Path, task: str) -> None:
    """Grey in, or white strokes in; two steps of each, all layers but the positions learning."""
    recipe = for_task(replace(DICFACE_TINY, plan=replace(DICFACE_TINY.plan, steps=2), anchored=True, frozen=True, divergence=1.0), task)
    assert (recipe.divergence, recipe.anchored, recipe.frozen) == (0.0, False, False)
    network, stage = dicface_on(base, 3), stage_of(DicFaceStage, recipe, base, codebook_folder)
    batch = stage.batch(0, generator_for(0))
    source, target = ((batch[key] + 1) / 2 for key in ("source", "target"))
    if task == "colourise":
        assert torch.equal(source[:, :, :1].expand_as(source), source) and torch.allclose(source[0, :, :1], luma(target[0]), atol=1e-5)
    else:
        holes = (source - target).abs().amax((1, 2), keepdim=True) > 1e-6  # the same through the clip
        assert 0.04 < holes.float().mean() < 0.6 and (source[holes.expand_as(source)] > 1 - 1e-6).all()
    before = {name: value.clone() for name, value in network.named_parameters()}
    train(network, [stage], Run(tmp_path, precision=None, validate_every=0), "dicface")
    changed = {name.split(".")[0] for name, value in network.named_parameters() if not torch.equal(value, before[name])}
    assert {"encoder", "multiscale", "dir_dist_layers"} <= changed
    with torch.no_grad():
        figures, sheet = stage.validate(network)
    assert all(map(math.isfinite, figures.values())) and len(sheet)


def test_a_still_clip_gives_the_result_of_its_single_frame(base: CodeFormer) -> None:
    """Attention over equal frames gives what one gives, whatever the positions in time: a fifth of the work."""
    network = dicface_on(base, 5)
    with torch.no_grad():
        for parameter in (network.position_emb_temporal, *network.dir_dist_layers.parameters()):
            parameter.normal_(std=0.1, generator=generator_for(2))
        tokens = network.tokens(network.encode(clip(2))[0])
        one, five = network.alpha(tokens[:, None]), network.alpha(tokens[:, None].expand(-1, 5, -1, -1), slice(2, 3))
    assert torch.allclose(one, five, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", ["colourise", "inpaint"])
def test_further_tasks_start_from_the_restoring_network(codebook_folder: Path, base: CodeFormer, tmp_path: Path, task: str) -> None:
    """What hands features on learns, the codes' own layers stay; of a hole only what was hidden counts."""
    assert for_task(DICFACE_SMALL, task).unfrozen == TASKS_SMALL.unfrozen
    recipe = replace(TASKS_SMALL, task=task, plan=PLAN, blind=TINY.blind, frames=3)
    restorer = dicface_on(base, 3)
    network, stage = dicface_on(restorer, 3), stage_of(DicFaceStage, recipe, restorer, codebook_folder)
    stage.start(network, {})
    batch = stage.batch(0, generator_for(0))
    assert batch["source"].shape == (recipe.stills, 1, 3, SIDE, SIDE)
    if task == "inpaint":
        hidden = batch["hole"] > 0
        assert torch.allclose(torch.where(hidden, 0.0, batch["source"]), torch.where(hidden, 0.0, batch["target"]), atol=1e-6)
        outside = torch.where(hidden, batch["target"], -batch["target"])
        terms = [stage.losses(network, {**batch, "target": target}, 0, generator_for(1))["pixels"] for target in (batch["target"], outside)]
        assert torch.allclose(*terms)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    trained = train(network, [stage], Run(tmp_path, precision=None, validate_every=0), "dicface")
    moved = {key.split(".")[0] for key, value in trained.state_dict().items() if not torch.equal(value, before[key])}
    assert moved <= set(TASKS_SMALL.unfrozen) and "fuse_convs_dict" in moved
    assert all(map(math.isfinite, stage.validate(trained)[0].values()))
