"""Runs small programs in a real ComfyUI tree, each in a process of its own, so that the rest of the tests stay without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parents[1]
COMFYUI = os.environ.get("COMFYUI_PATH")
needs_comfyui = pytest.mark.skipif(not COMFYUI or not (Path(COMFYUI) / "comfy_api").is_dir(), reason="COMFYUI_PATH names no ComfyUI tree")


def in_comfyui(program: str, *arguments: str, **given: Any) -> Any:
    """What the program prints last, read as JSON. It can import ComfyUI, fvr and these helpers, and finds `given` as variables."""
    variables = "".join(f"{name} = {value!r}\n" for name, value in given.items())
    paths = os.pathsep.join([str(TESTS), str(COMFYUI), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-c", variables + program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=COMFYUI, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])
