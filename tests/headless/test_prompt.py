"""Reading prompts and changing single inputs in them."""

from __future__ import annotations

import copy
import json

import pytest
from helpers.sample_nodes import sample_nodes
from hypothesis import given
from hypothesis import strategies as st

from fvr import headless
from fvr.headless import io_shim

PROMPT = {
    "1": {
        "class_type": "TNumber",
        "inputs": {"seed": 4, "scale": 0.5, "negate": False, "note": "hello", "mode": "fast"},
        "_meta": {"title": "The v1.5 source"},
    },
    "2": {"class_type": "TFilter", "inputs": {"value": ["1", 0], "kind": "blur", "kind.sigma": 2.0, "kind.edge": "wrap", "file": "a.mp4"}},
    "7:3": {"class_type": "TShow", "inputs": {"value": ["2", 0]}, "_meta": {"title": "show"}},
    "8": {"class_type": "TShow", "inputs": {"value": ["1", 0]}, "_meta": {"title": "show"}},
}
CLASSES = sample_nodes(io_shim)


@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: {"prompt": p}, lambda p: {"client_id": "x", "prompt": p, "extra_data": {}}])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_prompt_loads_bare_or_as_the_server_takes_it(tmp_path, wrap, mark):
    file = tmp_path / "p.json"
    file.write_text(mark + json.dumps(wrap(PROMPT)), encoding="utf-8")
    assert headless.load_prompt(file) == PROMPT


def test_a_node_may_be_called_prompt(tmp_path):
    prompt = {"prompt": {"class_type": "TShow", "inputs": {}}}
    (tmp_path / "p.json").write_text(json.dumps(prompt))
    assert headless.load_prompt(tmp_path / "p.json") == prompt


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (json.dumps({"nodes": [], "links": [], "version": 0.4}), r"page format.*Export \(API\)"),
        ("{", "not JSON"),
        ("[]", "not an API-format prompt"),
        ("{}", "not an API-format prompt"),
        (json.dumps({"1": 5}), "not an API-format prompt"),
        (json.dumps({"1": {"class_type": "X", "inputs": []}}), "node 1 whose inputs"),
        (json.dumps({"1": {"class_type": "X", "inputs": None}}), "node 1 whose inputs"),
        (json.dumps({"1": {"class_type": {}}}), "node 1 with a class_type that is no text"),
        (json.dumps({"1": {"class_type": ["X"]}}), "node 1 with a class_type that is no text"),
        (json.dumps({"1": {"class_type": None}}), "node 1 with a class_type that is no text"),
        (json.dumps({"1": {"inputs": {}}}), "node 1 with no class_type"),
        ("[" * 100_000, "nested deeper"),
        ('{"1": {"class_type": "X", "inputs": {"a": ' + "[" * 90 + "]" * 90 + "}}}", "nested deeper"),
        ('{"a":' * 100_000, "nested deeper"),
        ('{"1": ' + "9" * 5000 + "}", "not JSON"),
    ],
)
def test_anything_else_is_one_sentence(tmp_path, content, words):
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(ValueError, match=words) as caught:
        headless.load_prompt(tmp_path / "p.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("meta", [None, [], "x", {}, {"title": None}, {"title": {}}, {"title": ["show"]}])
def test_what_the_page_knows_of_a_node_may_be_anything(tmp_path, meta):
    (tmp_path / "p.json").write_text(json.dumps({**PROMPT, "9": {"class_type": "TShow", "inputs": {"value": ["1", 0]}, "_meta": meta}}))
    prompt = headless.load_prompt(tmp_path / "p.json")
    assert headless.apply_overrides(prompt, ["The v1.5 source.seed=7"])["1"]["inputs"]["seed"] == 7
    assert headless.validate({**prompt, "10": {"class_type": "TGone", "inputs": {}, "_meta": meta}}, CLASSES)[0].node == "10"
    steps = []
    headless.run_prompt(prompt, CLASSES, on_node=steps.append)
    assert {step.title for step in steps if step.node == "9"} == {"TShow"}


def test_a_file_that_is_no_workflow_by_its_size_is_not_read(tmp_path):
    with (tmp_path / "p.json").open("wb") as file:
        file.truncate(5 << 30)
    with pytest.raises(ValueError, match="has 5368709120 bytes, which no workflow has"):
        headless.load_prompt(tmp_path / "p.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.json"):
        headless.load_prompt(tmp_path / "gone.json")


@pytest.mark.parametrize("registry", [None, CLASSES])
@pytest.mark.parametrize(
    ("override", "node", "name", "value"),
    [
        ("1.seed=7", "1", "seed", 7),
        ("TNumber.scale=1e-1", "1", "scale", 0.1),
        ("The v1.5 source.negate=true", "1", "negate", True),
        ("2.kind.sigma=3.5", "2", "kind.sigma", 3.5),
        ("TFilter.kind=none", "2", "kind", "none"),
        ("2.file=sub/b=c.mp4", "2", "file", "sub/b=c.mp4"),
        ("1.note=1.50", "1", "note", "1.50"),
        ("1.note=", "1", "note", ""),
        ("1.note=null", "1", "note", "null"),
        ("1.mode=fast", "1", "mode", "fast"),
        ('7:3.value=["1", 0]', "7:3", "value", ["1", 0]),
        ("8.value=[1, 2, 3]", "8", "value", [1, 2, 3]),
    ],
)
def test_an_override_changes_one_input_and_nothing_else(override, node, name, value, registry):
    before = copy.deepcopy(PROMPT)
    expected = copy.deepcopy(PROMPT)
    expected[node]["inputs"][name] = value
    assert headless.apply_overrides(PROMPT, [override], registry) == expected
    assert before == PROMPT


def test_the_last_override_wins():
    assert headless.apply_overrides(PROMPT, ["1.seed=1", "1.seed=2"])["1"]["inputs"]["seed"] == 2


def test_a_registry_keeps_words_that_look_like_numbers():
    """An optional text that the prompt leaves out: only its declaration tells that 007 is text."""
    prompt = copy.deepcopy(PROMPT)
    del prompt["1"]["inputs"]["note"]
    assert headless.apply_overrides(prompt, ["1.note=0.10"], CLASSES)["1"]["inputs"]["note"] == "0.10"
    assert headless.apply_overrides(prompt, ["1.note=0.10"])["1"]["inputs"]["note"] == 0.1


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("1.seed", "NODE.INPUT=VALUE"),
        ("seed=3", "NODE.INPUT=VALUE"),
        ("9.seed=3", r"names no node.*1 \(TNumber\)"),
        ("TShow.value=3", "2 nodes.*7:3, 8"),
        ("show.value=3", "2 nodes"),
    ],
)
def test_an_override_that_names_nothing_is_refused(override, words):
    with pytest.raises(ValueError, match=words):
        headless.apply_overrides(PROMPT, [override])


@pytest.mark.parametrize("override", ["1.sead=3", "2.kind.sigmo=3", "2.sigma=3"])
def test_a_registry_finds_misspelt_inputs(override):
    with pytest.raises(ValueError, match="has no input"):
        headless.apply_overrides(PROMPT, [override], CLASSES)


@given(st.text())
def test_any_text_reaches_a_text_input_unchanged_unless_it_is_a_link(text):
    value = headless.apply_overrides(PROMPT, [f"1.note={text}"])["1"]["inputs"]["note"]
    assert value == text


@given(st.one_of(st.integers(), st.booleans(), st.floats(allow_nan=False)))
def test_any_json_value_reaches_a_number_input(value):
    assert headless.apply_overrides(PROMPT, [f"1.seed={json.dumps(value)}"])["1"]["inputs"]["seed"] == value
