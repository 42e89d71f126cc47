"""What the command line says before it has loaded anything heavy, and what it says while it works."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from fvr import host
from fvr.cli import main
from fvr.demo import rounded_duration, run_demo
from fvr.methods.registry import methods
from fvr.record import device_name, version

WITHOUT_TORCH = """
import sys
class NoTorch:
    def find_spec(self, name, path, target=None):
        if name == "torch":
            sys.stderr.write("TORCH\\n")
            sys.stderr.flush()
            sys.exit(3)
sys.meta_path.insert(0, NoTorch())
from fvr.cli import main
sys.exit(main(sys.argv[1:]))
"""


def without_torch(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a process that ends where PyTorch, which takes seconds, is imported."""
    return subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["finetune", "--help"]], ids=" ".join)
def test_help_needs_no_torch(arguments):
    assert without_torch(*arguments).returncode == 0


def test_the_bare_command_shows_the_help():
    done = without_torch()
    assert done.returncode == 0 and done.stdout.endswith("example: fvr restore clip.mp4 restored.mp4\n")


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0 and capsys.readouterr().out == f"fvr {version()}\n"


def test_the_demo_speaks_before_torch_is_loaded(tmp_path):
    done = without_torch("demo", "--frames", "7", "--output-dir", str(tmp_path / "demo"))
    first, *others = done.stderr.splitlines()
    assert done.returncode == 3 and first.startswith("fvr demo: ") and "7 frames" in first and others == ["TORCH"]


def test_help_of_restore_names_every_method_with_its_use(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    with pytest.raises(SystemExit) as left:
        main(["restore", "--help"])
    text = capsys.readouterr().out
    assert left.value.code == 0 and max(map(len, text.splitlines())) <= 90
    said = " ".join(text.split("methods:")[1].split())
    for spec in methods().values():
        assert f"{spec.name} {spec.summary}" in said


def test_the_demo_says_how_long_it_will_take_and_where_it_is(tmp_path):
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    lines: list[str] = []
    text = run_demo(tmp_path, frames=1, seed=3, say=lines.append)
    assert re.match(r"1 frames? takes? about \d+ (seconds|minutes) on ", lines[0])
    steps = [re.fullmatch(r" *\d+ s  step (\d+) of (\d+): (.+)", line) for line in lines[1:]]
    assert all(steps) and [int(step[1]) for step in steps] == list(range(1, int(steps[0][2]) + 1))
    figures = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert figures["seed"] == 3 and figures["device"] == device_name(host.device()) and figures["version"] and "step" not in text


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "5 seconds"), (62, "60 seconds"), (89, "90 seconds"), (100, "2 minutes"), (610, "10 minutes")])
def test_an_estimate_has_few_digits(seconds, words):
    assert rounded_duration(seconds) == words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["restore", "a.mp4", "b.mp4", "--degredation", "x"], "fvr restore: '--degredation' is not understood here (did you mean --degradation?)"),
        (["restore", "my", "clip.mp4", "b.mp4"], "fvr restore: 'b.mp4' is not understood here (names with spaces are put in quotes)"),
        (["restore", "a.mp4", "b.mp4", "--crf", "low"], "fvr restore: argument --crf: invalid int value: 'low'"),
        (["restore", "a.mp4", "b.mp4", "--min-size", "nan"], "fvr restore: argument --min-size: is a number from 0 on, got 'nan'"),
        (["restore", "a.mp4", "b.mp4", "--segment-seconds", "0"], "fvr restore: argument --segment-seconds: is a number above 0, got '0'"),
        (["restore", "a.mp4", "b.mp4", "--test-seconds", "-1"], "fvr restore: argument --test-seconds: is a number above 0, got '-1'"),
        (["restore", "a.mp4", "b.mp4", "--seed", "1" * 30], f"fvr restore: argument --seed: is a whole number from 0 to 2^63 - 1, got '{'1' * 30}'"),
        (
            ["restore", "--", "-a.mp4", "-b.mp4", "--seed", "1"],
            "fvr restore: --seed comes too late, as all that follows -- is names; put options before it",
        ),
        (["restore", "a.mp4"], "fvr restore: the following arguments are required: output"),
        (["demo", "--frames", "0"], "fvr demo: argument --frames: is a whole number from 1 on, got '0'"),
        (["train", "blind"], "fvr train: the following arguments are required: --faces, --out"),
    ],
)
def test_a_mistyped_command_is_answered_in_one_line(arguments, words, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2 and capsys.readouterr().err == f"{words}; see fvr {arguments[0]} --help\n"


@pytest.mark.parametrize("command", [["demo"], ["run", "start_here"]])
@pytest.mark.parametrize("place", ["taken", "taken/inside"])
def test_a_folder_that_cannot_be_is_told_before_the_work(command, place, tmp_path, capsys):
    taken = tmp_path / "taken"
    taken.write_text("a file")
    assert main([*command, "--output-dir", str(tmp_path / place)]) == 1
    assert capsys.readouterr().err == f"fvr: --output-dir {tmp_path / place} cannot be a folder, as {taken} is a file; choose another name\n"
