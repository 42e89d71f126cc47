"""Validation of DynamicCombo inputs (options with inputs of their own).

ComfyUI 0.33 silently drops a missing or unknown option from an API prompt, so the node would fail, or use a default, only after all upstream
nodes have run. Each node therefore names its DynamicCombo in `validate_inputs`, together with a required socket: ComfyUI ignores the error if only
the combo is named, and a socket has no built-in checks that naming it would disable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..headless.io import io


def check_choice(node: type[io.ComfyNode], name: str, given: Mapping[str, Any] | None) -> bool | str:
    """For `validate_inputs`: True or an error message. `given` is None if ComfyUI dropped the option."""
    if given is not None:
        return True
    declared = next(one for one in node.define_schema().inputs if one.id == name)
    return f"{name} is missing or unknown; choose one of {', '.join(option.key for option in declared.options)}"


def choice_made(node: type[io.ComfyNode], name: str, given: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """For `execute`: the selected option and the inputs it was given. Raises ValueError if ComfyUI dropped the option."""
    if given is None:
        raise ValueError(check_choice(node, name, given))
    values = {key: value for key, value in given.items() if value is not None}
    return values.pop(name), values
