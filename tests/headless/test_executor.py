"""What the runner promises: the right calls, in order, each once; memory let go; errors with their node."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from helpers.sample_nodes import sample_nodes

from fvr import headless, host
from fvr.headless import io_shim, ui_shim
from fvr.headless.io_shim import Custom, NodeOutput, Schema

Token = Custom("T_TOKEN")


def node(name: str, inputs: list, outputs: list, execute: Any, **more: Any) -> type:
    """A node class around a function; `more` are schema arguments, or further class methods when callable."""
    methods = {key: classmethod(value) for key, value in more.items() if callable(value)}
    schema = {key: value for key, value in more.items() if not callable(value)}
    body = {
        "define_schema": classmethod(lambda cls: Schema(name, inputs=inputs, outputs=outputs, **schema)),
        "execute": classmethod(execute),
        **methods,
    }
    return type(name, (io_shim.ComfyNode,), body)


@pytest.fixture
def classes() -> dict:
    return sample_nodes(io_shim)


def entry(class_type: str, **inputs: Any) -> dict:
    return {"class_type": class_type, "inputs": {name.replace("__", "."): value for name, value in inputs.items()}}


NUMBER = entry("TNumber", seed="4", scale=1, negate=True)
FILTER = entry("TFilter", value=["1", 0], kind="blur", kind__sigma=2, kind__edge="clip", file="x")


def test_values_arrive_as_declared_and_what_is_not_given_is_omitted(classes):
    """Converted as ComfyUI does ("4" -> 4, 1 -> 1.0); optional inputs fall back to the method's own defaults."""
    headless.run_prompt({"1": NUMBER, "3": entry("TShow", value=["1", 0])}, classes)
    (seen,) = classes["TNumber"].runs
    assert seen == (4, 1.0, True, "unset", "unset") and [type(v) for v in seen[:3]] == [int, float, bool]


@pytest.mark.parametrize(
    ("inputs", "kind"),
    [
        ({"kind": "blur", "kind.sigma": 2, "kind.edge": "clip"}, {"kind": "blur", "sigma": 2.0, "edge": "clip", "taps": None}),
        ({"kind": "none", "kind.sigma": 2}, {"kind": "none"}),
        ({"kind": "clip", "kind.how": "soft", "kind.how.knee": 1}, {"kind": "clip", "how": {"how": "soft", "knee": 1.0}}),
    ],
)
def test_a_choice_arrives_with_its_inputs_inside(classes, inputs, kind):
    filtered = {"class_type": "TFilter", "inputs": {"value": ["1", 0], "file": "x", **inputs}}
    result = headless.run_prompt({"1": NUMBER, "2": filtered, "3": entry("TShow", value=["2", 0])}, classes, keep=["2"])
    assert result.outputs["2"][1] == {"kind": kind, "file": "x"}


def test_an_optional_choice_not_made_is_omitted():
    choice = io_shim.DynamicCombo.Input("kind", [io_shim.DynamicCombo.Option("blur", [io_shim.Float.Input("sigma")])], optional=True)
    maybe = node("N", [choice], [io_shim.String.Output()], lambda cls, kind="left out": NodeOutput(kind), is_output_node=True)
    assert headless.run_prompt({"1": entry("N")}, {"N": maybe}).outputs["1"] == ("left out",)
    assert headless.run_prompt({"1": entry("N", kind="blur", kind__sigma=1)}, {"N": maybe}).outputs["1"] == ({"kind": "blur", "sigma": 1.0},)


def test_an_input_behind_a_choice_can_be_linked(classes):
    filtered = entry("TFilter", value=["1", 0], kind="blur", kind__sigma=["1", 0], kind__edge="clip", file="x")
    result = headless.run_prompt({"1": NUMBER, "2": filtered, "3": entry("TShow", value=["2", 0])}, classes, keep=["2"])
    assert result.outputs["2"][1]["kind"]["sigma"] == -4.0


def test_only_what_an_output_needs_runs_and_each_node_once(classes):
    prompt = {
        "9": entry("TNumber", seed=9, scale=1, negate=False),
        "3": entry("TShow", value=["2", 0]),
        "4": entry("TShow", value=["1", 0]),
        "2": FILTER,
        "1": NUMBER,
    }
    steps: list[headless.NodeStep] = []
    result = headless.run_prompt(prompt, classes, on_node=steps.append)
    assert len(classes["TNumber"].runs) == 1
    assert [step.node for step in steps] == ["1", "2", "3", "4"] and list(result.seconds) == ["1", "2", "3", "4"]
    assert [(s.position, s.total) for s in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_what_nodes_show_is_collected_in_order(classes):
    prompt = {"1": NUMBER, "5": entry("TShow", value=["1", 0]), "3": entry("TShow", value=["1", 1])}
    result = headless.run_prompt(prompt, classes)
    assert result.texts == ["5: -4.0", "3: unset|unset"]
    assert result.ui["5"] == {"text": ["5: -4.0"]}
    assert result.outputs == {"5": (), "3": ()}


def test_files_are_found_in_their_directories(tmp_path):
    def execute(cls):
        saved = [ui_shim.SavedResult("a.mp4", "sub", io_shim.FolderType.output), ui_shim.SavedResult("b.png", "", io_shim.FolderType.temp)]
        return NodeOutput(ui=ui_shim.PreviewVideo(saved))

    with host.workspace(output=tmp_path / "o", temp=tmp_path / "t"):
        result = headless.run_prompt({"1": entry("N")}, {"N": node("N", [], [], execute, is_output_node=True)})
    assert result.files == [tmp_path / "o" / "sub" / "a.mp4", tmp_path / "t" / "b.png"]


def test_a_long_chain_runs_and_holds_one_result_at_a_time():
    """Memory: each step's result is gone once the next has run. Depth: 2,000 nodes in a row."""

    class Payload:
        pass

    alive: weakref.WeakSet = weakref.WeakSet()
    most = 0

    def execute(cls, x=None):
        nonlocal most
        gc.collect(0)
        fresh = Payload()
        alive.add(fresh)
        most = max(most, len(alive))
        return NodeOutput(fresh)

    classes = {
        "Step": node("Step", [Token.Input("x", optional=True)], [Token.Output()], execute),
        "End": node("End", [Token.Input("x")], [], lambda cls, x: None, is_output_node=True),
    }
    prompt = {"0": entry("Step")} | {str(i): entry("Step", x=[str(i - 1), 0]) for i in range(1, 2000)} | {"end": entry("End", x=["1999", 0])}
    headless.run_prompt(prompt, classes)
    assert most <= 3


def test_a_result_lives_until_its_last_taker_has_run():
    """Two consumers, one of them behind a long branch: the value must survive for both and not longer."""
    events: list[str] = []

    class Payload:
        def __del__(self):
            events.append("gone")

    def source(cls):
        return NodeOutput(Payload())

    def take(cls, x, name, other=None):
        events.append(name)
        return NodeOutput(None)

    inputs = [Token.Input("x"), io_shim.String.Input("name"), Token.Input("other", optional=True)]
    classes = {"Source": node("Source", [], [Token.Output()], source), "Take": node("Take", inputs, [Token.Output()], take)}
    classes["End"] = node("End", [Token.Input("x")], [], lambda cls, x: events.append("end"), is_output_node=True)
    prompt = {
        "s": entry("Source"),
        "a": entry("Take", x=["s", 0], name="a"),
        "b": entry("Take", x=["s", 0], name="b", other=["a", 0]),
        "end": entry("End", x=["b", 0]),
    }
    headless.run_prompt(prompt, classes)
    assert events == ["a", "b", "gone", "end"]


def test_results_asked_for_are_kept_and_others_are_not_run():
    source = node("Source", [], [Token.Output()], lambda cls: NodeOutput("value"))
    end = node("End", [Token.Input("x")], [Token.Output()], lambda cls, x: NodeOutput(x + "!"), is_output_node=True)
    prompt = {"s": entry("Source"), "t": entry("Source"), "end": entry("End", x=["s", 0])}
    result = headless.run_prompt(prompt, {"Source": source, "End": end}, keep=["t"])
    assert result.outputs == {"t": ("value",), "end": ("value!",)}
    with pytest.raises(headless.PromptRefused, match="node gone"):
        headless.run_prompt(prompt, {"Source": source, "End": end}, keep=["gone"])


def test_nodes_run_under_inference_mode_and_the_caller_does_not():
    seen = []

    def execute(cls):
        seen.append(torch.is_inference_mode_enabled())

    headless.run_prompt({"1": entry("N")}, {"N": node("N", [], [], execute, is_output_node=True)})
    assert seen == [True] and not torch.is_inference_mode_enabled()


def lazy_classes(ask: Any, ran: list[str]) -> dict[str, type]:
    def execute(cls, which, a=None, b=None):
        return NodeOutput((a, b))

    def source(cls, name):
        ran.append(name)
        return NodeOutput(name)

    inputs = [io_shim.String.Input("which"), Token.Input("a", lazy=True), Token.Input("b", lazy=True, optional=True)]
    more = {"check_lazy_status": ask} if ask else {}
    return {
        "Switch": node("Switch", inputs, [Token.Output()], execute, is_output_node=True, **more),
        "Source": node("Source", [io_shim.String.Input("name")], [Token.Output()], source),
    }


@pytest.mark.parametrize(
    ("ask", "which", "ran", "got"),
    [
        (lambda cls, which, a=None, b=None: [which], "a", ["A"], ("A", None)),
        (lambda cls, which, a=None, b=None: [which], "b", ["B"], (None, "B")),
        (lambda cls, which, a=None, b=None: ["a"] if a is None else ["b"], "b", ["A", "B"], ("A", "B")),
        (None, "a", [], (None, None)),
    ],
)
def test_lazy_inputs_run_only_when_asked_for(ask, which, ran, got):
    """Without a check of its own a node never gets them, as in ComfyUI."""
    done: list[str] = []
    prompt = {"s": entry("Switch", which=which, a=["1", 0], b=["2", 0]), "1": entry("Source", name="A"), "2": entry("Source", name="B")}
    result = headless.run_prompt(prompt, lazy_classes(ask, done), keep=())
    assert (done, result.outputs["s"][0]) == (ran, got)


def test_lists_call_a_node_once_per_item():
    """Shorter lists repeat their last item; list outputs are joined; a node that takes lists is called once."""
    calls = []

    def many(cls, count):
        return NodeOutput(list(range(count)))

    def each(cls, x, y):
        calls.append((x, y))
        return NodeOutput(10 * x + y, [x, y])

    def gather(cls, x, y):
        return NodeOutput(sum(x), ui={"text": [f"{x} {y}"]})

    Int = io_shim.Int
    classes = {
        "Many": node("Many", [Int.Input("count")], [Int.Output(is_output_list=True)], many),
        "Each": node("Each", [Int.Input("x"), Int.Input("y")], [Int.Output("a"), Int.Output("b", is_output_list=True)], each),
        "Gather": node("Gather", [Int.Input("x"), Int.Input("y")], [Int.Output()], gather, is_output_node=True, is_input_list=True),
    }
    prompt = {
        "3": entry("Many", count=3),
        "2": entry("Many", count=2),
        "e": entry("Each", x=["3", 0], y=["2", 0]),
        "g": entry("Gather", x=["e", 0], y=["e", 1]),
    }
    result = headless.run_prompt(prompt, classes)
    assert calls == [(0, 0), (1, 1), (2, 1)]
    assert result.texts == ["[0, 11, 21] [0, 0, 1, 1, 2, 1]"] and result.outputs["g"] == (32,)
    with pytest.raises(headless.NodeFailed, match=r"node e \(Each\).*input x got an empty list from node 3"):
        headless.run_prompt({**prompt, "3": entry("Many", count=0)}, classes)


def test_an_error_says_where_and_keeps_its_cause():
    def execute(cls):
        raise ValueError("the clip has no frames; choose another")

    with pytest.raises(headless.NodeFailed, match=r"^node 7 \(N\) failed: the clip has no frames; choose another$") as caught:
        headless.run_prompt({"7": entry("N")}, {"N": node("N", [], [], execute, is_output_node=True)})
    assert (caught.value.node, caught.value.class_type) == ("7", "N")
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("returned", "words"),
    [(NodeOutput(1), "declares 2 outputs but gave 1"), (NodeOutput(), "gave 0"), ({"result": (1, 2)}, "gave a dict"), (None, "gave 0")],
)
def test_a_wrong_result_is_refused(returned, words):
    outputs = [io_shim.Int.Output("a"), io_shim.Int.Output("b")]
    with pytest.raises(headless.NodeFailed, match=words):
        headless.run_prompt({"1": entry("N")}, {"N": node("N", [], outputs, lambda cls: returned, is_output_node=True)})


def test_a_node_cannot_keep_state():
    """ComfyUI locks the class that a node runs on; a node that writes to it must fail here too."""

    def execute(cls):
        cls.calls = 1

    stateful = node("N", [], [], execute, is_output_node=True)
    with pytest.raises(headless.NodeFailed, match=r"cls\.calls"):
        headless.run_prompt({"1": entry("N")}, {"N": stateful})
    assert not hasattr(stateful, "calls")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, host.Interrupted])
def test_interruption_passes_through_as_it_is(stop):
    def execute(cls):
        raise stop

    with pytest.raises(stop):
        headless.run_prompt({"1": entry("N")}, {"N": node("N", [], [], execute, is_output_node=True)})


def test_a_request_to_stop_stops_before_the_next_node(classes):
    prompt = {"1": NUMBER, "3": entry("TShow", value=["1", 0])}
    try:
        with pytest.raises(host.Interrupted):
            headless.run_prompt(prompt, classes, on_node=lambda step: host.interrupt())
    finally:
        host.clear_interrupt()
    assert len(classes["TNumber"].runs) == 1 and classes["TShow"].shown == []


def test_a_bad_prompt_runs_nothing(classes):
    prompt = {
        "1": NUMBER,
        "2": entry("TNumber", seed=99, scale=1, negate=False),
        "3": entry("TShow", value=["1", 0]),
        "4": entry("TShow", value=["2", 0]),
    }
    with pytest.raises(headless.PromptRefused, match="bigger than the maximum") as caught:
        headless.run_prompt(prompt, classes)
    assert [e.node for e in caught.value.errors] == ["2"] and classes["TNumber"].runs == []


def test_hidden_inputs_are_there_when_declared():
    seen = {}

    def execute(cls):
        seen.update(vars(cls.hidden))

    prompt = {"5": entry("N")}
    headless.run_prompt(prompt, {"N": node("N", [], [], execute, is_output_node=True, hidden=[io_shim.Hidden.unique_id])})
    assert seen == {"unique_id": "5", "prompt": prompt, "extra_pnginfo": None}


def test_a_coroutine_is_awaited():
    async def execute(cls):
        return NodeOutput(5)

    classes = {"N": node("N", [], [io_shim.Int.Output()], execute, is_output_node=True)}
    assert headless.run_prompt({"1": entry("N")}, classes).outputs == {"1": (5,)}


def test_what_takes_nothing_gives_nothing_and_all_else_runs():
    """As ComfyUI does with an ExecutionBlocker, also one item of a list, and for nodes that take or give whole lists."""
    ran: list[Any] = []

    def show(cls, value):
        ran.append(value)
        return NodeOutput(value)

    number = io_shim.Int
    classes = {
        "Source": node(
            "Source", [], [number.Output("none"), number.Output("one"), number.Output("items", is_output_list=True)],
            lambda cls: NodeOutput(host.nothing(), 1, [5, host.nothing(), 7]),
        ),
        "Show": node("Show", [number.Input("value")], [number.Output("value")], show, is_output_node=True),
        "Lists": node("Lists", [number.Input("value")], [number.Output("value", is_output_list=True)], show, is_input_list=True, is_output_node=True),
    }  # fmt: skip
    places = {"none": ["1", 0], "one": ["1", 1], "items": ["1", 2], "after": ["none", 0], "list": ["lists", 0]}
    prompt = {"1": entry("Source"), "lists": entry("Lists", value=["1", 2])} | {name: entry("Show", value=place) for name, place in places.items()}
    result = headless.run_prompt(prompt, classes)
    assert sorted(ran) == [1, 5, 7]
    assert result.outputs["one"] == (1,) and all(host.is_nothing(result.outputs[name][0]) for name in ("none", "after", "list"))
    five, none, seven = result.outputs["items"][0]
    assert (five, seven) == (5, 7) and host.is_nothing(none)
