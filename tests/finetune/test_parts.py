"""Single parts of fine-tuning: answers with gradients equal those without, targets' codes, features, checkpointing, spandrel's networks."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.small_spandrel import small_denoiser, small_swinir
from helpers.tiny_pairs import SIDE, base, noisy, pairs
from safetensors.torch import load_file
from torch import nn

from fvr.finetune.base_model import base_from_file
from fvr.finetune.checkpointing import checkpoint_blocks
from fvr.finetune.options import PAPER, planned
from fvr.finetune.perceptual import EarlyFeatures
from fvr.finetune.run import fine_tune
from fvr.finetune.stage import LOSS, CodeFineTuneStage, CodeTargets, ImageFineTuneStage
from fvr.models.checkpoints.load import load_network
from fvr.models.dicface.network import DicFace
from fvr.models.tuning import Use, answer, train_only
from fvr.products import Pointwise
from fvr.training.discriminator import Adversary
from fvr.training.engine import Run, generator_for

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")  # spandrel's
CPU = torch.device("cpu")


def faces(count: int = 2, side: int = SIDE) -> torch.Tensor:
    return noisy(count, side)[0] * 2 - 1


@pytest.mark.parametrize("kind", ["codeformer", "keep", "dicface", "restoreformer"])
def test_forward_pass_matches_the_restorers_network(kind: str, tmp_path: Path) -> None:
    network, x = base(tmp_path, kind).network, faces()
    found = answer(network, x, Use(1.0, kind == "codeformer")).picture
    with torch.inference_mode():
        if kind == "codeformer":
            wanted = network(x, 1.0, match=True)
        elif kind == "keep":
            latent, features = network.encode(x)
            wanted = network.decode(network.quantize.lookup(network.predict_codes(latent)), features)[0]
        else:
            wanted = network(x[:, None].expand(-1, 3, -1, -1, -1))[:, 1] if kind == "dicface" else network(x)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["codeformer", "keep", "dicface"])
def test_every_part_trained_by_codes_gets_a_gradient(kind: str, tmp_path: Path) -> None:
    network = base(tmp_path, kind).network
    train_only(network, "codes")
    x = faces()
    entropy, distance = CodeTargets(network, CPU).terms(answer(network, x, Use(), draw=False), faces(4)[2:], torch.tensor([0, 1]))
    (entropy + distance).backward()
    missing = [name for name, value in network.named_parameters() if value.requires_grad and (value.grad is None or not value.grad.any())]
    assert all(name.startswith("encoder") and kind == "dicface" for name in missing), missing


def test_code_losses_of_the_right_codes_and_latent_are_zero(tmp_path: Path) -> None:
    """Codes are named right and the latent is theirs: both terms are 0. The codes of DicFace are distributions, whose entropy stays."""
    network, target = base(tmp_path).network, faces()
    index, _, latent = network.true_codes(target)
    assert index is not None and torch.equal(index, network.quantize.nearest(network.encoder(target)[0]))
    found = answer(network, target, Use(), draw=False)
    right = replace(found, latent=latent, log_probs=nn.functional.one_hot(index, 16).float().clamp_min(1e-30).log())
    entropy, distance = CodeTargets(network, CPU).terms(right, target, torch.tensor([0, 1]))
    assert entropy == 0 and distance == 0
    dicface = base(tmp_path, "dicface").network
    assert isinstance(dicface, DicFace)
    own = answer(dicface, target, Use(), draw=False)
    targets = CodeTargets(dicface, CPU)
    entropy, distance = targets.terms(own, target, torch.tensor([0, 1]))
    assert distance < 1e-10
    other = replace(own, log_probs=(own.log_probs.exp() * 0.9 + 0.1 / 16).log())
    assert targets.terms(other, target, torch.tensor([0, 1]))[0] > entropy  # Gibbs: the true distribution has the least cross-entropy


def test_the_image_loss_is_eq_8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L1 of pictures in [0, 1], 0.1 of a perceptual distance, 0.1 of what the discriminator says against them; of a network as large as the crops."""
    monkeypatch.setattr("fvr.finetune.stage.CROP", SIDE)
    monkeypatch.setattr(ImageFineTuneStage, "width", 8)
    options, network = replace(PAPER["image"], perceptual_by="encoder"), base(tmp_path, "restoreformer").network
    stage = ImageFineTuneStage(Use(), pairs(), options, tmp_path, CPU)
    stage.prepare(network)
    stage.before_step(network, 0, generator_for(0))
    assert stage.adversary is not None and stage.perceptual is not None
    adversary = copy.deepcopy(stage.adversary.net)
    source, target = (part * 2 - 1 for part in noisy(2))
    terms = stage.losses(network, {"source": source, "target": target, "which": torch.tensor([0, 2])}, 0, generator_for(0))
    picture = network(source)
    wanted = {
        "pixels": ((picture - target) / 2).abs().mean(),
        "perceptual": 0.1 * stage.perceptual(picture, target),
        "adversary": 0.1 * nn.functional.softplus(-adversary((picture + 1) / 2)).mean(),
    }
    assert terms.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(terms[name], value, msg=name)


def test_the_code_loss_is_eq_13(tmp_path: Path) -> None:
    """|z - c|^2 + 0.5 cross-entropy, c the codes nearest to what the frozen encoder finds in the target."""
    network = base(tmp_path).network
    stage = CodeFineTuneStage(Use(), pairs(), PAPER["codes"], tmp_path, CPU)
    stage.prepare(network)
    source, target = (part * 2 - 1 for part in noisy(2))
    terms, _ = stage.terms(network, {"source": source, "target": target, "which": torch.tensor([0, 2])}, draw=False)
    latent, index = network.encoder(source)[0], network.quantize.nearest(network.encoder(target)[0])
    torch.testing.assert_close(terms["features"], (latent - network.quantize.lookup(index)).square().mean())
    torch.testing.assert_close(terms["tokens"], 0.5 * nn.functional.cross_entropy(network.logits(latent).mT, index))


def test_the_discriminator_separates_targets_from_outputs() -> None:
    """Eq. 7 as the cross-entropy that the official code has."""
    real, fake = (torch.full((2, 3, 16, 16), value) for value in (0.5, -0.5))
    torch.manual_seed(0)
    adversary = Adversary(0.1, 1e-3, 1, CPU, width=8)
    for _ in range(20):
        adversary.begin()
        adversary.term(fake, real)
    with torch.no_grad():
        assert adversary.net((real + 1) / 2).mean() > 0.3 > -0.3 > adversary.net((fake + 1) / 2).mean()


def test_target_codes_are_computed_once_per_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, target = base(tmp_path).network, faces()
    targets, found = CodeTargets(network, CPU), answer(network, target, Use(), draw=False)
    first = targets.terms(found, target, torch.tensor([4, 7]))
    monkeypatch.setattr(targets.frozen, "encoder", None)
    again = targets.terms(found, target, torch.tensor([4, 7]))
    assert [a.item() for a in first] == [a.item() for a in again]
    with pytest.raises(TypeError):
        targets.terms(found, target, torch.tensor([4, 8]))


def test_early_features_separate_images_and_have_gradients(tmp_path: Path) -> None:
    network = base(tmp_path).network
    distance = EarlyFeatures(network, lambda frozen, x: answer(frozen, x, Use()), SIDE)
    noise, clean = (part * 2 - 1 for part in noisy(2))
    assert distance(clean, clean) == 0 < distance(0.9 * clean + 0.1 * noise, clean) < distance(noise, clean)
    x = noise.clone().requires_grad_()
    distance(x, clean).backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert {type(part) for part in distance.hooked} == {nn.Conv2d, Pointwise} and not any(p.requires_grad for p in distance.parameters())


def test_checkpointing_saves_memory_and_keeps_the_gradients(tmp_path: Path) -> None:
    plain = base(tmp_path).network.train()
    train_only(plain, "image")
    thrifty = copy.deepcopy(plain)
    assert checkpoint_blocks(thrifty) > 8
    x = faces()
    kept, gradients = [], []
    for network in (plain, copy.deepcopy(thrifty)):
        weights = {value.data_ptr() for value in network.parameters()}
        sizes: list[int] = []

        def pack(value: torch.Tensor, sizes: list[int] = sizes, weights: set[int] = weights) -> torch.Tensor:
            sizes.append(0 if value.data_ptr() in weights else value.nbytes)
            return value

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            picture = answer(network, x, Use()).picture
            forward = sum(sizes)
        assert picture is not None
        picture.square().mean().backward()
        kept.append(forward)
        gradients.append({name: value.grad for name, value in network.named_parameters() if value.grad is not None})
    assert kept[1] < 0.5 * kept[0], kept
    assert gradients[0].keys() == gradients[1].keys()
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, rtol=1e-3, atol=1e-6)
    assert thrifty.state_dict().keys() == plain.state_dict().keys()


def test_batches_are_deterministic_and_include_rehearsal(tmp_path: Path) -> None:
    def batch(rehearsal: float, step: int = 3) -> dict:
        options = replace(planned("short", "image", batch=32), rehearsal=rehearsal)
        stage = ImageFineTuneStage(Use(), pairs(), options, tmp_path, CPU)
        return stage.batch(step, generator_for("a", step))

    one, again = batch(0.5), batch(0.5)
    assert all(torch.equal(one[name], again[name]) for name in one)
    plain, mixed = batch(0.0), batch(0.5)
    changed = [not torch.equal(a, b) for a, b in zip(plain["source"], mixed["source"], strict=True)]
    assert 8 <= sum(changed) <= 24 and torch.equal(plain["target"], mixed["target"])
    for image, which in zip(plain["target"], plain["which"].tolist(), strict=True):
        wanted = pairs().pair(which // 2)[1] * 2 - 1
        assert torch.equal(image, wanted.flip(-1) if which % 2 else wanted)


@pytest.mark.parametrize(("make", "share"), [(small_swinir, 0.9), (small_denoiser, 0.995)])
def test_spandrel_networks_are_fine_tuned_and_load_again(make, share: float, tmp_path: Path) -> None:
    pytest.importorskip("spandrel")
    torch.manual_seed(0)
    state = make().state_dict()
    torch.save({"params_ema": state}, tmp_path / "base.pth")
    found = base_from_file(tmp_path / "base.pth")
    found.side = SIDE
    options = replace(planned("short", "image", steps=10, rate=3e-3, batch=4), perceptual=0.1, rehearsal=0.0, checkpointing=True)
    run = Run(tmp_path / "w", precision=None)
    done = fine_tune(found, pairs(), options, run, tmp_path / "x.safetensors")
    assert done.after[LOSS] < share * done.before[LOSS], done.text  # ten steps show in what is learnt, not yet in decibels
    assert load_file(tmp_path / "x.safetensors").keys() == state.keys()
    again = load_network(tmp_path / "x.safetensors")
    assert again.kind == "spandrel" and "own first features" in done.text
    # dropped paths are drawn from seed and step: the same again, and the same when interrupted
    found = base_from_file(tmp_path / "base.pth")
    found.side = SIDE

    class Stop(BaseException):
        pass

    def tick(stage: str, step: int, steps: int, losses: dict) -> None:
        if step == 7:
            raise Stop

    with pytest.raises(Stop):
        fine_tune(found, pairs(), options, replace(run, folder=tmp_path / "v"), tmp_path / "y.safetensors", tick=tick)
    found = base_from_file(tmp_path / "base.pth")
    found.side = SIDE
    fine_tune(found, pairs(), options, replace(run, folder=tmp_path / "v"), tmp_path / "y.safetensors")
    torch.testing.assert_close(load_file(tmp_path / "y.safetensors"), load_file(tmp_path / "x.safetensors"), rtol=1e-4, atol=1e-5)
