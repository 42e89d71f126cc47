"""Fine-tuning on toy footage: what is fixed stays to the bit, what is held out improves, stops lose nothing, and the file tells its story."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.tiny_pairs import SIDE, base, file_of, networks, noisy, pairs
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from fvr.finetune.base_model import base_from_file, base_of
from fvr.finetune.checkpoint import validated_name
from fvr.finetune.dataset import Pairs
from fvr.finetune.options import PAPER, FineTune, HeldOut, planned
from fvr.finetune.run import FineTuned, fine_tune, fingerprint, options_for, precision_for
from fvr.finetune.stage import LOSS, QUALITY, ImageFineTuneStage
from fvr.methods.codeformer import CodeFormerRestorer
from fvr.methods.registry import restorer_from
from fvr.models.checkpoints.load import load_network
from fvr.training.engine import STATE, Run

OUR_PARTS = {"encoder", "position_emb", "feat_emb", "ft_layers", "idx_pred_layer"}


def quick(recipe: str, steps: int = 6, **changes) -> FineTune:
    found = planned("short", recipe, steps=steps, rate=1e-3, batch=2)  # type: ignore[arg-type]
    return replace(found, plan=replace(found.plan, accumulate=1, ema=0.5), **changes)


def tuned(folder: Path, kind: str, options: FineTune, name: str = "out", **more) -> FineTuned:
    settings = Run(folder / f"{name}-work", precision=None, save_every=100)
    return fine_tune(base(folder, kind), more.pop("pairs", None) or pairs(), options, settings, folder / f"{name}.safetensors", **more)


def changed_parts(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}


@pytest.mark.parametrize("kind", ["codeformer", "keep", "dicface"])
def test_the_code_recipe_trains_only_encoder_transformer_and_heads(kind: str, tmp_path: Path) -> None:
    done = tuned(tmp_path, kind, quick("codes"))
    assert changed_parts(load_file(tmp_path / f"base-{kind}.safetensors"), load_file(tmp_path / "out.safetensors")) == OUR_PARTS
    assert done.loaded.kind == kind and done.after[LOSS] < done.before[LOSS]


@pytest.mark.parametrize(("kind", "fixed"), [("codeformer", {"quantize", "generator"}), ("restoreformer", {"quantize"})])
def test_the_image_recipe_trains_all_but_codebook_and_generator(kind: str, fixed: set[str], tmp_path: Path) -> None:
    tuned(tmp_path, kind, quick("image"))
    before = load_file(tmp_path / f"base-{kind}.safetensors")
    assert changed_parts(before, load_file(tmp_path / "out.safetensors")) == {key.split(".")[0] for key in before} - fixed


def test_held_out_images_improve_only_by_training(tmp_path: Path) -> None:
    options = quick("image", 25, perceptual=0.0, rehearsal=0.0)
    learnt = tuned(tmp_path, "codeformer", options)
    assert learnt.after[QUALITY] > learnt.before[QUALITY] + 1, learnt.text
    source, target = noisy()
    wrong = Pairs.of_images(source, target.flip(-1).flip(-2).roll(5, 0), SIDE)
    astray = tuned(tmp_path, "codeformer", replace(options, plan=replace(options.plan, steps=10)), "astray", pairs=wrong)
    assert astray.after[QUALITY] < learnt.after[QUALITY] - 1, astray.text


def test_training_that_does_not_help_writes_the_base(tmp_path: Path) -> None:
    """A rate that destroys: the file holds the base's weights, and says so; patience ends it early."""
    wild = quick("image", 200, patience=2, perceptual=0.0)
    done = tuned(tmp_path, "codeformer", replace(wild, plan=replace(wild.plan, rate=3.0, final_rate=3.0, warmup=0)))
    assert done.best_step == 0 and done.before == done.after and done.steps == 20
    assert "nothing beat the base" in done.text
    assert not changed_parts(load_file(tmp_path / "base-codeformer.safetensors"), load_file(tmp_path / "out.safetensors"))


class Interruption(BaseException):
    """A host's way of stopping."""


class Heart:
    """Raises at the given beats."""

    def __init__(self, *at: int) -> None:
        self.at, self.beats = at, 0

    def __call__(self) -> None:
        self.beats += 1
        if self.beats in self.at:
            raise Interruption


def gathered(adversary: float) -> FineTune:
    options = quick("image", 7, adversary=adversary, perceptual=0.0)
    return replace(options, plan=replace(options.plan, accumulate=2, ema=0.9))


@pytest.mark.parametrize("options", [quick("codes", 7), gathered(0.1)], ids=["codes", "adversary, two passes a step"])
def test_a_stopped_run_resumes_to_the_same_weights(options: FineTune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFineTuneStage, "width", 8)
    tuned(tmp_path, "codeformer", options, "whole")
    passes = options.plan.accumulate
    for beat, reached in ((1 + 3 * passes, 2), (1 + 3 * passes + 1, 5)):  # at the end of a step's passes, and while it judges
        with pytest.raises(Interruption):
            tuned(tmp_path, "codeformer", options, "parts", check_interrupt=Heart(beat))
        assert torch.load(tmp_path / "parts-work" / STATE, weights_only=True)["step"] == reached
        assert (tmp_path / "parts-work" / STATE).is_file() and not (tmp_path / "parts.safetensors").exists()

    def tick(stage: str, done: int, steps: int, losses: dict) -> None:
        if done == 6:
            raise Interruption

    with pytest.raises(Interruption):
        tuned(tmp_path, "codeformer", options, "parts", tick=tick)
    assert torch.load(tmp_path / "parts-work" / STATE, weights_only=True)["step"] == 6
    tuned(tmp_path, "codeformer", options, "parts")
    whole, parts = (load_file(tmp_path / f"{name}.safetensors") for name in ("whole", "parts"))
    for key, value in whole.items():
        torch.testing.assert_close(parts[key], value, rtol=1e-4, atol=1e-5)
    assert not (tmp_path / "parts-work" / STATE).exists()
    logs = [json.loads((tmp_path / f"{name}-work" / "fine-tune.json").read_text()) for name in ("whole", "parts")]
    assert [entry["step"] for entry in logs[0]] == [entry["step"] for entry in logs[1]] == [5, 7]


def test_a_state_of_other_settings_is_not_resumed(tmp_path: Path) -> None:
    found, data = base(tmp_path), pairs()
    run = Run(tmp_path / "w", precision=None)
    mark = fingerprint(found, data, quick("codes"), run)
    assert mark == fingerprint(base(tmp_path), pairs(), quick("codes"), replace(run, folder=tmp_path, save_every=3))
    others = [(quick("codes", 7), run, data), (quick("codes"), replace(run, seed=1), data), (quick("codes"), run, pairs(15))]
    assert mark not in {fingerprint(found, other, options, settings) for options, settings, other in others}
    with pytest.raises(Interruption):
        tuned(tmp_path, "codeformer", quick("codes"), check_interrupt=Heart(9))
    with pytest.raises(ValueError, match="another run"):
        tuned(tmp_path, "codeformer", quick("codes", 7))


def test_metadata_hold_origin_and_licence(tmp_path: Path) -> None:
    first = file_of(tmp_path, notes={"licence": "MIT, mine", "adain": "off", "fidelity": "1", "seed": "77", "command": "fvr train codebook"})
    found = base_from_file(first)
    assert (found.use.fidelity, found.use.match) == (1.0, False) and options_for(found).recipe == "image"
    done = fine_tune(found, pairs(), quick("image"), Run(tmp_path / "w", seed=5, precision=None), tmp_path / "mine.safetensors", half=True)
    with safe_open(tmp_path / "mine.safetensors", "pt") as file:
        notes = file.metadata()
    import hashlib

    assert notes["base_file"] == first.name and notes["base_sha256"] == hashlib.sha256(first.read_bytes()).hexdigest()
    assert (notes["licence"], notes["seed"], notes["adain"], notes["pairs"]) == ("MIT, mine", "5", "off", "16, of which 13 learnt")
    assert "image" in notes["recipe"] and "command" not in notes and notes["steps"] == str(done.best_step)
    assert {value.dtype for value in load_file(tmp_path / "mine.safetensors").values()} == {torch.float16}
    again = load_network(tmp_path / "mine.safetensors")
    assert again.kind == "codeformer" and again.licence == "MIT, mine" and done.loaded.notes == again.notes
    restorer = restorer_from(again)
    assert isinstance(restorer, CodeFormerRestorer) and (restorer.weight, restorer.match) == (1.0, False)
    assert "MIT, mine" in done.text and "float16" in done.text
    assert done.curves.stat().st_size > 1000 and done.sheet.stat().st_size > 1000


def test_the_catalogues_licence_is_copied(tmp_path: Path) -> None:
    path = file_of(tmp_path).rename(tmp_path / "codeformer.safetensors")
    done = fine_tune(base_from_file(path), pairs(), quick("codes"), Run(tmp_path / "w", precision=None), tmp_path / "x.safetensors")
    assert done.loaded.licence == "S-Lab License 1.0: not for commercial use"


def test_a_file_on_a_base_becomes_self_contained(tmp_path: Path) -> None:
    from fvr.training.card import Card, export

    card = Card("t", "w", "d", "Apache-2.0", "r", "c", 0, "b")
    network = networks()["codeformer"]
    export(network.state_dict(), tmp_path / "one.safetensors", card)
    with torch.no_grad():
        network.feat_emb.weight.add_(1)
    export(network.state_dict(), tmp_path / "two.safetensors", card, base=tmp_path / "one.safetensors")
    assert len(load_file(tmp_path / "two.safetensors")) == 1
    done = fine_tune(base_from_file(tmp_path / "two.safetensors"), pairs(), quick("codes"), Run(tmp_path / "w"), tmp_path / "x.safetensors")
    assert set(load_file(tmp_path / "x.safetensors")) == set(network.state_dict())
    assert done.loaded.notes["base_file"] == "two.safetensors + one.safetensors" and len(done.loaded.notes["base_sha256"]) == 2 * 64 + 3


def test_the_base_is_read_from_the_restorers_file_and_the_restorer_unchanged(tmp_path: Path) -> None:
    path = file_of(tmp_path)
    restorer = restorer_from(load_network(path, torch.bfloat16)).configured(fidelity=0.25)
    state = {key: value.clone() for key, value in restorer.network.state_dict().items()}
    found = base_of(restorer)
    assert (found.file, found.use.fidelity, found.use.match) == (path.name, 0.25, True) and found.network is not restorer.network
    fine_tune(found, pairs(), quick("codes"), Run(tmp_path / "w", precision=None), tmp_path / "x.safetensors")
    after = restorer.network.state_dict()
    assert all(torch.equal(value, after[key]) and value.dtype == after[key].dtype for key, value in state.items())
    assert not any(parameter.requires_grad for parameter in restorer.network.parameters()) and not restorer.network.training

    with torch.no_grad():
        restorer.network.encoder.blocks[0].weight.add_(1)
    stray = base_of(restorer)
    assert stray.file == "unknown" and torch.equal(stray.network.encoder.blocks[0].weight, restorer.network.encoder.blocks[0].weight)
    assert {parameter.dtype for parameter in stray.network.parameters()} == {torch.float32}


@pytest.mark.parametrize(("precision", "expected"), [("float16", torch.float16), ("bfloat16", torch.bfloat16), ("auto", None)])
def test_training_works_in_reduced_precision(precision: str, expected: torch.dtype | None, tmp_path: Path) -> None:
    assert precision_for(precision, "cpu") == expected
    if precision == "auto":
        return
    options = quick("image", 3, perceptual=0.0, rehearsal=0.0)
    done = fine_tune(base(tmp_path), pairs(8), options, Run(tmp_path / "w", precision=expected), tmp_path / "x.safetensors")
    assert done.after[LOSS] < 0.95 * done.before[LOSS]


def test_invalid_file_names_are_refused() -> None:
    assert validated_name(" my camera-2.safetensors") == "my camera-2.safetensors"
    for name, said in {
        "../x": "holds /",
        "": "is empty",
        "codeformer": "name of a published checkpoint",
        "a\\b": "holds \\\\",
        ".x": "hidden",
    }.items():
        with pytest.raises(ValueError, match=said):
            validated_name(name)


def test_invalid_options_raise_one_sentence(tmp_path: Path) -> None:
    found = base(tmp_path, "restoreformer")
    assert options_for(found).recipe == "image" and options_for(base(tmp_path)).recipe == "codes"
    with pytest.raises(ValueError, match="predicts no codes"):
        tuned(tmp_path, "restoreformer", quick("codes"))
    with pytest.raises(ValueError, match="one of auto, codes, image"):
        options_for(found, recipe="both")
    with pytest.raises(ValueError, match="no plan of fine-tuning is called 'long'; choose one of short, paper"):
        options_for(found, plan="long")
    with pytest.raises(ValueError, match="LPIPS needs the package"):
        tuned(tmp_path, "codeformer", quick("image", perceptual_by="lpips"))
    with pytest.raises(ValueError, match="left to learn from"):
        tuned(tmp_path, "codeformer", quick("codes", held_out=HeldOut(0.5, guard=9)))
    paper = PAPER["codes"].plan
    assert (paper.steps, paper.rate, paper.rate_at(34_999), paper.rate_at(35_000), paper.rate_at(38_000)) == (40_000, 1e-4, 1e-4, 5e-5, 2.5e-5)
    shorter = planned("paper", "codes", steps=400, batch=2).plan
    assert (shorter.milestones, shorter.batch, shorter.accumulate) == ((350, 380), 2, 4)
