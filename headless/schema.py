"""The inputs and outputs of a node class, read from its published description, which ComfyUI's classes and ours share.

A choice with inputs of its own (DynamicCombo) appears in a prompt as "kind": "blur", "kind.sigma": 2 and reaches `execute` as
kind={"kind": "blur", "sigma": 2}; which of the dotted inputs exist depends on the values given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .io_shim import DYNAMIC_COMBO


@dataclass(frozen=True)
class Slot:
    """One input as it stands in a prompt. `path` says where it goes in a nested value, None for plain ones; `choice`: a DynamicCombo."""

    name: str
    type: Any
    options: Mapping[str, Any]
    required: bool
    path: str | None = None
    choice: bool = False


@dataclass(frozen=True)
class NodeInfo:
    """The parts of /object_info that validating and running need."""

    node_class: Any
    sections: Mapping[str, Any]
    hidden: frozenset[str]
    outputs: tuple[Any, ...]
    output_is_list: tuple[bool, ...]
    is_output_node: bool
    takes_lists: bool

    def slots(self, given: Mapping[str, Any]) -> dict[str, Slot]:
        """The inputs that exist for the values given, by their name in the prompt."""
        return {slot.name: slot for slot in _expand(self.sections, given, "")}


def describe(node_class: Any) -> NodeInfo:
    """Reads a class's schema; not cached, as combos of files list what is in the folder now."""
    info = node_class.GET_NODE_INFO_V1()
    sections = {name: entries for name, entries in info["input"].items() if name in ("required", "optional")}
    return NodeInfo(
        node_class,
        sections,
        frozenset(info["input"].get("hidden", {})),
        tuple(info["output"]),
        tuple(info["output_is_list"]),
        bool(info["output_node"]),
        bool(info.get("is_input_list")),
    )


def _expand(sections: Mapping[str, Any], given: Mapping[str, Any], prefix: str) -> Iterator[Slot]:
    for section in ("required", "optional"):
        for name, (kind, *rest) in sections.get(section, {}).items():
            full = prefix + name
            options = rest[0] if rest else {}
            if kind != DYNAMIC_COMBO:
                yield Slot(full, kind, options, section == "required", full if prefix else None)
                continue
            chosen = {option["key"]: option["inputs"] for option in options["options"]}
            yield Slot(full, "COMBO", {**options, "options": list(chosen)}, section == "required", f"{full}.{name}", choice=True)
            key = given.get(full)
            if isinstance(key, str) and key in chosen:
                yield from _expand(chosen[key], given, f"{full}.")


def nest(values: Mapping[str, Any], slots: Mapping[str, Slot]) -> dict[str, Any]:
    """Keyword arguments for a node's methods: dotted inputs gathered under their choice; those of a made choice that are not given are None."""
    arguments = {name: value for name, value in values.items() if slots[name].path is None}
    for slot in slots.values():
        root = slot.name.partition(".")[0]
        if slot.path is None or root not in values:
            continue
        *folders, last = slot.path.split(".")
        here = arguments
        for folder in folders:
            here = here.setdefault(folder, {})
        here[last] = values.get(slot.name)
    return arguments


def declared_type(node_class: Any, name: str) -> str | None:
    """The type of an input, whatever options are chosen; None if the class has no such input."""

    def every(sections: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for entries in sections.values():
            for key, (kind, *rest) in entries.items():
                yield prefix + key, "COMBO" if kind == DYNAMIC_COMBO else kind
                if kind == DYNAMIC_COMBO:
                    for option in rest[0]["options"]:
                        yield from every(option["inputs"], f"{prefix}{key}.")

    return dict(every(describe(node_class).sections, "")).get(name)


def class_of(entry: Mapping[str, Any]) -> str | None:
    """Class name of a prompt's node; None if missing or no string."""
    found = entry.get("class_type")
    return found if isinstance(found, str) else None


def title_of(entry: Mapping[str, Any]) -> str | None:
    """A prompt's node's title on the page, if it has one."""
    meta = entry.get("_meta")
    found = meta.get("title") if isinstance(meta, Mapping) else None
    return found if isinstance(found, str) else None


def is_link(value: Any) -> bool:
    """Whether a prompt's value is the output of another node: [node id, output index]."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and type(value[1]) is int


def overridden(node_class: Any, method: str) -> Any:
    """The node's own `method`, or None where it only inherits the API's."""
    from .io import io

    own = getattr(node_class, method, None)
    return None if own is None or own.__func__ is getattr(io.ComfyNode, method).__func__ else own
