"""KEEP's own plan (Feng et al., section 4): its damage, its adversary, its flow, its first weights."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.tiny_codebook import SIDE, TINY, draw_faces, faces_of
from safetensors.torch import load_file

from fvr.models.checkpoints.load import load_network
from fvr.models.checkpoints.state_dict import notes_of
from fvr.models.codeformer.network import CodeFormer
from fvr.models.gmflow import FlowNet
from fvr.training import cli
from fvr.training.codebook import AutoEncoding, clean_encoder, network_of
from fvr.training.data.degradations import Streamed
from fvr.training.engine import Run, generator_for, train
from fvr.training.keep import KEEP_PAPER, KeepStage, keep_on
from fvr.training.plan import Plan
from fvr.training.recipe import KEEP_BASE

TINY_PAPER = replace(KEEP_PAPER, plan=Plan(1, 1, 1e-3, 1e-3, ema=0.5), frames=3, blind=Streamed(SIDE))


@pytest.fixture(scope="module")
def base(codebook_folder: Path) -> CodeFormer:
    return CodeFormer.of(load_file(codebook_folder / "work" / "joint.safetensors")).requires_grad_(False)


@pytest.fixture
def gmflow(tmp_path: Path) -> Path:
    """GMFlow with weights of no use, as its project saves it."""
    torch.manual_seed(1)
    torch.save({"model": FlowNet().model.state_dict()}, tmp_path / "gmflow.pth")
    return tmp_path / "gmflow.pth"


def stage_on(base: CodeFormer, folder: Path, recipe=TINY_PAPER) -> KeepStage:
    autoencoder = clean_encoder(base, folder / "work" / "autoencoder.safetensors")
    return KeepStage(recipe, base, *faces_of(folder / "faces"), torch.device("cpu"), autoencoder)


def test_the_paper_recipe_is_section_4() -> None:
    """lambda_1, lambda_VGG and lambda_GAN, Kaiming Normal, and video compression by bit rate."""
    for recipe, adversary in ((KEEP_PAPER, KEEP_PAPER.adversary), (KEEP_BASE, KEEP_BASE.adversary[0])):
        assert (recipe.pixels, recipe.perceptual, adversary, recipe.kaiming) == (1e-2, 1.0, 1e-2, True)
    assert not KEEP_BASE.adaptive and "bits a pixel" in KEEP_PAPER.blind.text


def test_kaiming_initialisation_is_that_of_he_et_al() -> None:
    torch.manual_seed(0)
    weight = network_of(replace(TINY, kaiming=True)).feat_emb.weight
    assert weight.std().item() == pytest.approx((2 / weight.shape[1]) ** 0.5, rel=0.05)


def test_the_paper_recipe_takes_a_step(codebook_folder: Path, base: CodeFormer, gmflow: Path, tmp_path: Path) -> None:
    """GMFlow guides and stays; the adversary learns beside, and what it has learnt is kept for a run that goes on."""
    torch.manual_seed(0)
    network, stage = keep_on(base, gmflow), stage_on(base, codebook_folder)
    stage.validate = lambda network: ({}, None)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    trained = train(network, [stage], Run(tmp_path, precision=None, validate_every=0), "keep")
    moved = {key.split(".")[0] for key, value in trained.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"kalman_filter", "cross_fuse", "hq_encoder"}  # the last was set to the encoder of clean faces
    kept = torch.load(tmp_path / "state.pt", weights_only=True)["extra"]
    assert kept["optimiser"]["state"] and all(torch.equal(value, kept["adversary"][key]) for key, value in stage.adversary.net.state_dict().items())


def test_the_adversary_changes_the_trained_weights(codebook_folder: Path, base: CodeFormer) -> None:
    """Its term reaches cross-frame attention with its weight, and no factor on top."""
    torch.manual_seed(0)
    network = keep_on(base)
    stage = stage_on(base, codebook_folder, replace(TINY_PAPER, pixels=0.0, perceptual=0.0, codes=0.0, features=0.0))
    stage.start(network, {})
    stage.initialise(network, generator_for(0))
    batch = stage.batch(0, generator_for(0))
    terms = stage.losses(network, batch, 0, generator_for(1))
    with torch.no_grad():
        fooled = -stage.adversary.net(stage._unrolled(network, batch["source"])[0].flatten(0, 1)).mean()
    assert terms["adversary"].item() == pytest.approx(0.01 * fooled.item(), rel=1e-3)
    terms["adversary"].backward()
    assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in network.cross_fuse.parameters())


def test_the_adversarial_weight_of_stage_one(codebook_folder: Path) -> None:
    """Without the adaptive factor the term is weight times how badly the adversary is fooled, whatever the other terms are."""
    recipe = replace(TINY, adversary=(0.5, 0.0), adversary_from=(0, 0), adaptive=False, pixels=1e-6)
    stage = AutoEncoding(recipe, *faces_of(codebook_folder / "faces"))
    torch.manual_seed(0)
    network = network_of(recipe)
    stage.start(network, {})
    batch = stage.batch(0, generator_for(0))
    term = stage.losses(network, batch, 0, generator_for(0))["adversary"]
    fooled = -stage.adversary.net(network.generator(network.encoder(batch["target"])[0])).mean()
    assert term.item() == pytest.approx(0.5 * fooled.item(), rel=1e-3)


def test_flow_weights_are_loaded_into_the_flow_network(base: CodeFormer, gmflow: Path, tmp_path: Path) -> None:
    """Out of a KEEP that has GMFlow inside, too; a file without one is named, and who gets none is told."""
    whole = keep_on(base, gmflow)
    torch.save({"params_ema": whole.state_dict()}, tmp_path / "keep.pth")
    again = keep_on(base, tmp_path / "keep.pth")
    assert all(torch.equal(value, whole.flownet.state_dict()[key]) for key, value in again.flownet.state_dict().items())
    torch.save({"a.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other.pth holds 1 tensors .* not the flow network GMFlow: give gmflow_sintel"):
        keep_on(base, tmp_path / "other.pth")
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    common = ["--faces", str(tmp_path), "--out", str(tmp_path / "out.safetensors")]
    with pytest.raises(ValueError, match="--gmflow is for keep"):
        cli.run(parser.parse_args(["dicface", *common, "--gmflow", str(gmflow)]))


def test_the_command_takes_gmflow_and_records_it(
    codebook_folder: Path, base: CodeFormer, gmflow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cli.RECIPES["keep"], "paper", TINY_PAPER)
    torch.save({"params_ema": base.state_dict()}, tmp_path / "mine.pth")
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    out = tmp_path / "out" / "keep.safetensors"
    words = ["keep", "--recipe", "paper", "--faces", str(draw_faces(tmp_path / "people", 1)), "--base", str(tmp_path / "mine.pth"), "--out", str(out)]
    words += ["--device", "cpu", "--precision", "float32", "--autoencoder", str(codebook_folder / "work" / "autoencoder.safetensors")]
    with pytest.raises(ValueError, match="warps along the flow of GMFlow, which is not trained here: give --gmflow gmflow_sintel"):
        cli.run(parser.parse_args(words))
    assert cli.run(parser.parse_args([*words, "--gmflow", str(gmflow)])) == 0
    assert notes_of(out)["flow"] == "gmflow" and load_network(out).network.flownet is not None
    card = out.with_suffix(".md").read_text()
    assert "--gmflow gmflow.pth" in card and "The licences of mine.pth and gmflow.pth hold for it too." in card
