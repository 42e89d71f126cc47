"""How DicFace's distribution of codes learns what a face tells of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.tiny_codebook import TINY, faces_of
from safetensors.torch import load_file

from fvr.models.codeformer.network import CodeFormer
from fvr.training.dicface import dicface_on
from fvr.training.engine import Run, generator_for, train
from fvr.training.evidence import EVIDENCE_FILE, EvidenceRecipe, EvidenceStage, mostly_noise
from fvr.training.plan import Plan

RECIPE = EvidenceRecipe(Plan(3, 2, 1e-3, 1e-4, ema=0.5), 2, TINY.blind)


@pytest.fixture
def stage(codebook_folder: Path) -> EvidenceStage:
    base = CodeFormer.of(load_file(codebook_folder / "work" / "joint.safetensors")).requires_grad_(False)
    return EvidenceStage(RECIPE, base, *faces_of(codebook_folder / "faces"), torch.device("cpu"))


def test_the_evidence_loss_is_least_at_prior_plus_counts(stage: EvidenceStage) -> None:
    """At alpha = prior + m p, m the looks that the place's error stands for; at the prior where nothing comes back."""
    chances = torch.softmax(torch.randn(1, 1, 12, generator=generator_for(0)), -1)
    for error, looks in ((RECIPE.error**2, RECIPE.observations), (1e-12, RECIPE.most * RECIPE.observations), (1e6, 0.0)):
        alpha = torch.ones(1, 1, 12, requires_grad=True)
        stage._alpha = lambda network, latent, alpha=alpha: alpha  # type: ignore[method-assign]
        batch = {"latent": torch.zeros(1), "chances": chances, "error": torch.tensor([[error]])}
        stage.losses(None, batch, 0, generator_for(0))["deviance"].backward()  # type: ignore[arg-type]
        assert alpha.grad is not None and not torch.allclose(alpha.grad, torch.zeros(1, 1, 12), atol=1e-6)
        alpha.data = RECIPE.prior + looks * chances
        alpha.grad = None
        stage.losses(None, batch, 0, generator_for(0))["deviance"].backward()  # type: ignore[arg-type]
        assert torch.allclose(alpha.grad, torch.zeros(1, 1, 12), atol=1e-5)


def test_evidence_is_computed_once_and_trains_temporal_layers_and_code_head(stage: EvidenceStage, tmp_path: Path) -> None:
    network = dicface_on(stage.base, 3)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    trained = train(network, [stage], Run(tmp_path, precision=None, validate_every=0), "evidence")
    moved = {key.split(".")[0] for key, value in trained.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"dir_dist_layers", "idx_pred_layer"}
    figures = json.loads((tmp_path / "evidence.json").read_text())[-1]["figures"]
    assert {"uncertainty, clean", "uncertainty, noise", "x8 bicubic: rank correlation with the error"} <= set(figures)
    kept = load_file(tmp_path / EVIDENCE_FILE)
    tokens = network.config.tokens
    assert kept["chances"].shape == (2, tokens, network.config.codes) and kept["error"].shape == (2, tokens)
    again = replace(stage, faces=None)  # type: ignore[arg-type]  # a start of its own would need them
    again.start(dicface_on(stage.base, 3), {"evidence": tmp_path / "evidence.safetensors"})
    assert torch.equal(again.evidence["error"], kept["error"])


def test_temporal_layers_have_a_lower_learning_rate(stage: EvidenceStage) -> None:
    slow, fast = stage.groups(dicface_on(stage.base, 3))
    assert slow["scale"] == RECIPE.temporal_rate < fast.get("scale", 1.0)


def test_mostly_noise_images_keep_no_contrast_of_the_face(stage: EvidenceStage) -> None:
    face = stage.faces.face(0)
    noise = torch.stack([mostly_noise(face, generator_for(i), 0.0) for i in range(8)])
    alike = torch.corrcoef(torch.stack([face.flatten(), *noise.flatten(1)]))[0, 1:]
    assert alike.abs().max() < 0.3 and noise.min() >= 0 and noise.max() <= 1
