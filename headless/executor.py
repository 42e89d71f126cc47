"""Runs an API-format prompt from the node classes, as ComfyUI's executor does."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from .. import host
from .schema import NodeInfo, describe, is_link, nest, overridden, title_of
from .validation import NodeError, Prompt, linked_nodes, literal, needed, validate

MAX_LISTED_ERRORS = 10
"""Maximum errors listed in one message."""


class PromptRefused(ValueError):
    """The prompt failed `validate`; `errors` has all its errors."""

    def __init__(self, errors: list[NodeError]) -> None:
        more = [f"and {len(errors) - MAX_LISTED_ERRORS} more faults"] if len(errors) > MAX_LISTED_ERRORS else []
        super().__init__("; ".join([*map(str, errors[:MAX_LISTED_ERRORS]), *more]))
        self.errors = errors


class NodeFailed(RuntimeError):
    """A node raised while it ran; the cause is chained."""

    def __init__(self, node: str, class_type: str, cause: Exception) -> None:
        super().__init__(f"node {node} ({class_type}) failed: {cause or type(cause).__name__}")
        self.node = node
        self.class_type = class_type


@dataclass(frozen=True)
class NodeStep:
    """The node that is about to run: the `position`-th, counted from 1, of at most `total`."""

    node: str
    class_type: str
    title: str
    position: int
    total: int


@dataclass(frozen=True)
class RunResult:
    """The result of a run.

    Attributes:
        outputs: per output node (and node named in `keep`), its outputs in order.
        ui: per node, its UI output.
        files: the files that `ui` names, in order.
        texts: the texts that `ui` shows, in order.
        seconds: per node, how long it ran.
    """

    outputs: dict[str, tuple[Any, ...]]
    ui: dict[str, dict[str, Any]]
    files: list[Path]
    texts: list[str]
    seconds: dict[str, float]


def run_prompt(
    prompt: Prompt, registry: Mapping[str, Any], *, on_node: Callable[[NodeStep], None] | None = None, keep: Collection[str] = ()
) -> RunResult:
    """Runs what the prompt's output nodes (and the nodes named in `keep`) need, each node once, under inference mode.

    A node's results are freed as soon as every node that takes them has run. ComfyUI runs the valid part of an invalid prompt; this refuses
    all of it. Node expansion is not supported. Nodes with an input that is `host.nothing` (ComfyUI's ExecutionBlocker) do not run, and their
    outputs are `host.nothing` too.

    Raises:
        PromptRefused: if `validate` finds anything.
        NodeFailed: if a node raises; interruption passes through as it is.
    """
    errors = validate(prompt, registry)
    missing = [node for node in keep if node not in prompt]
    if errors or missing:
        raise PromptRefused(errors or [NodeError(node, "?", "missing_node_type", "asked for, but not in the prompt") for node in missing])
    run = _Run(prompt, {name: describe(registry[name]) for name in {entry["class_type"] for entry in prompt.values()}}, tuple(keep), on_node)
    with torch.inference_mode():
        run.all()
    return RunResult(
        {node: _unwrapped(run.slots[node], run.info(node)) for node in prompt if node in run.targets},
        run.ui,
        [path for shown in run.ui.values() for path in _files(shown)],
        [str(text) for shown in run.ui.values() for text in shown.get("text", ())],
        run.seconds,
    )


@dataclass
class _Run:
    """The state of one run. Every output is a list of items, as in ComfyUI, usually of one."""

    prompt: Prompt
    infos: Mapping[str, NodeInfo]
    keep: tuple[str, ...]
    on_node: Callable[[NodeStep], None] | None
    slots: dict[str, list[list[Any]]] = field(default_factory=dict)
    ui: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.nodes = needed(self.prompt, self.infos, self.keep)
        self.targets = {node for node in self.nodes if self.info(node).is_output_node or node in self.keep}
        self.sources = {node: linked_nodes(self.prompt[node], self.infos) for node in self.nodes}
        self.lazy = {
            node: {name for name in self.sources[node] if self.info(node).slots(self.inputs(node))[name].options.get("lazy")} for node in self.nodes
        }
        self.consumers = Counter(source for node in self.nodes for source in set(self.sources[node].values()))

    def info(self, node: str) -> NodeInfo:
        return self.infos[self.prompt[node]["class_type"]]

    def inputs(self, node: str) -> Mapping[str, Any]:
        return self.prompt[node].get("inputs", {})

    def all(self) -> None:
        """Depth first, so that the results of a branch are freed before the next one starts."""
        stack = [node for node in reversed(self.nodes) if node in self.targets]
        while stack:
            node = stack[-1]
            waiting = [source for name, source in self.sources[node].items() if name not in self.lazy[node] and source not in self.seconds]
            if node in self.seconds:
                stack.pop()
            elif waiting:
                stack += reversed(waiting)
            elif not self.request_lazy_inputs(node):
                self.execute(node)

    def request_lazy_inputs(self, node: str) -> bool:
        """Whether the node now requests lazy inputs. Those it never requests are None, as in ComfyUI."""
        if not self.lazy[node] or overridden(self.info(node).node_class, "check_lazy_status") is None:
            return False
        wanted = [self.call_method(node, "check_lazy_status", arguments) for arguments in self.call_arguments(node) if not host.is_nothing(arguments)]
        more = {name for names in wanted for name in names or () if name in self.lazy[node]}
        self.lazy[node] -= more
        return any(self.sources[node][name] not in self.seconds for name in more)

    def execute(self, node: str) -> None:
        host.check_interrupt()
        entry = self.prompt[node]
        if self.on_node:
            self.on_node(NodeStep(node, entry["class_type"], title_of(entry) or entry["class_type"], len(self.seconds) + 1, len(self.nodes)))
        start = time.perf_counter()
        info = self.info(node)
        results = [
            ((arguments,) * len(info.outputs), {})
            if host.is_nothing(arguments)
            else _normalised(self.call_method(node, "execute", arguments), node, entry["class_type"])
            for arguments in self.call_arguments(node)
        ]
        for values, _ in results:
            if info.outputs and len(values) != len(info.outputs):
                cause = ValueError(f"it declares {len(info.outputs)} outputs but gave {len(values)}")
                raise NodeFailed(node, entry["class_type"], cause)
        self.slots[node] = []
        for index, is_list in enumerate(info.output_is_list):
            items = [values[index] for values, _ in results]
            self.slots[node].append([one for item in items for one in ([item] if host.is_nothing(item) else item)] if is_list else items)
        shown = [ui for _, ui in results if ui]
        if shown:
            self.ui[node] = {key: [value for ui in shown for value in ui[key]] for key in shown[0]}
        self.seconds[node] = time.perf_counter() - start
        self.release(node)

    def release(self, node: str) -> None:
        for source in set(self.sources[node].values()):
            self.consumers[source] -= 1
        for done in [n for n in self.slots if not self.consumers[n] and n not in self.targets]:
            del self.slots[done]

    def call_arguments(self, node: str) -> Iterator[Any]:
        """Keyword arguments of each call: one, or one per item when an input is a list of several (shorter lists repeat their last).

        It is `host.nothing` for a call skipped because one of its inputs is.
        """
        info = self.info(node)
        slots = info.slots(self.inputs(node))
        values = {}
        for name, value in self.inputs(node).items():
            if name not in slots:
                continue
            if not is_link(value):
                values[name] = [literal(slots[name], value)]
            elif name in self.lazy[node]:
                values[name] = [None]
            else:
                values[name] = self.slots[value[0]][value[1]]
                if not values[name] and not info.takes_lists:
                    raise NodeFailed(node, self.prompt[node]["class_type"], ValueError(f"input {name} got an empty list from node {value[0]}"))
        if info.takes_lists:
            yield next((item for items in values.values() for item in items if host.is_nothing(item)), None) or nest(values, slots)
            return
        for index in range(max(map(len, values.values()), default=1)):
            chosen = {name: items[min(index, len(items) - 1)] for name, items in values.items()}
            yield next((item for item in chosen.values() if host.is_nothing(item)), None) or nest(chosen, slots)

    def call_method(self, node: str, method: str, arguments: dict[str, Any]) -> Any:
        """Calls a node's method on a subclass made for this call, as ComfyUI does: `cls.hidden` is set, and assigning to `cls` fails."""
        info = self.info(node)
        everything = {"unique_id": node, "prompt": self.prompt}
        hidden = SimpleNamespace(
            **{name: everything.get(name) for name in ("unique_id", "prompt", "extra_pnginfo", "dynprompt") if name in info.hidden}
        )
        locked = type("Locked", (type(info.node_class),), {"__setattr__": _forbid_setattr})
        stateless = locked(info.node_class.__name__, (info.node_class,), {"hidden": hidden, "__module__": info.node_class.__module__})
        try:
            result = getattr(stateless, method)(**arguments)
            return asyncio.run(result) if inspect.iscoroutine(result) else result
        except Exception as error:
            raise NodeFailed(node, self.prompt[node]["class_type"], error) from error


def _forbid_setattr(cls: type, name: str, value: Any) -> None:
    if name.startswith("__") or name == "_abc_impl":
        type.__setattr__(cls, name, value)
        return
    raise AttributeError(f"node {cls.__name__} sets cls.{name}, but nodes keep no state; pass it through an output")


def _normalised(returned: Any, node: str, class_type: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(values, ui) of what `execute` returned: a NodeOutput, a plain tuple, or None."""
    if returned is None or isinstance(returned, tuple):
        return returned or (), {}
    if getattr(returned, "expand", None) is not None or getattr(returned, "block_execution", None) is not None:
        raise NodeFailed(node, class_type, NotImplementedError("it expands the graph or blocks execution, which only ComfyUI can do"))
    if not hasattr(returned, "args"):
        raise NodeFailed(node, class_type, TypeError(f"it gave a {type(returned).__name__} instead of io.NodeOutput"))
    ui = returned.ui
    return tuple(returned.args), ui if isinstance(ui, dict) else ui.as_dict() if ui is not None else {}


def _unwrapped(slots: list[list[Any]], info: NodeInfo) -> tuple[Any, ...]:
    return tuple(items if is_list or len(items) != 1 else items[0] for items, is_list in zip(slots, info.output_is_list, strict=True))


def _files(shown: Mapping[str, Any]) -> Iterator[Path]:
    roots = {"input": host.input_directory, "output": host.output_directory, "temp": host.temp_directory}
    for entries in shown.values():
        for entry in entries:
            if isinstance(entry, Mapping) and "filename" in entry:
                yield roots[entry.get("type", "output")]() / entry.get("subfolder", "") / entry["filename"]
