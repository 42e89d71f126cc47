"""English texts of our nodes in ComfyUI's translation format: `python -m fvr.nodes.page.locales` rewrites the file.

The English file repeats the schemas as a template for translators; tests/nodes/test_locales.py keeps the two in sync.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ENGLISH = Path(__file__).resolve().parents[2] / "locales" / "en" / "nodeDefs.json"

Texts = dict[str, Any]


def input_texts(schema: Any) -> dict[str, Texts]:
    """{key: {name, tooltip}} of all inputs; those of a DynamicCombo's options have the key "combo_name".

    The page looks these up without their option, so differing tooltips of one name are joined, each after its options.
    """
    texts: dict[str, Texts] = {}
    for one in schema.inputs:
        texts[one.id] = socket_texts(one)
        revealed: dict[str, list[tuple[str, Any]]] = {}
        for option in getattr(one, "options", None) or []:
            for inner in getattr(option, "inputs", []):
                revealed.setdefault(inner.id, []).append((option.key, inner))
        for name, places in revealed.items():
            texts[f"{one.id}_{name}"] = {"name": places[0][1].display_name or name, "tooltip": merged([(key, p.tooltip) for key, p in places])}
    return texts


def merged(tooltips: list[tuple[str, str]]) -> str:
    """One tooltip for an input shared by several options."""
    options: dict[str, list[str]] = {}
    for key, tooltip in tooltips:
        options.setdefault(tooltip, []).append(key)
    if len(options) == 1:
        return tooltips[0][1]
    return " ".join(f"{', '.join(keys)}: {tooltip}" for tooltip, keys in options.items())


def socket_texts(socket: Any) -> Texts:
    """Displayed name and tooltip of an input or output."""
    return {"name": socket.display_name or socket.id, "tooltip": socket.tooltip}


def node_texts(schema: Any) -> Texts:
    """All translatable texts of a node."""
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": input_texts(schema),
        "outputs": {str(index): socket_texts(output) for index, output in enumerate(schema.outputs)},
    }


def english() -> dict[str, Texts]:
    """All nodes, by id."""
    from .. import NODES

    schemas = sorted((node.define_schema() for node in NODES), key=lambda schema: schema.node_id)
    return {schema.node_id: node_texts(schema) for schema in schemas}


if __name__ == "__main__":
    ENGLISH.write_text(json.dumps(english(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
