"""Widgets of declared parameters."""

from __future__ import annotations

from typing import Any

from ..headless.io import io
from ..options import parameters


def widgets(options: Any, *names: str, optional: bool = True, **changed: Any) -> list:
    """Widgets for the parameters `names` of an options object, with its values as defaults, optional if `optional`.

    Args:
        changed: attributes of all of them that differ here, e.g. advanced.
    """
    kind: Any = type(options)
    return [widget(name, getattr(options, name), parameters(kind)[name], optional, changed) for name in names]


def from_widgets(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """Widget values as the options class takes them: a widget's stand-in for None becomes None, missing ones (None) are dropped."""
    declared = parameters(kind)
    unset = {name: one.unset for name, one in declared.items() if one.unset is not None}
    return {name: None if name in unset and value == unset[name] else value for name, value in values.items() if value is not None}


def widget(name: str, value: Any, declared: Any, optional: bool, changed: dict[str, Any]) -> Any:
    """The widget of one parameter with default `value`; `changed` as in `widgets`."""
    more: dict[str, Any] = {"default": declared.unset if value is None else value, "tooltip": declared.advice}
    more |= {"optional": True} if optional else {}
    more |= {"advanced": True} if declared.advanced else {}
    if declared.choices:
        return io.Combo.Input(name, options=list(declared.choices), **more | changed)
    if declared.number is None:
        return io.Boolean.Input(name, **more | changed)
    low = min(end for end in (declared.low, declared.unset, declared.also) if end is not None)
    more |= {"min": declared.number(low), "max": declared.number(declared.high)}
    more |= {} if declared.step is None else {"step": declared.step}
    return (io.Int if declared.number is int else io.Float).Input(name, **more | changed)
