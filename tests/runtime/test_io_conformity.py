"""Our subset of the node API against ComfyUI's own, wherever COMFYUI_PATH says there is one.

ComfyUI is started in processes of its own, so that the rest of the tests stay without it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fvr.runtime import graph, io_shim, ui_shim
from sample_nodes import sample_nodes, sockets

HERE = Path(__file__).resolve().parent
COMFYUI = os.environ.get("COMFYUI_PATH")
needs_comfyui = pytest.mark.skipif(not COMFYUI or not (Path(COMFYUI) / "comfy_api").is_dir(), reason="COMFYUI_PATH names no ComfyUI tree")


def in_comfyui(program: str) -> str:
    """Runs a program with ComfyUI, fvr and the sample nodes importable, in ComfyUI's folder; the last line it prints."""
    paths = os.pathsep.join([str(HERE), str(COMFYUI), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}, cwd=COMFYUI, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


API = """
import json
from fvr.runtime import graph
from fvr.runtime.io import HAVE_COMFY, io, ui
from sample_nodes import sample_nodes, sockets
assert HAVE_COMFY
nodes = {**sample_nodes(io, ui), "TSockets": sockets(io)}
refused = []
for argument in ARGUMENTS:
    try:
        io.Int.Input("x", **{argument: 1})
    except TypeError:
        refused.append(argument)
result = graph.run_prompt(PROMPT, nodes, keep=["2"])
ran = [result.outputs["2"], result.ui, nodes["TShow"].shown]
print(json.dumps({"info": {name: node.GET_NODE_INFO_V1() for name, node in nodes.items()}, "refused": refused, "ran": ran}))
"""

EXECUTOR = """
import asyncio, json, sys
from comfy.cli_args import args
args.cpu = True
try:
    import nodes, execution
except (ImportError, OSError, RuntimeError) as error:  # as with a torchaudio of another CUDA build than torch
    print(json.dumps(f"{type(error).__name__}: {error}"))
    sys.exit()
from fvr.runtime.io import io, ui
from sample_nodes import sample_nodes
for name, node in sample_nodes(io, ui).items():
    node.GET_SCHEMA()
    nodes.NODE_CLASS_MAPPINGS[name] = node
replies = []
for prompt in PROMPTS:
    fine, error, outputs, node_errors = asyncio.run(execution.validate_prompt("p", prompt, None))
    found = [(n, e["type"], e["extra_info"].get("input_name")) for n, entry in node_errors.items() for e in entry["errors"]]
    replies.append(found if found or fine else [["", error["type"], None]])
print(json.dumps(replies))
"""

UNKNOWN_ARGUMENTS = ["minimum", "options", "upload"]
RUNNABLE = {
    "1": {"class_type": "TNumber", "inputs": {"seed": 4, "scale": 0.5, "negate": True}},
    "2": {"class_type": "TFilter", "inputs": {"value": ["1", 0], "kind": "blur", "kind.sigma": 2, "kind.edge": "clip", "file": "x"}},
    "3": {"class_type": "TShow", "inputs": {"value": ["2", 1]}},
    "4": {"class_type": "TShow", "inputs": {"value": ["2", 2]}},
}


@pytest.fixture(scope="module")
def api() -> dict:
    return json.loads(in_comfyui(f"ARGUMENTS = {UNKNOWN_ARGUMENTS!r}\nPROMPT = {RUNNABLE!r}\n{API}"))


@needs_comfyui
@pytest.mark.parametrize("name", ["TNumber", "TFilter", "TShow", "TSockets"])
def test_the_subset_publishes_what_comfyui_publishes(name, api):
    """Every field of our /object_info entry equals ComfyUI's: names, order, types, defaults, ranges, choices, tooltips, hidden inputs."""
    ours = {**sample_nodes(io_shim, ui_shim), "TSockets": sockets(io_shim)}[name].GET_NODE_INFO_V1()
    ours = json.loads(json.dumps(ours))
    assert {key: api["info"][name][key] for key in ours} == ours


@needs_comfyui
@pytest.mark.parametrize("argument", UNKNOWN_ARGUMENTS)
def test_both_refuse_an_argument_they_do_not_know(argument, api):
    """A slip in a node must fail here as it would there."""
    assert argument in api["refused"]
    with pytest.raises(TypeError, match=argument):
        io_shim.Int.Input("x", **{argument: 1})


@needs_comfyui
def test_the_runner_gives_the_same_with_comfyuis_classes(api):
    nodes = sample_nodes(io_shim, ui_shim)
    result = graph.run_prompt(RUNNABLE, nodes, keep=["2"])
    assert json.loads(json.dumps([result.outputs["2"], result.ui, nodes["TShow"].shown])) == api["ran"]


NUMBER = {"class_type": "TNumber", "inputs": {"seed": 4, "scale": 0.5, "negate": True}}
FILTER = {"class_type": "TFilter", "inputs": {"value": ["1", 0], "kind": "blur", "kind.sigma": 2, "kind.edge": "clip", "file": "a.mp4"}}
SHOW = {"class_type": "TShow", "inputs": {"value": ["2", 1]}}


def changed(node: dict, drop: str | None = None, **inputs: object) -> dict:
    kept = {name: value for name, value in node["inputs"].items() if name != drop}
    return {**node, "inputs": {**kept, **{name.replace("__", "."): value for name, value in inputs.items()}}}


PROMPTS = {
    "fine": {"1": NUMBER, "2": FILTER, "3": SHOW},
    "too small": {"1": changed(NUMBER, seed=-1), "2": FILTER, "3": SHOW},
    "too big": {"1": changed(NUMBER, scale=4.5), "2": FILTER, "3": SHOW},
    "not a number": {"1": changed(NUMBER, seed="four"), "2": FILTER, "3": SHOW},
    "a number as text": {"1": changed(NUMBER, seed="4"), "2": FILTER, "3": SHOW},
    "not in the list": {"1": changed(NUMBER, mode="medium"), "2": FILTER, "3": SHOW},
    "missing": {"1": changed(NUMBER, drop="seed"), "2": FILTER, "3": SHOW},
    "missing behind a choice": {"1": NUMBER, "2": changed(FILTER, drop="kind.sigma"), "3": SHOW},
    "out of range behind a choice": {"1": NUMBER, "2": changed(FILTER, kind__sigma=10), "3": SHOW},
    "a choice in a choice": {"1": NUMBER, "2": changed(FILTER, kind="clip", kind__how="soft"), "3": SHOW},
    "wrong type linked": {"1": NUMBER, "2": changed(FILTER, value=["1", 1]), "3": SHOW},
    "not a link": {"1": NUMBER, "2": changed(FILTER, value=["1", 0, 0]), "3": SHOW},
    "its own check": {"1": NUMBER, "2": changed(FILTER, file="broken.mp4"), "3": SHOW},
    "its own check covers a combo": {"1": NUMBER, "2": changed(FILTER, file="other.mp4"), "3": SHOW},
    "no output": {"1": NUMBER, "2": FILTER},
    "unknown": {"1": NUMBER, "2": {"class_type": "TGone", "inputs": {}}, "3": SHOW},
    "a broken node nobody needs": {"1": NUMBER, "2": FILTER, "3": SHOW, "9": changed(NUMBER, seed=-5)},
    "two at once": {"1": changed(NUMBER, seed=-1, mode="medium"), "2": FILTER, "3": SHOW},
}

HARMLESS = {"fine", "a number as text", "its own check covers a combo", "a broken node nobody needs"}

WHOLE_PROMPT = {"missing_node_type", "prompt_no_outputs"}
"""Errors for which ComfyUI names no node."""


@pytest.fixture(scope="module")
def verdicts() -> dict:
    replies = json.loads(in_comfyui(f"PROMPTS = {list(PROMPTS.values())!r}\n{EXECUTOR}"))
    if isinstance(replies, str):
        pytest.skip(f"this ComfyUI does not import in this Python: {replies}")
    return dict(zip(PROMPTS, replies, strict=True))


@needs_comfyui
@pytest.mark.parametrize("case", PROMPTS)
def test_validation_agrees_with_comfyuis(case, verdicts):
    """The same errors by node, type and input. (ComfyUI repeats a node's own message once per input that it checks; we say it once.)"""
    found = graph.validate(PROMPTS[case], sample_nodes(io_shim, ui_shim))
    ours = sorted(("" if e.type in WHOLE_PROMPT else e.node, e.type, e.input or "") for e in found)
    theirs = sorted({(node, kind, "" if kind == "custom_validation_failed" else name or "") for node, kind, name in verdicts[case]})
    assert ours == theirs
    assert bool(ours) == (case not in HARMLESS)
