"""Checks a prompt as ComfyUI does before it runs anything.

Same error types, same order of checks per input. Where ComfyUI would only fail later, while running, this reports at once: a choice
with inputs (DynamicCombo) that is missing or unknown, and a link to a node that is not there.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from .schema import NodeInfo, Slot, class_of, describe, is_link, nest, overridden, title_of

Prompt = Mapping[str, Mapping[str, Any]]

_CONVERT = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


@dataclass(frozen=True)
class NodeError:
    """A fault in a prompt. `type` is ComfyUI's error type; `node` is "" for the prompt as a whole."""

    node: str
    class_type: str
    type: str
    message: str
    input: str | None = None

    def __str__(self) -> str:
        where = [f"node {abbreviated(self.node, str)} ({abbreviated(self.class_type, str)})"] if self.node else []
        return " ".join(": ".join([*where, *([f"input {self.input}"] if self.input else []), self.message]).splitlines())


def validate(prompt: Prompt, registry: Mapping[str, Any]) -> list[NodeError]:
    """All faults in the nodes that the prompt's output nodes depend on; empty when it can run.

    `registry` maps node ids to classes. Unknown classes are reported wherever they are. Nothing is run but the nodes' own `validate_inputs`.
    """
    unknown = [_unknown(prompt, node) for node in prompt if class_of(prompt[node]) not in registry]
    if unknown:
        return unknown
    infos = {name: describe(registry[name]) for name in {prompt[node]["class_type"] for node in prompt}}
    if not any(infos[prompt[node]["class_type"]].is_output_node for node in prompt):
        return [NodeError("", "", "prompt_no_outputs", "the prompt has no output node; add one that saves or shows something")]
    errors = []
    for node in needed(prompt, infos):
        errors += _check_node(prompt, node, infos)
    return errors + _cycles(prompt, infos)


def needed(prompt: Prompt, infos: Mapping[str, NodeInfo], keep: tuple[str, ...] = ()) -> list[str]:
    """The output nodes, `keep`, and all nodes that these depend on, in the prompt's order."""
    waiting = [node for node in prompt if infos[prompt[node]["class_type"]].is_output_node or node in keep]
    found = set(waiting)
    while waiting:
        new = [source for source in linked_nodes(prompt[waiting.pop()], infos).values() if source in prompt and source not in found]
        found.update(new)
        waiting += new
    return [node for node in prompt if node in found]


def linked_nodes(entry: Mapping[str, Any], infos: Mapping[str, NodeInfo]) -> dict[str, str]:
    """{input: node it comes from}, for the inputs that the class has."""
    inputs = entry.get("inputs", {})
    slots = infos[entry["class_type"]].slots(inputs)
    return {name: value[0] for name, value in inputs.items() if name in slots and is_link(value)}


def literal(slot: Slot, value: Any) -> Any:
    """A widget's value as passed to the node: unwrapped, and converted to the declared type as ComfyUI does.

    Raises:
        ValueError, TypeError, OverflowError: if it cannot be converted.
    """
    if isinstance(value, dict) and "__value__" in value:
        value = value["__value__"]
    return _CONVERT[slot.type](value) if isinstance(slot.type, str) and slot.type in _CONVERT else value


def abbreviated(value: Any, text: Callable[[Any], str] = repr) -> str:
    """A value as errors show it: its beginning, if it is long."""
    whole = text(value)
    return whole if len(whole) <= 120 else f"{whole[:117]}..."


def _unknown(prompt: Prompt, node: str) -> NodeError:
    class_type = class_of(prompt[node])
    if class_type is None:
        return NodeError(node, "?", "missing_node_type", "has no class_type; export the workflow again")
    return NodeError(
        node,
        class_type,
        "missing_node_type",
        f"node {abbreviated(title_of(prompt[node]) or class_type)} is not known here; only this package's nodes run without ComfyUI",
    )


def _check_node(prompt: Prompt, node: str, infos: Mapping[str, NodeInfo]) -> list[NodeError]:
    class_type = prompt[node]["class_type"]
    inputs = prompt[node].get("inputs", {})
    info = infos[class_type]
    slots = info.slots(inputs)
    own = overridden(info.node_class, "validate_inputs")
    spec = inspect.getfullargspec(own) if own else None
    mine = set(slots) if spec and spec.varkw else set(spec.args if spec else ())
    errors = []
    for slot in slots.values():
        if slot.name not in inputs:
            if slot.required:
                errors.append(NodeError(node, class_type, "required_input_missing", "required input is missing", slot.name))
            continue
        value = inputs[slot.name]
        free = slot.name in mine and not slot.choice
        wrong = _check_link(prompt, value, slot, infos) if isinstance(value, list) else _check_literal(value, slot, free=free)
        if wrong:
            errors.append(NodeError(node, class_type, *wrong, slot.name))
    if own and not errors:
        errors += _check_own(node, class_type, own, mine, inputs, slots)
    return errors


def _check_link(prompt: Prompt, value: list[Any], slot: Slot, infos: Mapping[str, NodeInfo]) -> tuple[str, str] | None:
    if not is_link(value):
        return "bad_linked_input", f"{abbreviated(value)} is not a link; a link is [node id, output index]"
    source, index = value
    if source not in prompt:
        return "bad_linked_input", f"is linked to node {abbreviated(source, str)}, which is not in the prompt"
    outputs = infos[prompt[source]["class_type"]].outputs
    if not 0 <= index < len(outputs):
        return "bad_linked_input", f"is linked to output {index} of node {source} ({prompt[source]['class_type']}), which has {len(outputs)}"
    if not compatible(outputs[index], slot.type):
        return "return_type_mismatch", f"takes {slot.type}, but output {index} of node {source} ({prompt[source]['class_type']}) is {outputs[index]}"
    return None


def compatible(given: Any, taken: Any) -> bool:
    """Whether an output type fits an input type: they are equal, one of them is any ("*"), or lists "A,B" share a type."""
    if given == taken or (isinstance(given, list) and taken == "COMBO"):
        return True
    if not isinstance(given, str) or not isinstance(taken, str):
        return False
    words = [{word.strip() for word in kind.split(",")} for kind in (given, taken)]
    return bool(words[0] & words[1]) or any(wild in kind for kind in words for wild in ("*", "COMFY_MATCHTYPE_V3"))


def _check_literal(value: Any, slot: Slot, *, free: bool) -> tuple[str, str] | None:
    """`free`: the node checks range and membership itself."""
    try:
        value = literal(slot, value)
    except (ValueError, TypeError, OverflowError) as error:
        return "invalid_input_type", f"{abbreviated(value)} is not a {slot.type} ({abbreviated(error, str)})"
    if isinstance(value, float) and not math.isfinite(value):
        return "invalid_input_type", f"{value} is not a number that a widget can hold"
    if free:
        return None
    low, high = slot.options.get("min"), slot.options.get("max")
    if low is not None and value < low:
        return "value_smaller_than_min", f"value {value} is smaller than the minimum {low}"
    if high is not None and value > high:
        return "value_bigger_than_max", f"value {value} is bigger than the maximum {high}"
    if slot.type == "COMBO" or isinstance(slot.type, list):
        words = slot.type if isinstance(slot.type, list) else slot.options.get("options") or []
        if value not in words:
            listed = ", ".join(map(repr, words)) if len(words) <= 20 else f"a list of {len(words)}"
            return "value_not_in_list", f"value {abbreviated(value)} is not in the list; choose one of {listed or 'none: the list is empty'}"
    return None


def _check_own(node: str, class_type: str, own: Any, mine: set[str], inputs: Mapping[str, Any], slots: Mapping[str, Slot]) -> list[NodeError]:
    values = {name: None if is_link(value) else literal(slots[name], value) for name, value in inputs.items() if name in slots}
    chosen = {name: value for name, value in values.items() if name in mine or slots[name].path is not None}
    if not chosen:
        return []
    hide = {name: value if name in mine else None for name, value in chosen.items()}
    try:
        verdict = own(**nest(hide, slots))
    except Exception as error:
        return [NodeError(node, class_type, "exception_during_validation", f"its own check failed with {type(error).__name__}: {error}")]
    if verdict is True:
        return []
    return [NodeError(node, class_type, "custom_validation_failed", str(verdict) if verdict is not False else "the node refuses its inputs")]


def _cycles(prompt: Prompt, infos: Mapping[str, NodeInfo]) -> list[NodeError]:
    nodes = needed(prompt, infos)
    graph = {node: [source for source in linked_nodes(prompt[node], infos).values() if source in prompt] for node in nodes}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        path = error.args[1]
        round_trip = " -> ".join(f"{node} ({prompt[node]['class_type']})" for node in path)
        return [NodeError(path[0], prompt[path[0]]["class_type"], "dependency_cycle", f"its inputs lead back to itself: {round_trip}")]
    return []
