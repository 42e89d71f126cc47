"""Parameters of methods, each declared once with default, range, unit and advice, from which checks, `--set` and widgets are derived."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

TRUE = {"true", "yes", "on", "1"}
FALSE = {"false", "no", "off", "0"}


@dataclass(frozen=True)
class Parameter:
    """Metadata of a field of an `Options` class.

    Attributes:
        low, high: inclusive range; None for fields that are not numbers.
        advice: a line of help.
        unit: of the values, for errors.
        step: of a widget.
        advanced: whether it is hidden among advanced settings.
        unset: widget value that stands for None, for optional fields.
        also: a special value outside the range.
        note: text that errors add to the range; "{unset}" becomes the caller's notation for None.
        choices: allowed words.
        number: int or float.
    """

    low: float | None = None
    high: float | None = None
    advice: str = ""
    unit: str = ""
    step: float | None = None
    advanced: bool = False
    unset: float | None = None
    also: float | None = None
    note: str = ""
    choices: tuple[str, ...] = ()
    number: type | None = None

    def check(self, name: str, value: Any, none: str = "None") -> None:
        """Raises ValueError with range and value for an invalid value; `none` is the caller's notation for None."""
        if self.choices and value not in self.choices:
            raise ValueError(f"{name} must be one of {', '.join(self.choices)}, got {value!r}")
        if self.low is None or self.high is None or (value is None and self.unset is not None) or (self.also is not None and value == self.also):
            return
        if self.number is int and value % 1:
            raise ValueError(f"{name} must be a whole number, got {value}")
        if not self.low <= value <= self.high:
            range_ = f"{self.low:g} and {self.high:g}{f' {self.unit}' if self.unit else ''}{self.note.format(unset=none)}"
            raise ValueError(f"{name} must lie between {range_}, got {value}")


def parameter(default: Any, low: float | None = None, high: float | None = None, **known: Any) -> Any:
    """A field of an `Options` class; `known` are the other attributes of `Parameter`."""
    return field(default=default, metadata={Parameter: Parameter(low, high, **known)})


class Options:
    """Base of frozen dataclasses of a method's parameters; values out of range raise ValueError.

    >>> @dataclass(frozen=True)
    ... class Example(Options):
    ...     steps: int = parameter(4, 2, 10, unit="steps")
    >>> Example(steps=1)
    Traceback (most recent call last):
    ...
    ValueError: steps must lie between 2 and 10 steps, got 1
    """

    def __post_init__(self) -> None:
        check(type(self), vars(self))


@cache
def parameters(kind: type) -> dict[str, Parameter]:
    """The declared parameters of an options class, completed from their types."""
    hints, found = get_type_hints(kind), {}
    for one in fields(kind):
        if (declared := one.metadata.get(Parameter)) is not None:
            hint = _without_none(hints[one.name])
            choices = get_args(hint) if get_origin(hint) is Literal else ()
            found[one.name] = replace(declared, choices=choices, number=hint if hint in (int, float) else None)
    return found


def check(kind: type, values: Mapping[str, Any], none: str = "None") -> None:
    """Raises ValueError for the first invalid value; see Parameter.check."""
    for name, declared in parameters(kind).items():
        if name in values:
            declared.check(name, values[name], none)


Kind = TypeVar("Kind")


def parse_settings(base: Kind, settings: Mapping[str, str], method: str, extra: tuple[str, ...] = ()) -> Kind:
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
    known = [one.name for one in fields(base) if one.init]  # type: ignore[arg-type]
    changes: dict[str, Any] = {}
    for name, text in settings.items():
        if name not in known:
            near = get_close_matches(name.lower(), [*known, *extra], n=1)
            hint = f", did you mean {near[0]!r}?" if near else ";"
            raise ValueError(f"{method} has no setting {name!r}{hint} choose from {', '.join([*extra, *known])}")
        changes[name] = _parse(kinds[name], text.strip(), name, method)
    try:
        return replace(base, **changes)  # type: ignore[type-var]
    except ValueError as wrong:
        raise ValueError(f"{method}: {wrong}") from wrong


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        return next(part for part in get_args(hint) if part is not type(None))
    return hint


def _parse(hint: Any, text: str, name: str, method: str) -> Any:
    kind = _without_none(hint)
    if kind is not hint and text.lower() in ("none", ""):
        return None
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
