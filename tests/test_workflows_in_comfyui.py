"""The bundled workflows in a real ComfyUI: queued through its API, and each page opened in its page, keeping a screenshot.

Runs where COMFYUI_PATH names a ComfyUI tree and `../shared/tools/hostctl.py`, which starts one and drives it, lies beside this checkout.
FVR_SCREENSHOTS names a folder for the pictures; without it they go into pytest's own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from small_workflows import API, FRAMES, NOTES, PAGES, embedded_are_here, make_inputs, make_models, quick, reporting

ROOT = Path(__file__).resolve().parents[1]
HOSTCTL = ROOT.parent / "shared" / "tools" / "hostctl.py"
COMFYUI = os.environ.get("COMFYUI_PATH")
BROWSER = Path("/usr/bin/chromium")
PATIENCE = 600
"""Seconds for a host to start, or for one workflow; both take far less on a machine that does nothing else."""
PREVIEWS = {"video-preview"}
"""What the page itself adds to the inputs of a node that uploads."""

pytestmark = [
    pytest.mark.skipif(not COMFYUI or not (Path(COMFYUI) / "main.py").is_file(), reason="COMFYUI_PATH names no ComfyUI tree"),
    pytest.mark.skipif(not HOSTCTL.is_file(), reason=f"{HOSTCTL} is not here, which starts a ComfyUI"),
]

every_workflow = pytest.mark.parametrize("path", API, ids=lambda path: path.stem)


class Host:
    """A ComfyUI with this checkout as a custom node, and a few requests to it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "run"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

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


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Host]:
    """A host with the tiny clip and small stand-ins for published files; the embedded weights are the package's own."""
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    here = Host(tmp_path_factory.mktemp("comfyui"))
    make_models(here.folder / "models")
    make_interpolation(here.folder / "models" / "frame_interpolation")
    base = here.folder / "run" / str(here.port)
    make_inputs(base / "input")
    where = ["--custom-node", str(ROOT), "--name", "face-video-restoration", "--models", str(here.folder / "models")]
    here.control("start", *where, "--timeout", str(PATIENCE))
    yield here
    here.control("stop")


def make_interpolation(folder: Path) -> None:
    """ComfyUI's own small network that draws frames in between (RIFE, of any weights), under the name that the workflow has."""
    folder.mkdir(parents=True, exist_ok=True)
    program = (
        "import sys, torch; from safetensors.torch import save_file; from comfy.cli_args import args; args.cpu = True; "
        "from comfy_extras.frame_interpolation_models.ifnet import IFNet; "
        "state = IFNet(channels=(32,) * 5).state_dict(); generator = torch.Generator().manual_seed(0); "
        "save_file({key: 0.02 * torch.randn(value.shape, generator=generator) for key, value in state.items()}, sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder / "film_net_fp16.safetensors")], cwd=COMFYUI, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr


def needs(prompt: dict[str, dict[str, Any]]) -> str | None:
    """What a prompt needs that is not here."""
    values = [value for node in prompt.values() for value in node["inputs"].values() if isinstance(value, str)]
    if any(value.startswith("embedded ") for value in values) and not embedded_are_here():
        return "the embedded weights, which this checkout has not got"
    return None


@every_workflow
def test_runs_when_queued(path, running):
    prompt = quick(path)
    if missing := needs(prompt):
        pytest.skip(f"needs {missing}")
    entry = running.history(prompt)
    assert entry["status"]["status_str"] == "success", json.dumps(entry["status"])[-3000:]
    shown = [file for output in entry["outputs"].values() for files in output.values() for file in files if isinstance(file, dict)]
    files = [file for file in shown if "filename" in file]
    assert files
    for file in files:
        assert (running.folder / "run" / str(running.port) / file["type"] / file["subfolder"] / file["filename"]).stat().st_size > 0
    for node in reporting(prompt):
        (report,) = entry["outputs"][node]["report"]
        assert isinstance(report, dict) and len(report) > 2, f"{node} {prompt[node]['class_type']}"


def test_measured_figures_are_data_in_the_history(running):
    prompt = quick(next(path for path in API if path.stem == "measure_against_reference"))
    if missing := needs(prompt):
        pytest.skip(f"needs {missing}")
    node = next(key for key, node in prompt.items() if node["class_type"] == "FVRMeasureRestoration")
    (report,) = running.history(prompt)["outputs"][node]["report"]
    assert 10 < report["summary"]["psnr"] < 60 and len(report["per_frame"]["psnr"]) == FRAMES


@pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="the Python package playwright is not installed")
@pytest.mark.skipif(not BROWSER.is_file(), reason=f"{BROWSER} is not here")
def test_every_page_opens_and_is_its_twin(running, tmp_path):
    """In one browser: no node is unknown, nothing fails to load, and what the page would queue is the API form."""
    pictures = Path(os.environ.get("FVR_SCREENSHOTS") or tmp_path)
    pictures.mkdir(parents=True, exist_ok=True)
    hostctl = loaded()
    hostctl.ROOT = running.folder
    found: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {}

    def visit(page: Any, logs: list[Any]) -> None:
        for path in PAGES:
            fault = page.evaluate(hostctl.LOAD, [path.name, path.read_text(encoding="utf-8")])
            page.wait_for_timeout(800)
            page.evaluate("async () => { await window.app.extensionManager.command.execute('Comfy.Canvas.FitView') }")
            page.wait_for_timeout(800)
            page.screenshot(path=str(pictures / f"{path.stem}.png"))
            report = page.evaluate(hostctl.REPORT)
            found[path.stem] = fault, report, page.evaluate("async () => (await window.app.graphToPrompt()).output")

    hostctl.browser(Namespace(port=running.port, width=1920, height=1080), visit)
    for path in PAGES:
        fault, report, queued = found[path.stem]
        twin = json.loads((path.parent / "api" / path.name).read_text(encoding="utf-8"))
        nodes = json.loads(path.read_text(encoding="utf-8"))["nodes"]
        assert fault is None and (report["missing"] == [] or needs(twin)), f"{path.stem}: {fault or report['missing']}"
        assert len(report["nodes"]) == len(nodes) and len(twin) == len([node for node in nodes if node["type"] not in NOTES])
        assert {key: node["class_type"] for key, node in queued.items()} == {key: node["class_type"] for key, node in twin.items()}, path.stem
        for key, node in twin.items():
            inputs = {name: value for name, value in queued[key]["inputs"].items() if name not in PREVIEWS}
            assert inputs == node["inputs"], f"{path.stem}: {key} {node['class_type']}"
        assert (pictures / f"{path.stem}.png").stat().st_size > 20_000


def loaded() -> ModuleType:
    """hostctl.py as a module."""
    description = importlib.util.spec_from_file_location("hostctl", HOSTCTL)
    assert description is not None and description.loader is not None
    module = importlib.util.module_from_spec(description)
    description.loader.exec_module(module)
    return module
