"""CodeFormer's stages on a tiny network: what learns, what stays, and what comes out."""

from __future__ import annotations

import argparse
import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.tiny_codebook import SHORT, SIDE, TINY, draw_faces, faces_of, trained
from safetensors.torch import load_file
from torch import nn

from fvr.methods.blind.restorer import BlindRestorer
from fvr.models.blind import BlindRestorers, BlindSizes
from fvr.models.checkpoints.state_dict import notes_of
from fvr.models.codeformer.network import CodeFormer
from fvr.models.embedded import read_embedded
from fvr.models.vq import VQAutoEncoder
from fvr.training import cli
from fvr.training.card import Card, export
from fvr.training.codebook import REVIVAL_FACES, AutoEncoding, CleanedStage, CodePrediction, Joint, clean_encoder, network_of, stages_of
from fvr.training.data.cleaned import CleanedClips
from fvr.training.data.faces import Faces
from fvr.training.data.footage import Footage
from fvr.training.data.pairs import Pairs
from fvr.training.engine import Run, generator_for, train
from fvr.training.keep import KEEP_PAPER
from fvr.training.plan import Plan
from fvr.training.recipe import KEEP_BASE, PAPER

CPU = torch.device("cpu")


def changed(before: Path, after: Path) -> set[str]:
    """The first parts of the names of the tensors that differ."""
    old, new = load_file(before), load_file(after)
    return {name.split(".")[0] for name in new if not torch.equal(old[name], new[name])}


def test_each_stage_trains_its_own_parts(codebook_folder: Path) -> None:
    work = codebook_folder / "work"
    transformer = {"encoder", "position_emb", "feat_emb", "ft_layers", "idx_pred_layer"}
    assert changed(work / "autoencoder.safetensors", work / "prediction.safetensors") == transformer
    assert changed(work / "prediction.safetensors", work / "joint.safetensors") == transformer | {"fuse_convs_dict", "generator"}
    for stage in ("autoencoder", "prediction", "joint"):
        figures = json.loads((work / f"{stage}.json").read_text())[-1]["figures"]
        assert len(figures) >= 3 and (work / f"{stage}.png").is_file()


def test_stage_three_of_the_paper_freezes_the_generator(tmp_path: Path) -> None:
    faces, held_out = faces_of(tmp_path)
    network = network_of(TINY)
    autoencoder = tmp_path / "autoencoder.safetensors"
    from safetensors.torch import save_file

    save_file(network.state_dict(), autoencoder)
    stage = Joint(replace(TINY, open_generator=False), faces, held_out, CPU)
    stage.start(network, {"autoencoder": autoencoder})
    trained = {name.split(".")[0] for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert "generator" not in trained and "quantize" not in trained and "fuse_convs_dict" in trained


def test_the_autoencoder_fits_its_faces(tmp_path: Path) -> None:
    faces, held_out = faces_of(tmp_path)
    torch.manual_seed(0)
    network = network_of(TINY)
    stage = AutoEncoding(replace(TINY, settle=0, revive=0), faces, held_out, CPU)
    stage.start(network, {})
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(parameters, 2e-3)
    pixels = []
    for step in range(30):
        optimiser.zero_grad()
        terms = stage.losses(network, stage.batch(step, generator_for("test", step)), step, generator_for(step))
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
        pixels.append(terms["pixels"].item())
    assert sum(pixels[-5:]) < 0.75 * sum(pixels[:5]), pixels


def test_the_codebook_starts_from_latents_and_dead_codes_move(tmp_path: Path) -> None:
    faces, held_out = faces_of(tmp_path)
    network = network_of(TINY)
    stage = AutoEncoding(replace(TINY, autoencoder=Plan(100, 2, 1e-3, 1e-4)), faces, held_out, CPU)
    stage.start(network, {})
    start = network.quantize.embedding.weight.detach().clone()
    assert not stage.before_step(network, 1, generator_for(0)) and torch.equal(network.quantize.embedding.weight, start)
    assert stage.before_step(network, TINY.settle, generator_for(0))
    with torch.no_grad():
        network.quantize.embedding.weight[5] = 1e4  # no latent is near it
        stage.before_step(network, 4 * TINY.revive, generator_for(1))
    assert network.quantize.embedding.weight.abs().max() < 1e3


def test_the_schedule_of_stage_three_is_codeformers() -> None:
    stage = Joint(PAPER, None, None)  # type: ignore[arg-type]
    assert [stage.joint_schedule(step) for step in (0, 40_000, 40_001, 80_001, 120_000)] == [
        (False, 1.0),
        (False, 1.0),
        (False, 1.3),
        (True, 1.3),
        (True, 1.3),
    ]
    late = [stage.joint_schedule(step)[0] for step in range(120_001, 120_151)]
    assert late.count(False) == 10  # one step in 15 has images


def test_codes_are_those_of_the_clean_face(codebook_folder: Path) -> None:
    faces, held_out = faces_of(codebook_folder / "faces")
    network = network_of(TINY)
    network.load_state_dict(load_file(codebook_folder / "work" / "autoencoder.safetensors"))
    stage = CodePrediction(TINY, faces, held_out)
    stage.start(network, {"autoencoder": codebook_folder / "work" / "autoencoder.safetensors"})
    target = stage.batch(0, generator_for(0))["target"]
    latent = network.encoder(target)[0]
    index = network.quantize.nearest(latent)
    right = nn.functional.one_hot(index, 32).float() * 60
    terms = stage.code_terms(network, target, right, network.quantize.lookup(index))
    assert terms["codes"] < 1e-4 and terms["features"] == 0


def test_the_command_writes_a_loadable_file_with_its_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.RECIPES["codebook"], "small", replace(TINY, autoencoder=Plan(4, 2, 1e-3, 1e-4), settle=2, revive=0))
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    out = tmp_path / "mine.safetensors"
    arguments = ["codebook", "--faces", str(draw_faces(tmp_path / "people")), "--out", str(out), "--device", "cpu", "--validate-every", "0"]
    assert cli.run(parser.parse_args([*arguments, "--minutes", "1e-9"])) == cli.EXIT_STOPPED and not out.exists()
    assert cli.run(parser.parse_args(arguments)) == 0
    network = CodeFormer.of(read_embedded(out))
    assert network.sizes == TINY.sizes
    work = tmp_path / "mine-training"
    single = CodeFormer.of(load_file(work / "joint.safetensors"))
    x = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latent, exact = network.encode(x)[0], single.encode(x)[0]
        assert (latent - exact).norm() < 0.02 * exact.norm()
    card = out.with_suffix(".md").read_text()
    assert "fvr train codebook" in card and "The faces of the folder people" in card and "Seed 0" in card
    assert notes_of(out)["recipe"] == "tiny" and notes_of(out)["fidelity"] == "1"


def test_an_unfinished_run_is_written_without_the_blind_restorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--export-now reads what is on disk; only training needs the network that the last stage's clips are cleaned by, and says which that is."""
    monkeypatch.setitem(cli.RECIPES["codebook"], "small", TINY)
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    out = tmp_path / "mine.safetensors"
    arguments = ["codebook", "--faces", str(draw_faces(tmp_path / "people")), "--out", str(out), "--device", "cpu", "--validate-every", "0"]
    assert cli.run(parser.parse_args([*arguments, "--minutes", "1e-9"])) == cli.EXIT_STOPPED
    monkeypatch.setitem(cli.RECIPES["codebook"], "small", replace(TINY, cleaned=SHORT))
    monkeypatch.setattr(cli, "FOLDER", tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"last stage of the recipe tiny .*blind-512.safetensors is not there; install"):
        cli.run(parser.parse_args(arguments))
    assert cli.run(parser.parse_args([*arguments, "--export-now"])) == 0
    assert CodeFormer.of(read_embedded(out)).sizes == TINY.sizes


def test_a_file_on_a_base_holds_only_changed_tensors(tmp_path: Path) -> None:
    card = Card("t", "w", "d", "l", "r", "c", 0, "b", (("PSNR", "1 dB"),))
    export({"a": torch.ones(4), "b": torch.zeros(2)}, tmp_path / "base.safetensors", card)
    export({"a": torch.ones(4), "b": torch.ones(2), "c": torch.ones(1)}, tmp_path / "more.safetensors", card, base=tmp_path / "base.safetensors")
    assert set(load_file(tmp_path / "more.safetensors")) == {"b", "c"}
    state = read_embedded(tmp_path / "more.safetensors")
    assert {key: value.sum().item() for key, value in state.items()} == {"a": 4, "b": 2, "c": 1} and state["a"].dtype == torch.float32
    assert "| PSNR | 1 dB |" in (tmp_path / "more.md").read_text()
    with pytest.raises(ValueError, match="float16"):
        export({"a": torch.tensor([1e6])}, tmp_path / "large.safetensors", card)
    (tmp_path / "base.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"base.safetensors is missing"):
        read_embedded(tmp_path / "more.safetensors")


def test_the_adversary_is_trained_beside_the_generator(tmp_path: Path) -> None:
    short = replace(SHORT, steps=2)
    recipe = replace(TINY, autoencoder=short, prediction=short, joint=short, adversary=(0.8, 0.1), adversary_from=(1, 1))
    network = trained(tmp_path, recipe)
    assert all(bool(value.isfinite().all()) for value in network.state_dict().values() if value.is_floating_point())
    faces, held_out = faces_of(tmp_path / "faces")
    stage = stages_of(recipe, faces, held_out, torch.device("cpu"))[0]
    stage.start(network, {})
    before = copy.deepcopy(stage.extra()["adversary"])
    losses = stage.losses(network, stage.batch(3, generator_for(0)), 3, generator_for(1))
    sum(losses.values()).backward()
    assert "adversary" in losses
    after = stage.extra()["adversary"]
    assert any(not torch.equal(after[key], before[key]) for key in after)


def test_each_stage_has_its_own_adversarial_weight(codebook_folder: Path) -> None:
    faces, held_out = faces_of(codebook_folder / "faces")
    network = network_of(TINY)
    recipe = replace(TINY, adversary=PAPER.adversary, adversary_from=(0, 0))
    autoencoder, _, joint = stages_of(recipe, faces, held_out, CPU)
    done = {"autoencoder": codebook_folder / "work" / "autoencoder.safetensors"}
    output = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    weight = torch.ones((), requires_grad=True)
    for stage, wanted in ((autoencoder, 0.8), (joint, 0.1)):
        assert isinstance(stage, AutoEncoding | Joint)
        stage.start(network, done)
        stage.adversary.net = Steady()  # its gradient is a hundredth of the other term's, so that the adaptive weight is at its limit, 1
        (term,) = stage.adversary.term(weight * output, output, 100 * weight * output.mean(), weight, 0).values()
        assert term.item() == pytest.approx(-wanted * output.mean().item(), rel=1e-4)


class Steady(nn.Module):
    """An adversary that does not learn: the mean of the picture."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((1, 2, 3)) + torch.zeros((), requires_grad=True)


@pytest.mark.parametrize("reduced", [torch.float32, torch.bfloat16])
def test_the_settling_steps_use_the_precision_of_the_run(tmp_path: Path, reduced: torch.dtype) -> None:
    faces, held_out = faces_of(tmp_path / "faces")
    network = network_of(TINY)
    seen = set()
    network.encoder.register_forward_hook(lambda module, given, found: seen.add((len(given[0]), found[0].dtype)))
    recipe = replace(TINY, autoencoder=Plan(2, 1, 1e-3, 1e-4), settle=1, revive=0)
    settings = Run(tmp_path / "work", validate_every=0, precision=reduced)
    train(network, [AutoEncoding(recipe, faces, held_out, CPU)], settings, "tiny")
    assert {dtype for number, dtype in seen if number == REVIVAL_FACES} == {reduced}


def test_model_cards_state_the_number_of_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = Plan(1, 1, 1e-3, 1e-4)
    recipe = replace(TINY, autoencoder=short, prediction=short, joint=short, settle=0, revive=0)
    monkeypatch.setitem(cli.RECIPES["codebook"], "small", recipe)
    draw_faces(tmp_path / "people")
    for index, path in enumerate(sorted((tmp_path / "people").rglob("*.png"))):
        path.rename(path.with_name(f"us-{'house' if index % 2 else 'senate'}_{path.name}"))
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    out = tmp_path / "mine.safetensors"
    arguments = [
        "codebook",
        "--faces",
        str(tmp_path / "people"),
        "--out",
        str(out),
        "--device",
        "cpu",
        "--precision",
        "float32",
        "--prefix",
        "federal",
    ]
    assert cli.run(parser.parse_args(arguments)) == 0
    card = out.with_suffix(".md").read_text()
    assert "\n6 aligned official portraits" in card and "from 6 that validate" in card and "444" not in card
    assert "--prefix federal" in card


def test_clips_are_refused_for_the_codebook(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    arguments = ["codebook", "--faces", str(tmp_path), "--out", str(tmp_path / "x.safetensors"), "--clips", str(tmp_path)]
    with pytest.raises(ValueError, match="--clips is for prior, keep, dicface"):
        cli.run(parser.parse_args(arguments))


def test_the_clean_encoder_is_read_from_the_published_autoencoders_form(tmp_path: Path) -> None:
    """vqgan_code1024.pth goes with codeformer.pth: the autoencoder alone, under "params_ema"."""
    network, autoencoder = network_of(TINY), VQAutoEncoder(TINY.sizes.vq)
    torch.save({"params_ema": autoencoder.state_dict()}, tmp_path / "vqgan.pth")
    found = clean_encoder(network, tmp_path / "vqgan.pth").state_dict()
    assert all(torch.equal(value, found[key]) for key, value in autoencoder.encoder.state_dict().items())
    torch.save(VQAutoEncoder(replace(TINY.sizes.vq, code_dim=64)).state_dict(), tmp_path / "wide.pth")
    with pytest.raises(ValueError, match=r"wide.pth holds no encoder of the codebook network's sizes"):
        clean_encoder(network, tmp_path / "wide.pth")


def test_keeps_stages_one_and_two_have_the_papers_hyperparameters() -> None:
    """Section 4: 800,000 and 400,000 steps at 2e-4 with a batch of 4; stage III 50,000 at 1e-4."""
    plans = [(plan.steps, plan.batch, plan.rate, plan.final_rate) for plan in (KEEP_BASE.autoencoder, KEEP_BASE.prediction, KEEP_PAPER.plan)]
    assert plans == [(800_000, 4, 2e-4, 2e-4), (400_000, 4, 2e-4, 2e-4), (50_000, 4, 1e-4, 1e-4)]


def test_cleaned_clips_train_the_feature_transforms_only(codebook_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    blind = BlindRestorer(BlindRestorers(BlindSizes((8, 12), (1, 1))).eval())
    small = Faces(codebook_folder / "faces", "train", 512)
    pairs = Pairs(small, Footage(scale=(0.2, 0.4), near=0.0), 2, 0, window=512, frames=2)
    clips = CleanedClips(pairs, blind, SIDE, tmp_path / "clips")
    cleaned, truth = clips[1]
    assert cleaned.shape == truth.shape == (2, 3, SIDE, SIDE)
    assert all(
        torch.equal(part, again) for part, again in zip((cleaned, truth), CleanedClips(pairs, blind, SIDE, tmp_path / "clips")[1], strict=True)
    )
    recipe = replace(TINY, cleaned=Plan(3, 2, 1e-3, 1e-4, ema=0.5), uncleaned=0.3)
    faces, held_out = (Faces(codebook_folder / "faces", split, SIDE) for split in ("train", "val"))
    network = network_of(recipe)
    network.load_state_dict(load_file(codebook_folder / "work" / "joint.safetensors"))
    before = copy.deepcopy(network.state_dict())
    stage = stages_of(recipe, faces, held_out, CPU, (clips, clips))[-1]
    assert isinstance(stage, CleanedStage)
    train(network, [stage], Run(tmp_path / "work", validate_every=3, precision=None), recipe.name)
    assert {name.split(".")[0] for name, value in network.state_dict().items() if not torch.equal(value, before[name])} == {"fuse_convs_dict"}
    figures = json.loads((tmp_path / "work" / "cleaned.json").read_text())[-1]["figures"]
    assert set(figures) == {"dB over what is cleaned", "dB, least"}
    kinds = {bool(stage.batch(step, generator_for(0, step))["cleaned"]) for step in range(12)}
    assert kinds == {True, False}
