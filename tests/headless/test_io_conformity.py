"""Our subset of the node API against ComfyUI's own, wherever COMFYUI_PATH says there is one.

ComfyUI is started in processes of its own, so that the rest of the tests stay without it.
"""

from __future__ import annotations

import json

import pytest
from helpers.comfyui_process import in_comfyui, needs_comfyui
from helpers.sample_nodes import sample_nodes, sockets

from fvr import headless
from fvr.headless import io_shim

API = """
import json
from fvr import headless, host
from fvr.headless.io import io, ui
from helpers.sample_nodes import sample_nodes, sockets
assert host.inside_comfyui()
nodes = {**sample_nodes(io), "TSockets": sockets(io)}
refused = []
for argument in ARGUMENTS:
    try:
        io.Int.Input("x", **{argument: 1})
    except TypeError:
        refused.append(argument)
result = headless.run_prompt(PROMPT, nodes, keep=["2"])
ran = [result.outputs["2"], result.ui, nodes["TShow"].shown]
print(json.dumps({"info": {name: node.GET_NODE_INFO_V1() for name, node in nodes.items()}, "refused": refused, "ran": ran}))
"""

EXECUTOR = """
import asyncio, json, sys, types
from comfy.cli_args import args
args.cpu = True
try:
    import nodes, execution
except (ImportError, OSError, RuntimeError) as error:  # as with a torchaudio of another CUDA build than torch
    print(json.dumps(f"{type(error).__name__}: {error}"))
    sys.exit()
from fvr.headless.io import io, ui
from helpers.sample_nodes import sample_nodes
samples = sample_nodes(io)
for name, node in samples.items():
    node.GET_SCHEMA()
    nodes.NODE_CLASS_MAPPINGS[name] = node
verdicts, runs = [], []
server = types.SimpleNamespace(client_id=None, last_node_id=None, send_sync=lambda *a: None, prompt_queue=None)
for prompt in PROMPTS:
    samples["TNumber"].runs.clear(), samples["TShow"].shown.clear()
    fine, error, outputs, node_errors = asyncio.run(execution.validate_prompt("p", prompt, None))
    found = [(n, e["type"], e["extra_info"].get("input_name")) for n, entry in node_errors.items() for e in entry["errors"]]
    verdicts.append(found if found or fine else [["", error["type"], None]])
    if fine and not found:
        executor = execution.PromptExecutor(server, execution.CacheType.CLASSIC, {"ram": 0, "ram_inactive": 0, "lru": 0})
        executor.execute(prompt, "p", {}, outputs)
        assert executor.success, executor.status_messages
    runs.append([samples["TNumber"].runs[:], samples["TShow"].shown[:]])
print(json.dumps([verdicts, runs]))
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
    return in_comfyui(API, ARGUMENTS=UNKNOWN_ARGUMENTS, PROMPT=RUNNABLE)


@needs_comfyui
@pytest.mark.parametrize("name", ["TNumber", "TFilter", "TShow", "TSockets"])
def test_the_subset_publishes_what_comfyui_publishes(name, api):
    """Every field of our /object_info entry equals ComfyUI's: names, order, types, defaults, ranges, choices, tooltips, hidden inputs."""
    ours = {**sample_nodes(io_shim), "TSockets": sockets(io_shim)}[name].GET_NODE_INFO_V1()
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
    nodes = sample_nodes(io_shim)
    result = headless.run_prompt(RUNNABLE, nodes, keep=["2"])
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
    "a choice in a choice, whole": {"1": NUMBER, "2": changed(FILTER, kind="clip", kind__how="soft", kind__how__knee=1), "3": SHOW},
    "inputs of a choice not made": {"1": NUMBER, "2": changed(FILTER, kind="none"), "3": SHOW},
    "a list": {"1": NUMBER, "2": FILTER, "3": changed(SHOW, value=["2", 2])},
    "a lazy input": {"1": NUMBER, "2": FILTER, "3": SHOW, "4": changed(FILTER, state=["2", 1]), "5": changed(SHOW, value=["4", 1])},
    "linked behind a choice": {"1": NUMBER, "2": changed(FILTER, kind__sigma=["1", 0]), "3": SHOW},
    "two at once": {"1": changed(NUMBER, seed=-1, mode="medium"), "2": FILTER, "3": SHOW},
}

HARMLESS = {
    "fine",
    "a number as text",
    "its own check covers a combo",
    "a broken node nobody needs",
    "a choice in a choice, whole",
    "inputs of a choice not made",
    "a list",
    "a lazy input",
    "linked behind a choice",
}

WHOLE_PROMPT = {"missing_node_type", "prompt_no_outputs"}
"""Errors for which ComfyUI names no node."""


@pytest.fixture(scope="module")
def executor() -> dict:
    """Per case, ComfyUI's verdict and what its run left behind."""
    reply = in_comfyui(EXECUTOR, PROMPTS=list(PROMPTS.values()))
    if isinstance(reply, str):
        pytest.skip(f"this ComfyUI does not import in this Python: {reply}")
    return dict(zip(PROMPTS, zip(*reply, strict=True), strict=True))


@needs_comfyui
@pytest.mark.parametrize("case", PROMPTS)
def test_validation_agrees_with_comfyuis(case, executor):
    """The same errors by node, type and input. (ComfyUI repeats a node's own message once per input that it checks; we say it once.)"""
    found = headless.validate(PROMPTS[case], sample_nodes(io_shim))
    ours = sorted(("" if e.type in WHOLE_PROMPT else e.node, e.type, e.input or "") for e in found)
    theirs = sorted({(node, kind, "" if kind == "custom_validation_failed" else name or "") for node, kind, name in executor[case][0]})
    assert ours == theirs
    assert bool(ours) == (case not in HARMLESS)


@needs_comfyui
@pytest.mark.parametrize("case", sorted(HARMLESS))
def test_nodes_get_what_comfyuis_executor_gives_them(case, executor):
    """The same arguments, in a run of ComfyUI's own executor: defaults, conversions, choices, lists, lazy inputs."""
    nodes = sample_nodes(io_shim)
    headless.run_prompt(PROMPTS[case], nodes)
    ours = json.loads(json.dumps([nodes["TNumber"].runs, nodes["TShow"].shown]))
    assert ours[1] and in_any_order(ours) == in_any_order(executor[case][1])


def in_any_order(both: list) -> list:
    return [sorted(json.dumps(one, sort_keys=True) for one in each) for each in both]
