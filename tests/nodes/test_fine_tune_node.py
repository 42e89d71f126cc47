"""Pseudo-Target Fine-tune as a user meets it: a file that loads, a restorer at once, the base untouched; also inside ComfyUI."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.comfyui_process import in_comfyui, needs_comfyui
from helpers.tiny_pairs import file_of, noisy
from safetensors.torch import load_file

from fvr import headless, host
from fvr.assembly import restorer_files
from fvr.finetune.stage import CodeFineTuneStage
from fvr.nodes import registry
from fvr.nodes.fine_tune import PseudoTargetFineTune
from fvr.nodes.restorers import LoadFaceRestorer, RestoreFaces
from fvr.workflows import bundled

PROGRAM = (Path(__file__).parent / "fine_tune_program.py").read_text(encoding="utf-8")
QUICK = dict(steps=6, learning_rate=1e-3, batch=2)
QUICKEST = dict(steps=1)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A models folder with one small CodeFormer, and an output folder."""
    models = tmp_path / "models"
    (models / "facerestore_models").mkdir(parents=True)
    (models / "face_video_restoration").mkdir()
    file_of(models / "facerestore_models", notes={"licence": "MIT, mine"})
    monkeypatch.setenv("FVR_MODELS", str(models))
    with host.workspace(input=tmp_path, output=tmp_path / "output", temp=tmp_path / "temp"):
        yield tmp_path


def crops():
    """inputs and targets as IMAGE batches."""
    return [part.permute(0, 2, 3, 1).contiguous() for part in noisy()]


def tune(name="mine", **changes):
    """The node called as ComfyUI does it, everything made and run in inference mode."""
    with torch.inference_mode():
        restorer = changes.pop("restorer", None) or LoadFaceRestorer.execute(model="base-codeformer.safetensors").result[0]
        inputs, targets = (part.clone() for part in crops())
        return restorer, PseudoTargetFineTune.execute(restorer, inputs, targets, name, **{**QUICK, **changes})


def test_a_file_a_restorer_and_what_was_measured(home):
    restorer, out = tune(recipe="image", save_as="float16")
    tuned, curves, sheet, report = out.result
    path = home / "models" / "face_video_restoration" / "mine.safetensors"
    assert "mine.safetensors" in restorer_files() and "MIT, mine" in report and "16 pairs" in report
    assert {value.dtype for value in load_file(path).values()} == {torch.float16}
    loaded, about = LoadFaceRestorer.execute(model="mine.safetensors").result
    assert "MIT, mine" in about
    frames = crops()[0][:2]
    given, chosen, before = (RestoreFaces.execute(restorer=r, frames=frames).result[1] for r in (tuned, loaded, restorer))
    assert torch.equal(given, chosen) and not torch.equal(given, before)
    assert curves.shape[-1] == sheet.shape[-1] == 3 and curves.std() > 0.01 and sheet.std() > 0.05
    assert not any(parameter.requires_grad for parameter in restorer.network.parameters())
    (info,) = json.loads(json.dumps(out.ui["report"], allow_nan=False))
    assert Path(info["folder"]) / info["file"] == path and f"written to {path}" in report
    assert (info["file"], info["base_file"], info["seed"]) == ("mine.safetensors", "base-codeformer.safetensors", 0) and info["licence"] in report
    for name, value in info["held_out"]["before"].items():
        assert f"{name}: {value:.4g} before, {info['held_out']['after'][name]:.4g} after" in report
    assert f"of step {info['steps']}" in report.replace("\n", " ")


def test_settings_of_the_restorer_stay(home):
    with torch.inference_mode():
        restorer = LoadFaceRestorer.execute(model="base-codeformer.safetensors").result[0].configured(fidelity=0.3, batch=2)
    tuned = tune(restorer=restorer)[1].result[0]
    assert (tuned.options.fidelity, tuned.options.batch, tuned.name) == (0.3, 2, "codeformer")


def test_the_same_settings_again_give_the_same_without_training(home, monkeypatch):
    first = tune()[1]
    _, curves, sheet, report = first.result
    stamp = (home / "models" / "face_video_restoration" / "mine.safetensors").stat().st_mtime_ns
    repeated = tune()[1]
    again = repeated.result
    assert (home / "models" / "face_video_restoration" / "mine.safetensors").stat().st_mtime_ns == stamp
    assert repeated.ui["report"] == first.ui["report"] and again[3] == report and torch.equal(again[1], curves) and torch.equal(again[2], sheet)
    with pytest.raises(ValueError, match="exists and was made with other settings; choose another file_name, or switch overwrite on"):
        tune(seed=1)
    tune(seed=1, overwrite=True)
    assert (home / "models" / "face_video_restoration" / "mine.safetensors").stat().st_mtime_ns != stamp


def test_save_as_counts_among_the_settings(home):
    """No file of other numbers than asked for, and no report that speaks of others than the file has."""

    def info(**changes):
        report = tune(**QUICKEST, **changes)[1].result[3]
        kinds = {str(value.dtype)[6:] for value in load_file(path).values()}
        assert len(kinds) == 1 and f"pairs, {kinds.pop()}; " in report
        return report

    path = home / "models" / "face_video_restoration" / "mine.safetensors"
    plain = info()
    with pytest.raises(ValueError, match="exists and was made with other settings"):
        info(save_as="float16")
    assert info() == plain
    halved = info(save_as="float16", overwrite=True)
    assert path.is_file() and "pairs, float16; " in halved
    stamp = path.stat().st_mtime_ns
    assert info(save_as="float16") == halved and path.stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="exists and was made with other settings"):
        info(save_as="float32")


def test_a_file_outlives_its_pictures(home, monkeypatch):
    """Its own settings never count as others, whatever became of the output folder."""
    first = tune(**QUICKEST)[1]
    path = home / "models" / "face_video_restoration" / "mine.safetensors"
    stamp = path.stat().st_mtime_ns
    shutil.rmtree(home / "output")
    monkeypatch.setattr("fvr.nodes.fine_tuning.fine_tune", None)  # nothing is learnt
    again = tune(**QUICKEST)[1]
    assert path.stat().st_mtime_ns == stamp and again.ui["report"] == first.ui["report"]
    (folder,) = first.result[3].splitlines()[-1:]
    assert "curves and before_after of that run are no longer in" in again.result[3] and folder in again.result[3]
    assert set(first.result[3].splitlines()) < set(again.result[3].splitlines())
    for shown in again.result[1:3]:
        assert shown.ndim == 4 and 0 < (shown < 0.5).float().mean() < 0.2  # words on a white page


def test_a_process_that_died_once_the_file_was_there_has_nothing_to_do_again(home, monkeypatch):
    from fvr.finetune.run import write_fine_tuned

    def write_and_die(*args, **kwargs):
        write_fine_tuned(*args, **kwargs)
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr("fvr.finetune.run.write_fine_tuned", write_and_die)
        with pytest.raises(SystemExit):
            tune(**QUICKEST)
    monkeypatch.setattr("fvr.nodes.fine_tuning.fine_tune", None)
    _, curves, sheet, report = tune(**QUICKEST)[1].result
    assert "held-out dB" in report and "no longer" not in report and sheet.std() > 0.05 and curves.std() > 0.01


def test_a_broken_file_is_somebodys_and_may_be_replaced(home):
    path = home / "models" / "face_video_restoration" / "mine.safetensors"
    path.write_bytes(b"junk")
    with pytest.raises(ValueError, match="switch overwrite on"):
        tune(**QUICKEST)
    assert path.read_bytes() == b"junk"
    assert "held-out dB" in tune(**QUICKEST, overwrite=True)[1].result[3]


@pytest.mark.parametrize("place", ["models", "output"])
def test_places_that_cannot_be_written_are_told_before_anything_is_learnt(home, place, monkeypatch):
    """A file where a folder should be: whoever runs the tests may write into any folder."""
    blocked = home / "blocked" if place == "models" else home / "output"
    blocked.write_bytes(b"x")
    if place == "models":
        monkeypatch.setattr("fvr.nodes.fine_tuning.output_path", lambda name: blocked / name)
    monkeypatch.setattr("fvr.training.engine._StageRun._step", None)  # one step would fail
    with pytest.raises(ValueError, match=rf"cannot be written into {blocked} |the folder {blocked}.* cannot be made"):
        tune()
    assert blocked.read_bytes() == b"x" and not list(home.rglob("*.part"))


def test_clean_faces_are_hashed_once(home, monkeypatch):
    from fvr.finetune.run import digest_of

    times = []
    monkeypatch.setattr("fvr.finetune.run.digest_of", lambda pictures: times.append(len(pictures)) or digest_of(pictures))
    tune(**QUICKEST, clean_faces=crops()[1][:3], recipe="image")
    assert times == [3]


@pytest.mark.parametrize(("name", "said"), [("../x", "holds /"), ("", "is empty"), ("KEEP-b76feb75", "published"), ("my flair", "diffusion prior")])
def test_a_bad_name_is_found_before_the_pairs_are_made(home, name, said):
    assert said in PseudoTargetFineTune.validate_inputs(file_name=name)


def test_somebody_elses_file_is_found_before_the_pairs_are_made(home):
    """One that a run left may be taken up again, which its settings decide; what is switched on or comes by a wire is not refused."""
    theirs = home / "models" / "face_video_restoration" / "theirs.safetensors"
    shutil.copyfile(home / "models" / "facerestore_models" / "base-codeformer.safetensors", theirs)
    assert "choose another file_name" in PseudoTargetFineTune.validate_inputs(file_name="theirs")
    assert PseudoTargetFineTune.validate_inputs(file_name="theirs", overwrite=True) is True
    assert PseudoTargetFineTune.validate_inputs(file_name="theirs", overwrite=None) is True
    assert PseudoTargetFineTune.validate_inputs(file_name="new") is True


def test_a_prompt_with_faults_does_not_start(home):
    """The bundled workflow with a name that will not do: it is said before targets are made, and a wired name is left to the run."""
    prompt = headless.load_prompt(bundled("adapt_to_my_archive"))
    (home / "clip.mp4").write_bytes(b"x")
    named = {node["class_type"]: node["inputs"] for node in prompt.values()}
    named["FVRLoadVideoFrames"]["file"] = "clip.mp4"
    named["FVRPseudoTargetFineTune"]["file_name"] = "../x"
    found = {error.class_type: str(error) for error in headless.validate(prompt, registry())}
    assert "the file name '../x' holds /" in found.pop("FVRPseudoTargetFineTune")
    assert not [text for kind, text in found.items() if kind.startswith("FVRPseudo")]
    assert PseudoTargetFineTune.validate_inputs(file_name=None) is True and PseudoTargetFineTune.validate_inputs(file_name="my-archive") is True


def test_a_stop_says_where_it_is_kept_and_the_same_settings_go_on(home, monkeypatch, capsys):
    real = CodeFineTuneStage.begin

    def begin(self, step, generator):
        if step == 3:
            host.interrupt()
        real(self, step, generator)

    monkeypatch.setattr(CodeFineTuneStage, "begin", begin)
    with pytest.raises(host.Interrupted):
        tune()
    host.clear_interrupt()
    (folder,) = (home / "output" / "fine-tune").iterdir()
    done = torch.load(folder / "state.pt", weights_only=True)["step"]
    assert 0 < done < 6 and f"Stopped after {done} of 6 steps; the state is in {folder}" in capsys.readouterr().err
    assert not (home / "models" / "face_video_restoration" / "mine.safetensors").exists()
    seen = []
    monkeypatch.setattr(CodeFineTuneStage, "begin", lambda self, step, generator: seen.append(step))
    tune()
    assert seen[0] == done  # no step twice


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "../x"}, "holds /"),
        ({"name": "KEEP-b76feb75"}, "name of a published checkpoint"),
        ({"name": "my flair"}, "would be listed as a diffusion prior"),
        ({"held_out": 0.5, "block": 1}, "left to learn from"),
        ({"clean_faces": torch.zeros(1, 32, 48, 3)}, "got pictures of 48 x 32 pixels, but crops of aligned faces are square"),
        ({"restorer": object()}, "trains a network, and the wired restorer is"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(home, changes, said):
    if "restorer" in changes:
        from fvr.methods.registry import build_restorer

        changes = {"restorer": build_restorer("flair")}
    with pytest.raises(ValueError, match=said):
        tune(**changes)


def test_the_command_line_does_the_same(home, capsys):
    import cv2

    from fvr.cli import main

    for part, images in zip(("inputs", "targets"), crops(), strict=True):
        (home / "pairs" / part).mkdir(parents=True)
        for number, image in enumerate(images):
            cv2.imwrite(str(home / "pairs" / part / f"{number:06}.png"), (image.numpy() * 255 + 0.5).astype("uint8")[..., ::-1])
    base, out = home / "models" / "facerestore_models" / "base-codeformer.safetensors", home / "cli.safetensors"
    command = ["finetune", "--base", str(base), "--pairs", str(home / "pairs"), "--out", str(out), "--steps", "6", "--rate", "1e-3", "--batch", "2"]
    command += ["--recipe", "image", "--device", "cpu"]
    assert main([*command, "--minutes", "1e-9"]) == 130 and not out.exists()
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "stopped in stage fine-tune after 1 of 6 steps" in said and "held-out dB" in said and str(out) in said
    tune(recipe="image")
    node, cli = (load_file(path) for path in (home / "models" / "face_video_restoration" / "mine.safetensors", out))
    for key, value in node.items():
        torch.testing.assert_close(cli[key], value, rtol=1e-3, atol=1e-4)
    assert main(command) == 1 and "--overwrite" in capsys.readouterr().err
    assert main([*command[:2], "embedded nothing", *command[3:], "--overwrite"]) == 1


EXPECTED = {
    "made in inference mode": True,
    "file": True,
    "changed": ["encoder", "feat_emb", "ft_layers", "idx_pred_layer", "position_emb"],
    "same as loaded": True,
    "base untouched": [True, True],
    "inference mode": True,
    "pictures": [[1, 3], [1, 3]],
    "stopped": "InterruptProcessingException",
    "state": True,
    "went on": True,
    "trainable again": True,
}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comfy")
    return in_comfyui(PROGRAM, FOLDER=str(folder), BASE=str(file_of(folder)))


@needs_comfyui
@pytest.mark.parametrize("what", EXPECTED)
def test_inside_comfyui(what, said):
    assert said[what] == EXPECTED[what]


@needs_comfyui
def test_a_stop_inside_comfyui_is_heard_soon(said):
    assert 0 <= said["stopped after"] < 5
