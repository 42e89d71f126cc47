"""A real ComfyUI with this checkout as a custom node, for tests: started, asked and stopped through `../shared/tools/hostctl.py`."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOSTCTL = ROOT.parent / "shared" / "tools" / "hostctl.py"
COMFYUI = os.environ.get("COMFYUI_PATH")
FRONT_END = os.environ.get("FVR_FRONT_END")
BROWSER = Path("/usr/bin/chromium")
PATIENCE = 600
"""Seconds for a host to start, or for one workflow; both take far less on a machine that does nothing else."""

needs_host = [
    pytest.mark.skipif(not COMFYUI or not (Path(COMFYUI) / "main.py").is_file(), reason="COMFYUI_PATH names no ComfyUI tree"),
    pytest.mark.skipif(not HOSTCTL.is_file(), reason=f"{HOSTCTL} is not here, which starts a ComfyUI"),
]
needs_browser = pytest.mark.skipif(
    importlib.util.find_spec("playwright") is None or not BROWSER.is_file(), reason=f"playwright is not installed, or {BROWSER} is not here"
)


class Host:
    """A ComfyUI with this checkout as a custom node, and a few requests to it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "run"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.base = self.home / str(self.port)
        """Of its input, output, temp and models folders."""

    def start(self, *arguments: str, name: str = "face-video-restoration") -> None:
        """FVR_FRONT_END names the static files of another web page than the one that this ComfyUI pins."""
        more = ["--", "--front-end-root", FRONT_END] if FRONT_END else []
        self.control("start", "--custom-node", str(ROOT), "--name", name, *arguments, "--timeout", str(PATIENCE), *more)

    def control(self, *arguments: str) -> str:
        """Runs hostctl.py; what it prints."""
        environment = {**os.environ, "HOSTCTL_RUN": str(self.folder)}
        command = [sys.executable, str(HOSTCTL), arguments[0], "--port", str(self.port), *arguments[1:]]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=2 * PATIENCE)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout

    def ask(self, route: str, content: Any = None) -> Any:
        data = None if content is None else json.dumps(content).encode()
        request = Request(f"http://127.0.0.1:{self.port}{route}", data, {"Content-Type": "application/json"})
        try:
            with urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or b"null")
        except HTTPError as error:
            raise AssertionError(f"{route}: {error.read().decode()[:4000]}") from error

    def history(self, prompt: dict[str, Any]) -> dict[str, Any]:
        """The history of a prompt that was queued and has run."""
        number = self.ask("/prompt", {"prompt": prompt})["prompt_id"]
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            entry = self.ask(f"/history/{number}").get(number)
            if entry:
                return entry
            time.sleep(0.2)
        raise AssertionError(f"not finished after {PATIENCE} s")


def loaded() -> ModuleType:
    """hostctl.py as a module."""
    description = importlib.util.spec_from_file_location("hostctl", HOSTCTL)
    assert description is not None and description.loader is not None
    module = importlib.util.module_from_spec(description)
    description.loader.exec_module(module)
    return module
