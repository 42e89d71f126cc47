"""What is refused before anything runs, beyond what test_io_conformity.py holds against ComfyUI."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from helpers.sample_nodes import sample_nodes

from fvr import headless
from fvr.headless import io_shim

CLASSES = sample_nodes(io_shim)
NUMBER = {"class_type": "TNumber", "inputs": {"seed": 4, "scale": 0.5, "negate": False}}
FILTER = {"class_type": "TFilter", "inputs": {"value": ["1", 0], "kind": "blur", "kind.sigma": 2.0, "kind.edge": "wrap", "file": "a.mp4"}}
SHOW = {"class_type": "TShow", "inputs": {"value": ["2", 1]}}


def prompt(**changes: Any) -> dict:
    """The three nodes with some inputs of the first two replaced, or dropped where the value is `...`."""
    nodes = copy.deepcopy({"1": NUMBER, "2": FILTER, "3": SHOW})
    for name, value in changes.items():
        node, _, key = name.replace("__", ".").partition("_")
        inputs = nodes[node[1:]]["inputs"]
        inputs.pop(key, None)
        if value is not ...:
            inputs[key] = value
    return nodes


def only(errors: list) -> Any:
    assert len(errors) == 1, errors
    return errors[0]


def test_a_good_prompt_has_no_errors():
    assert headless.validate(prompt(), CLASSES) == []


@pytest.mark.parametrize(
    ("changes", "kind", "name", "words"),
    [
        ({"n1_seed": 11}, "value_bigger_than_max", "seed", "value 11 is bigger than the maximum 10"),
        ({"n1_scale": -2}, "value_smaller_than_min", "scale", "value -2.0 is smaller than the minimum -1.0"),
        ({"n1_seed": []}, "bad_linked_input", "seed", "not a link"),
        ({"n1_seed": None}, "invalid_input_type", "seed", "not a INT"),
        ({"n1_seed": float("inf")}, "invalid_input_type", "seed", "not a INT"),
        ({"n1_scale": float("nan")}, "invalid_input_type", "scale", "nan is not a number"),
        ({"n1_scale": float("inf")}, "invalid_input_type", "scale", "inf is not a number"),
        ({"n1_scale": {}}, "invalid_input_type", "scale", "{} is not a FLOAT"),
        ({"n1_seed": "9" * 9999}, "invalid_input_type", "seed", "999... is not a INT"),
        ({"n1_mode": {"a": "b" * 9999}}, "value_not_in_list", "mode", "bbb... is not in the list"),
        ({"n1_mode": "medium"}, "value_not_in_list", "mode", "'fast', 'slow'"),
        ({"n2_kind": "sharpen"}, "value_not_in_list", "kind", "'blur', 'clip', 'none'"),
        ({"n2_kind": ...}, "required_input_missing", "kind", "missing"),
        ({"n2_kind__edge": "round"}, "value_not_in_list", "kind.edge", "'wrap', 'clip'"),
        ({"n2_value": ["1", 1]}, "return_type_mismatch", "value", "takes FLOAT, but output 1 of node 1"),
        ({"n2_value": ["5", 0]}, "bad_linked_input", "value", "node 5, which is not in the prompt"),
        ({"n2_value": ["1", 2]}, "bad_linked_input", "value", "output 2 of node 1"),
        ({"n2_value": ["1", -1]}, "bad_linked_input", "value", "output -1 of node 1"),
        ({"n2_value": [1, 0]}, "bad_linked_input", "value", "not a link"),
        ({"n2_file": "broken.mp4"}, "custom_validation_failed", None, "cannot read broken.mp4"),
        ({"n2_file": "bug.mp4"}, "exception_during_validation", None, "KeyError"),
    ],
)
def test_each_slip_is_named_once_with_its_node(changes, kind, name, words):
    error = only(headless.validate(prompt(**changes), CLASSES))
    assert (error.node, error.type, error.input) == (next(iter(changes))[1], kind, name)
    assert words in error.message
    assert str(error).startswith(f"node {error.node} ({error.class_type}): ") and "\n" not in str(error)


def test_every_unknown_class_is_reported():
    broken = {**prompt(), "8": {"class_type": "TGone", "inputs": {}, "_meta": {"title": "Old"}}, "9": {"inputs": {}}}
    assert [(e.node, e.type) for e in headless.validate(broken, CLASSES)] == [("8", "missing_node_type"), ("9", "missing_node_type")]
    assert "'Old'" in headless.validate(broken, CLASSES)[0].message


@pytest.mark.parametrize("odd", [{}, [], 5, None, True, 1.5])
def test_a_class_that_is_no_text_is_reported(odd):
    assert only(headless.validate({**prompt(), "8": {"class_type": odd, "inputs": {}, "_meta": None}}, CLASSES)).node == "8"


def test_an_error_is_one_line_whatever_the_prompt_is_called():
    (error,) = headless.validate({**prompt(), "8\n9": {"class_type": "T\nGone", "inputs": {}}}, CLASSES)
    assert len(str(error).splitlines()) == 1


def test_a_cycle_names_its_way_round():
    nodes = prompt(n1_scale=["2", 0])
    error = only(headless.validate(nodes, CLASSES))
    assert error.type == "dependency_cycle"
    assert "1 (TNumber)" in error.message and "2 (TFilter)" in error.message and "3" not in error.message.replace("(TFilter)", "")


def test_a_node_linked_to_itself_is_a_cycle():
    assert only(headless.validate(prompt(n1_scale=["1", 0]), CLASSES)).type == "dependency_cycle"


def test_inputs_of_a_choice_not_made_are_ignored():
    """As in ComfyUI, which leaves them in prompts saved by the page."""
    assert headless.validate(prompt(n2_kind="none", n2_kind__sigma=-99), CLASSES) == []
    assert headless.validate(prompt(n2_unheard_of=1), CLASSES) == []


def test_long_lists_are_counted_not_printed():
    names = [f"{i}.mp4" for i in range(50)]

    class Long(io_shim.ComfyNode):
        @classmethod
        def define_schema(cls):
            return io_shim.Schema("TLong", is_output_node=True, inputs=[io_shim.Combo.Input("file", options=names)])

        @classmethod
        def execute(cls, file):
            return None

    error = only(headless.validate({"1": {"class_type": "TLong", "inputs": {"file": "x"}}}, {"TLong": Long}))
    assert "a list of 50" in error.message and "49.mp4" not in error.message


def test_validation_changes_nothing():
    nodes = prompt(n1_seed="4", n1_scale="0.5")
    before = json.dumps(nodes)
    assert headless.validate(nodes, CLASSES) == []
    assert json.dumps(nodes) == before


@pytest.mark.parametrize(
    ("given", "taken", "fits"),
    [
        ("IMAGE", "IMAGE", True),
        ("IMAGE", "MASK", False),
        ("*", "MASK", True),
        ("IMAGE", "*", True),
        ("IMAGE,MASK", "MASK", True),
        ("IMAGE, MASK", "LATENT,MASK", True),
        ("IMAGE,MASK", "LATENT", False),
        ("IMAGE", "COMFY_MATCHTYPE_V3", True),
        (["a", "b"], "COMBO", True),
        ("FVR_FACES", "FVR_FACE", False),
    ],
)
def test_types_fit_as_in_comfyui(given, taken, fits):
    from fvr.headless.validation import compatible

    assert compatible(given, taken) is fits


def test_two_inputs_of_one_name_are_refused_at_the_schema():
    class Twice(io_shim.ComfyNode):
        @classmethod
        def define_schema(cls):
            return io_shim.Schema("TTwice", inputs=[io_shim.Int.Input("a"), io_shim.Float.Input("a")])

        @classmethod
        def execute(cls, a):
            return None

    with pytest.raises(ValueError, match="two inputs called a"):
        Twice.GET_SCHEMA()
