"""Text to parameters: `NAME=VALUE` strings into the fields of an options dataclass."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Options = TypeVar("Options")

TRUE = {"true", "yes", "on", "1"}
FALSE = {"false", "no", "off", "0"}


def parse_settings(base: Options, settings: Mapping[str, str], method: str, extra: tuple[str, ...] = ()) -> Options:
    """`base` with the fields that `settings` names replaced by their parsed values, all at once.

    Values are numbers, on/off words or one of a field's fixed words; "none" empties an optional field. Ranges are the dataclass's own.

    Args:
        base: a frozen dataclass whose constructor checks ranges.
        settings: field name to text.
        method: what error messages call the method.
        extra: further names that the caller understands, listed in errors.

    Raises:
        ValueError: one sentence for an unknown name (listing the known), an unreadable value, or a value out of range.
    """
    kinds = get_type_hints(type(base))
    known = [field.name for field in fields(base) if field.init]  # type: ignore[arg-type]
    changes: dict[str, Any] = {}
    for name, text in settings.items():
        if name not in known:
            near = get_close_matches(name, [*known, *extra], n=1)
            hint = f", did you mean {near[0]!r}?" if near else ";"
            raise ValueError(f"{method} has no setting {name!r}{hint} choose from {', '.join([*extra, *known])}")
        changes[name] = _parse(kinds[name], text.strip(), name, method)
    try:
        return replace(base, **changes)  # type: ignore[type-var]
    except ValueError as wrong:
        raise ValueError(f"{method}: {wrong}") from wrong


def _parse(kind: Any, text: str, name: str, method: str) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        if text.lower() in ("none", ""):
            return None
        kind = next(part for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is Literal:
        words = get_args(kind)
        if text not in words:
            raise ValueError(f"{method}: {name} must be one of {', '.join(words)}, got {text!r}")
        return text
    if kind is bool:
        if text.lower() not in TRUE | FALSE:
            raise ValueError(f"{method}: {name} is on or off, got {text!r}")
        return text.lower() in TRUE
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"{method}: {name} is {what}, got {text!r}") from None
