"""`fvr restore` with trained networks: frames of a folder through small networks in real files."""

from __future__ import annotations

import json

import pytest
import torch
from helpers.code_networks import moving, small_codeformer, small_dicface
from helpers.small_keep import small_keep
from safetensors.torch import save_file

from fvr.cli import main
from fvr.methods.base import restore_frames
from fvr.methods.codeformer import CodeFormerOptions, CodeFormerRestorer
from fvr.methods.dicface import DicFaceOptions, DicFaceRestorer
from fvr.methods.keep import KeepOptions, KeepRestorer
from fvr.video import FrameTimes, open_sink, read_frames

MAKE = {"codeformer": small_codeformer, "keep": small_keep, "dicface": small_dicface}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder of five aligned frames and a file for each method."""
    folder = tmp_path_factory.mktemp("methods")
    times = FrameTimes.constant(5, 25)
    with open_sink(folder / "in", None, size=(512, 512)) as sink:
        sink.write(torch.nn.functional.interpolate(moving(5), (512, 512)), times.starts, times.ends)
    for name, make in MAKE.items():
        save_file({key: value.contiguous() for key, value in make().state_dict().items()}, folder / f"{name}.safetensors")
    return folder


CASES = [
    ("codeformer", ["fidelity=0.7"], lambda: CodeFormerRestorer(small_codeformer(), CodeFormerOptions(fidelity=0.7))),
    ("codeformer", ["smoothing=1"], lambda: CodeFormerRestorer(small_codeformer(), CodeFormerOptions(smoothing=1))),
    ("keep", ["reset_every=2"], lambda: KeepRestorer(small_keep(), KeepOptions(reset_every=2))),
    ("dicface", ["dirichlet=sample", "fidelity=0.5"], lambda: DicFaceRestorer(small_dicface(), DicFaceOptions(fidelity=0.5, dirichlet="sample"))),
]


@pytest.mark.parametrize(("method", "settings", "make"), CASES)
def test_the_command_line_gives_the_engines_pixels(method, settings, make, work, tmp_path):
    arguments = ["restore", "--method", method, "--weights", str(work / f"{method}.safetensors"), "--aligned", "--seed", "3"]
    assert main([*arguments, *[part for setting in settings for part in ("--set", setting)], str(work / "in"), str(tmp_path / "out")]) == 0
    frames, _ = read_frames(work / "in")
    expected = restore_frames(make(), frames, seed=3)
    restored, _ = read_frames(tmp_path / "out")
    assert (restored - expected).abs().max() <= 0.51 / 255


def test_weights_in_a_model_folder_need_no_name(work, tmp_path, monkeypatch):
    (tmp_path / "models" / "facerestore_models").mkdir(parents=True)
    (work / "codeformer.safetensors").rename(tmp_path / "models" / "facerestore_models" / "codeformer.safetensors")
    monkeypatch.setenv("FVR_MODELS", str(tmp_path / "models"))
    try:
        report = tmp_path / "report.json"
        assert main(["restore", "--method", "codeformer", "--aligned", str(work / "in"), str(tmp_path / "out"), "--report", str(report)]) == 0
        assert json.loads(report.read_text())["method"] == "codeformer"
    finally:
        (tmp_path / "models" / "facerestore_models" / "codeformer.safetensors").rename(work / "codeformer.safetensors")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--method", "codeformer", "--set", "mode=colourise"], "codeformer_colorization.pth"),
        (["--method", "dicface", "--set", "mode=colorize"], "dicface: mode must be one of restore, colourise, inpaint, got 'colorize'"),
        (["--method", "keep", "--weights", "embedded kept"], "no weights are called 'embedded kept'; there are embedded blind, embedded codeformer"),
        (["--method", "dicface", "--weights", "embedded dicface colourise"], "trained to colourise, and the mode is restore: set the mode to"),
        (["--method", "keep", "--weights", "codeformer.safetensors"], "restore with --method codeformer"),
        (["--method", "codeformer", "--weights", "in"], "in does not exist"),
        (["--method", "codeformer", "--weights", "codeformer.safetensors", "--set", "fidelity=2"], "fidelity must lie between 0 and 1, got 2"),
        (["--method", "dicface", "--weights", "dicface.safetensors", "--set", "dirichlet=mode"], "dirichlet must be one of mean, sample"),
    ],
)
def test_wrong_weights_and_settings_are_one_sentence(arguments, sentence, work, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(work)
    monkeypatch.setenv("FVR_MODELS", str(tmp_path / "none"))
    assert main(["restore", "--aligned", *arguments, "in", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("fvr: ") and sentence in error
    assert not (tmp_path / "out").exists()
