"""What is imported is declared, and what drags much along may fail alone: the pack loads, and every default path runs."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fvr.assembly import chosen_detector, chosen_parser
from fvr.cli import main
from fvr.demo import moving_portrait
from fvr.nodes.measure import chosen_identity
from fvr.video import FrameTimes, open_sink

ROOT = Path(__file__).resolve().parents[1]
DISTRIBUTIONS = {"PIL": "pillow", "cv2": "opencv-python"}
HOST = {"torch", "torchvision", "comfy", "comfy_api", "comfy_execution", "folder_paths", "server"}
"""What ComfyUI brings, or the extra "standalone"."""
OPTIONAL = {"skimage", "spandrel", "lpips", "facenet_pytorch", "ray"}
"""Imported where they are wanted, with a sentence of their own when they are missing."""


def imports(path):
    """(module, whether it is imported as soon as the file is) of each import of a file; those for types alone are left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing = {
        id(node) for branch in ast.walk(tree) if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.dump(branch.test) for node in ast.walk(branch)
    }
    inside = {id(node) for part in ast.walk(tree) if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) for node in ast.walk(part)}
    for node in ast.walk(tree):
        names = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
        for name in names:
            if id(node) not in typing:
                yield name.partition(".")[0], id(node) not in inside


PRODUCT = [
    path
    for path in ROOT.rglob("*.py")
    if path.relative_to(ROOT).parts[0] not in ("tests", "benchmarks", "build", "dist")
    and not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
]


@pytest.mark.parametrize("folder", ["benchmarks", "tools"])
def test_scripts_import_names_that_exist(folder):
    """What runs in no test."""
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fvr":
                module = importlib.import_module(str(node.module))
                for name in (alias.name for alias in node.names):
                    submodule = hasattr(module, "__path__") and importlib.util.find_spec(f"{node.module}.{name}")
                    assert hasattr(module, name) or submodule, f"{path.name}: {node.module} has no {name}"


def test_code_asks_objects_rather_than_their_classes():
    """isinstance on a concrete class of ours stands in fewer than ten places; elsewhere an attribute or a method answers."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in PRODUCT}
    classes = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    concrete = {cls.name for cls in classes if not {ast.unparse(base).partition("[")[0] for base in cls.bases} & {"ABC", "Protocol"}}
    asked = []
    for path, tree in trees.items():
        own = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        own |= {name.asname or name.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level for name in node.names}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
                named = {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
                asked += [f"{path.name}:{node.lineno} {ast.unparse(node)}"] if named & own & concrete else []
    assert len(asked) < 10, asked


def test_everything_imported_is_declared_and_everything_declared_is_imported():
    declared = {re.split(r"[=<>~\[]", line)[0].lower() for line in (ROOT / "requirements.txt").read_text().split()}
    ours = {"fvr", ""} | {path.stem for path in (ROOT / "tools").glob("*.py")}
    used = {name for path in PRODUCT for name, _ in imports(path)} - set(sys.stdlib_module_names) - HOST - OPTIONAL - ours
    asked = {name for path in PRODUCT for name in re.findall(r'facexlib_class\(\s*"', path.read_text(encoding="utf-8"))}
    distributions = {DISTRIBUTIONS.get(name, name) for name in used} | ({"facexlib"} if asked else set()) | {"av"} & declared
    assert distributions == declared


BLOCKED = """
import sys
class Wall:
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError("Numba needs NumPy 2.4 or less. Got NumPy 2.6.")
sys.meta_path.insert(0, Wall())
import asyncio, fvr, fvr.cli
from fvr.nodes import NODES
for node in NODES:
    node.GET_NODE_INFO_V1()
    node.define_schema()
print(len(NODES), *sorted({blocked!r} & set(sys.modules)))
"""


def test_the_pack_loads_without_what_may_fail(tmp_path):
    blocked = {"facexlib", "numba", "matplotlib", "facenet_pytorch", "scipy", "skimage", "spandrel", "lpips"}
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(blocked=blocked)],
        cwd=tmp_path,
        env={**os.environ, "FVR_MODELS": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    count, *loaded = done.stdout.split()
    assert int(count) > 18 and loaded == []


@pytest.fixture
def no_facexlib(tmp_path, monkeypatch):
    """A machine with the weights of facexlib's networks, where its import fails as numba's does beside a newer NumPy."""

    class Wall:
        def find_spec(self, name, path, target=None):
            if name.partition(".")[0] == "facexlib":
                raise SystemError("Numba needs NumPy 2.4 or less. Got NumPy 2.6.")

    for name in [name for name in sys.modules if name.partition(".")[0] == "facexlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Wall(), *sys.meta_path])
    folder = tmp_path / "models"
    folder.mkdir()
    for file in ("detection_Resnet50_Final", "parsing_parsenet", "recognition_arcface_ir_se50"):
        save_file({"any": torch.ones(1)}, folder / f"{file}.safetensors")
    monkeypatch.setenv("FVR_MODELS", str(folder))
    monkeypatch.setattr("fvr.host.comfyui.inside_comfyui", lambda: False)


def test_without_facexlib_a_clip_is_restored_and_what_was_left_out_is_said(no_facexlib, tmp_path, capsys):
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    with open_sink(tmp_path / "in.mp4", None, size=(320, 320)) as sink:
        times = FrameTimes.constant(2, 25)
        sink.write(moving_portrait(2), times.starts, times.ends)
    assert main(["restore", str(tmp_path / "in.mp4"), str(tmp_path / "out.mp4"), "--method", "codeformer"]) == 0
    said = capsys.readouterr()
    assert "faces restored in every frame" in said.out
    for words in ("faces are found by BlazeFace instead of RetinaFace", "faces are masked without a parser", "Numba needs NumPy 2.4 or less"):
        assert words in said.err


def test_without_facexlib_what_was_asked_for_by_name_is_one_sentence(no_facexlib, capsys):
    with pytest.raises(ImportError, match=r"^the package facexlib cannot be imported \(Numba needs .*\); repair it"):
        chosen_detector("retinaface")
    assert chosen_parser() is None
    notes: list[str] = []

    class Seen:
        people = [1]

    assert chosen_identity(Seen(), notes) is not None and "Identity is not ArcFace's: the package facexlib cannot be imported" in notes[0]


def test_without_facenet_pytorch_the_remedy_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    with pytest.raises(ImportError, match=r"mtcnn needs the package facenet-pytorch.*pip install"):
        chosen_detector("mtcnn")
