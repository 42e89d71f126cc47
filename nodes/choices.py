"""Choices with inputs of their own (DynamicCombo), checked before anything runs.

ComfyUI 0.33 silently drops a choice that is missing or unknown from an API prompt, so that the node would fail, or take a default, only after all
nodes before it have run. So each node names its choice in `validate_inputs`, together with a required socket: ComfyUI reports no fault if only the
choice is named, and a socket has no built-in checks that naming it would switch off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..headless.io import io


def check_choice(node: type[io.ComfyNode], name: str, given: Mapping[str, Any] | None) -> bool | str:
    """For `validate_inputs`: True, or what is wrong in a sentence. `given` is None where ComfyUI dropped the choice."""
    if given is not None:
        return True
    declared = next(one for one in node.define_schema().inputs if one.id == name)
    return f"{name} is missing or unknown; choose one of {', '.join(option.key for option in declared.options)}"


def choice_made(node: type[io.ComfyNode], name: str, given: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """For `execute`: the option that was chosen, and those of its inputs that were given. Raises ValueError where ComfyUI dropped the choice."""
    if given is None:
        raise ValueError(check_choice(node, name, given))
    values = {key: value for key, value in given.items() if value is not None}
    return values.pop(name), values
