"""A process that is gone at once, as by a power cut: nothing is tidied up, and what is on disk goes on to the weights of an undisturbed run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.tiny_pairs import base, pairs
from safetensors.torch import load_file

from fvr.finetune.options import planned
from fvr.finetune.run import fine_tune
from fvr.training.engine import STATE, Run

HERE = Path(__file__).resolve().parent
GONE = 37
"""Exit code of the process that crashes."""


def learn(folder: Path, tick: Callable[..., None] | None = None) -> dict[str, torch.Tensor]:
    """Twelve steps, validated after 5, 10 and 12, with a state on disk after every third."""
    options = planned("short", "codes", steps=12, rate=1e-3, batch=2)
    options = replace(options, plan=replace(options.plan, ema=0.5))
    fine_tune(base(folder), pairs(), options, Run(folder / "work", precision=None, save_every=3), folder / "out.safetensors", tick=tick)
    return load_file(folder / "out.safetensors")


def crash_after(step: int) -> Callable[..., None]:
    """Ends the process once so many steps are done: without an exception, a handler or a flushed buffer."""

    def tick(stage: str, done: int, steps: int, losses: dict) -> None:
        if done == step:
            os._exit(GONE)

    return tick


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, torch.Tensor]:
    return learn(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(("step", "kept"), [(2, None), (6, 3)], ids=["before any state", "the best is newer than the state"])
def test_a_crash_loses_only_the_steps_since_the_last_state(step: int, kept: int | None, whole, tmp_path: Path) -> None:
    threads = torch.get_num_threads()  # another number rounds otherwise, and twelve steps carry that into the fourth digit
    program = f"from test_crash import *; torch.set_num_threads({threads}); learn(Path({str(tmp_path)!r}), crash_after({step}))"
    places = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": places}, cwd=HERE, capture_output=True, text=True)
    assert done.returncode == GONE, done.stderr
    state = tmp_path / "work" / STATE
    assert not (tmp_path / "out.safetensors").exists()
    assert (torch.load(state, weights_only=True)["step"] if state.is_file() else None) == kept
    resumed = learn(tmp_path)
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value, rtol=1e-4, atol=1e-5)
    assert [entry["step"] for entry in json.loads((tmp_path / "work" / "fine-tune.json").read_text())] == [5, 10, 12]
