"""What the Comfy Registry asks of a pack: fields it can read, pictures that are there, nothing banned, and quiet while it is loaded."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
COMFYUI = os.environ.get("COMFYUI_PATH")
NOT_SHIPPED = {line.strip().rstrip("/") for line in (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines() if line[:1] not in ("", "#")}


def field(name: str) -> str:
    match = re.search(rf'^{name} = "(.*)"$', PROJECT, re.MULTILINE)
    assert match, f"pyproject.toml has no {name}"
    return match[1]


def listed(name: str) -> list[str]:
    body = re.search(rf"^{name} = \[(.*?)\]", PROJECT, re.MULTILINE | re.DOTALL)
    assert body is not None
    return re.findall(r'"([^"]+)"', body[1])


def test_the_registry_can_read_every_field():
    """The rules of comfy-cli and of the registry's specification; a field that breaks one is silently left out there."""
    assert re.fullmatch(r"[a-z](?:[a-z0-9]|[-_.](?![-_.]))*", field("name")) and "comfyui" not in field("name") and len(field("name")) < 100
    assert re.fullmatch(r"\d+\.\d+\.\d+", field("version"))
    assert re.fullmatch(r"[<>=!~]*\d+\.\d+\.\d+", field("requires-comfyui")), "three parts, or the registry ignores it"
    assert 'license = { file = "LICENSE" }' in PROJECT and (ROOT / "LICENSE").is_file()
    assert field("PublisherId") and field("DisplayName") and field("Repository").startswith("https://github.com/")
    assert any(line.startswith("Operating System :: ") for line in listed("classifiers"))


@pytest.mark.parametrize(("name", "shape"), [("Icon", (400, 400)), ("Banner", (21, 9))])
def test_pictures_are_files_of_this_repository_in_the_asked_form(name, shape):
    address = field(name)
    start = field("Repository").replace("github.com", "raw.githubusercontent.com") + "/main/"
    assert address.startswith(start)
    picture = cv2.imread(str(ROOT / address.removeprefix(start)))
    assert picture is not None
    height, width = picture.shape[:2]
    assert (width, height) == shape if name == "Icon" else width * 9 == height * 21
    assert picture.std() > 20


def test_the_archive_has_what_the_pack_needs():
    """Packages, help, workflows and requirements are shipped; tests and benchmarks are not."""
    needed = {name.split(".")[1] for name in listed("packages") if "." in name} | {"__init__.py", "requirements.txt", "LICENSE", "README.md", "web"}
    assert not needed & NOT_SHIPPED
    assert {"tests", "benchmarks"} <= NOT_SHIPPED


def shipped() -> list[Path]:
    rooms = {name.split(".")[1] for name in listed("packages") if "." in name}
    return sorted([*ROOT.glob("*.py"), *(path for room in rooms for path in (ROOT / room).rglob("*.py"))])


def test_nothing_that_the_registry_bans():
    """No eval, exec or os.system, no unchecked pickle; no network and no other process but in the modules that do so when a person asks for it."""
    calls = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads"}
    modules = {"subprocess", "socket", "requests", "urllib", "http", "pip", "ctypes", "multiprocessing", "marshal"}
    allowed = {
        "models/checkpoints/fetch.py": {"urllib", "http"},
        "cli/memory.py": {"ctypes"},  # the C library's own knobs, for a command's process alone
        "film/processes.py": {"subprocess"},
        "film/comfy_server.py": {"urllib", "http", "socket"},
    }
    found = []
    for path in shipped():
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                unsafe = called == "torch.load" and given.get("weights_only") != "True"
                if called in calls or unsafe:
                    found.append(f"{name}:{node.lineno} {called}")
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""] if not node.level else []
                banned = {module.partition(".")[0] for module in names} & modules - allowed.get(name, set())
                found += [f"{name}:{node.lineno} import {module}" for module in banned]
    assert found == []


QUIET = """
import json, sys
loud, armed = [], False

def hear(event, arguments):
    if armed and (event.split(".")[0] in ("socket", "subprocess", "urllib", "http", "ftplib", "smtplib") or event in (
        "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.startfile")):
        loud.append([event, repr(arguments)[:200]])

sys.addaudithook(hear)
for path in sys.argv[1:]:
    sys.path.insert(0, path)
import torch, cv2, av, numpy, {host}
armed = True
import fvr
waiting = fvr.comfy_entrypoint()
try:
    waiting.send(None)
except StopIteration as done:
    extension = done.value
waiting = extension.get_node_list()
try:
    waiting.send(None)
except StopIteration as done:
    nodes = done.value
published = {{node.GET_SCHEMA().node_id: node.GET_NODE_INFO_V1() for node in nodes}}
quiet = list(loud)
import socket
socket.socket().close()
sys.stdout.write(json.dumps([quiet, sorted(published), len(loud) > len(quiet)]))
"""


def load_quietly(tmp_path: Path, host: str, *paths: str) -> tuple[list, list, bool]:
    """What was opened or started while the pack is imported and all its schemas are built, in a process of its own; the nodes; and whether
    a socket opened after that is heard."""
    done = subprocess.run(
        [sys.executable, "-c", QUIET.format(host=host), *paths],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "FVR_MODELS": str(tmp_path / "models")},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_loading_opens_no_socket_starts_no_process_and_writes_nothing(tmp_path):
    """torch, OpenCV and the like are imported before: what they do is not ours."""
    loud, nodes, heard = load_quietly(tmp_path, "einops")
    assert loud == [] and len(nodes) >= 18 and heard
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not COMFYUI or not (Path(COMFYUI) / "comfy_api").is_dir(), reason="COMFYUI_PATH names no ComfyUI tree")
def test_loading_is_as_quiet_inside_comfyui(tmp_path):
    loud, nodes, heard = load_quietly(tmp_path, "comfy_api.latest", str(COMFYUI))
    assert loud == [] and len(nodes) >= 18 and heard


def test_the_documents_name_the_version_of_the_package():
    """A release changes pyproject.toml, CHANGELOG.md and CITATION.cff together."""
    version = field("version")
    assert re.search(rf"^## \[.*{re.escape(version)}", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
