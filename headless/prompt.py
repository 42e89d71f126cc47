"""Reads API-format prompts and changes single inputs in them."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .schema import class_of, declared_type, is_link, title_of

Prompt = dict[str, dict[str, Any]]

MAX_BYTES = 64 << 20
"""Maximum bytes of a prompt file; the largest graphs take a few 100,000."""
MAX_DEPTH = 64
"""Maximum nesting of lists and objects in a node; links and input values need a few levels."""


def load_prompt(path: str | os.PathLike[str]) -> Prompt:
    """The API-format prompt in a JSON file, bare or under "prompt" as the server takes it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no API-format prompt.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"workflow {path} does not exist; give the path of an API-format JSON file")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"workflow {path} has {path.stat().st_size} bytes, which no workflow has; give an API-format JSON file")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"workflow {path} is not JSON ({error}); export it again from ComfyUI with Export (API)") from error
    except RecursionError:
        raise ValueError(f"workflow {path} is {TOO_DEEP}") from None
    if isinstance(content, dict) and isinstance(content.get("prompt"), dict) and "class_type" not in content["prompt"]:
        content = content["prompt"]
    if isinstance(content, dict) and isinstance(content.get("nodes"), list):
        raise ValueError(f"workflow {path} is in page format, which only the page can run; open it in ComfyUI, choose Export (API) and run that file")
    if not isinstance(content, dict) or not content or not all(isinstance(node, dict) for node in content.values()):
        raise ValueError(f"workflow {path} is not an API-format prompt (an object of nodes by id); export it from ComfyUI with Export (API)")
    if deeper_than(content, MAX_DEPTH):
        raise ValueError(f"workflow {path} is {TOO_DEEP}")
    for name, node in content.items():
        if class_of(node) is None:
            what = "no class_type" if "class_type" not in node else "a class_type that is no text"
            raise ValueError(f"workflow {path} has a node {name} with {what}; export it again from ComfyUI with Export (API)")
        if not isinstance(node.setdefault("inputs", {}), dict):
            raise ValueError(f"workflow {path} has a node {name} whose inputs are not an object; export it again from ComfyUI with Export (API)")
    return content


TOO_DEEP = "nested deeper than any prompt; export it again from ComfyUI with Export (API)"


def deeper_than(value: Any, depth: int) -> bool:
    """Whether lists and objects are nested deeper than `depth`."""
    layer = [value]
    for _ in range(depth):
        layer = [inner for outer in layer if isinstance(outer, (dict, list)) for inner in (outer.values() if isinstance(outer, dict) else outer)]
        if not layer:
            return False
    return True


def apply_overrides(prompt: Prompt, overrides: Iterable[str], registry: Mapping[str, Any] | None = None) -> Prompt:
    """A copy of `prompt` with "NODE.INPUT=VALUE" applied in order.

    NODE is a node's id, its title or its class, where only one node has it; INPUT may be "kind.sigma" for what a choice reveals. VALUE
    is read as JSON and else as text; it stays text for an input declared as STRING or COMBO (as its present value tells without a
    `registry` of node classes). ["5", 0] links to a node's output. A registry also finds misspelt inputs.

    Raises:
        ValueError: for an override without "=" or ".", or one whose node or input is unknown or ambiguous.
    """
    prompt = copy.deepcopy(prompt)
    for override in overrides:
        target, equals, text = override.partition("=")
        if not equals or "." not in target:
            raise ValueError(f"override {override!r} is not NODE.INPUT=VALUE; write for example 3.seed=7")
        node, name = _resolve(prompt, target.strip())
        inputs = prompt[node].setdefault("inputs", {})
        kind = None
        if registry is not None and class_of(prompt[node]) in registry:
            kind = declared_type(registry[prompt[node]["class_type"]], name)
            if kind is None:
                raise ValueError(f"override {override!r}: {_label(prompt, node)} has no input {name!r}; it has {', '.join(inputs) or 'none set'}")
        inputs[name] = _value(text, kind, inputs.get(name))
    return prompt


def _resolve(prompt: Prompt, target: str) -> tuple[str, str]:
    """The node and input behind "NODE.INPUT", where either may hold dots: the first reading that names a node."""
    dots = [i for i, letter in enumerate(target) if letter == "."]
    for dot in dots:
        asked, name = target[:dot], target[dot + 1 :]
        if asked in prompt:
            return asked, name
        for label in (title_of, class_of):
            same = [node for node in prompt if label(prompt[node]) == asked]
            if len(same) == 1:
                return same[0], name
            if same:
                raise ValueError(f"{asked!r} in {target!r} names {len(same)} nodes; use one of the ids {', '.join(same)}")
    raise ValueError(f"{target!r} names no node of this workflow; it has {', '.join(_label(prompt, node) for node in prompt)}")


def _label(prompt: Prompt, node: str) -> str:
    return f"{node} ({class_of(prompt[node])})"


def _value(text: str, kind: str | None, present: Any) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if kind in ("STRING", "COMBO") or (kind is None and isinstance(present, str)):
        return value if is_link(value) else text
    return value
