"""The subgraph blueprints: what a page loads of them is whole, and their nodes are as the schemas have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fvr.headless.schema import describe
from fvr.nodes import registry

FOLDER = Path(__file__).resolve().parents[1] / "subgraphs"
BLUEPRINTS = sorted(FOLDER.glob("*.json"))
FRAME = {-10: "inputs", -20: "outputs"}
"""What stands for the borders of a subgraph in its links."""


def inner(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The node that stands for a blueprint, and what is in it."""
    page = json.loads(path.read_text(encoding="utf-8"))
    (node,), (subgraph,) = page["nodes"], page["definitions"]["subgraphs"]
    assert node["type"] == subgraph["id"] and node["title"] == subgraph["name"] == path.stem
    return node, subgraph


def test_they_are_there():
    assert {"Face restore for videos", "Detail faces with my model", "Compare before and after"} == {path.stem for path in BLUEPRINTS}


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_every_wire_leads_where_both_ends_say(path):
    outer, subgraph = inner(path)
    nodes = {node["id"]: node for node in subgraph["nodes"]}
    for link in subgraph["links"]:
        start, end = link["origin_id"], link["target_id"]
        one = subgraph["inputs"][link["origin_slot"]] if start in FRAME else nodes[start]["outputs"][link["origin_slot"]]
        other = subgraph["outputs"][link["target_slot"]] if end in FRAME else nodes[end]["inputs"][link["target_slot"]]
        assert one["type"] == other["type"] == link["type"]
        assert link["id"] in (one["linkIds"] if start in FRAME else one["links"])
        assert link["id"] in other["linkIds"] if end in FRAME else link["id"] == other["link"]
    for side in ("inputs", "outputs"):
        assert [(slot["name"], slot["type"]) for slot in outer[side]] == [(slot["name"], slot["type"]) for slot in subgraph[side]]


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_their_nodes_are_as_the_schemas_have_them(path):
    _, subgraph = inner(path)
    known = registry()
    for node in subgraph["nodes"]:
        if node["type"] not in known:
            assert not node["type"].startswith("FVR"), node["type"]
            continue
        names = [slot["name"] for slot in node["inputs"] if slot.get("widget")]
        values = dict(zip(names, node["widgets_values"], strict=False))
        slots = describe(known[node["type"]]).slots(values)
        assert {slot["name"] for slot in node["inputs"]} == set(slots), node["type"]
        assert [output["type"] for output in node["outputs"]] == list(describe(known[node["type"]]).outputs)
        for name, value in values.items():
            options = slots[name].options
            assert not isinstance(value, (int, float)) or options.get("min", value) <= value <= options.get("max", value), f"{node['type']}.{name}"
