"""Degradations by name and from text."""

from __future__ import annotations

import ast
import difflib
import warnings
from collections.abc import Mapping
from typing import TypeVar

from .base import Degradation
from .registry import KINDS, Value

Entry = TypeVar("Entry")


def degradation(kind: str, **params: Value) -> Degradation:
    """The degradation of a kind in `KINDS`; parameters left out take their defaults.

    Raises:
        ValueError: for an unknown kind or parameter, or a value that does not fit; the message names what was expected.
    """
    found = _lookup(kind, KINDS, "degradation")
    known = {parameter.name: parameter for parameter in found.parameters}
    values: dict[str, object] = {name: parameter.default for name, parameter in known.items()}
    for name, value in params.items():
        values[name] = _lookup(name, known, f"parameter of {kind}").read(kind, value)
    return found.make(**values)


def parse(text: str) -> Degradation:
    """The degradation that a text such as "gaussian_blur(sigma=2, factor=4) + noise(sigma=0.03)" describes, the leftmost applied first.

    Raises:
        ValueError: in one sentence, for a text that does not read like this, or as `degradation` does.

    >>> import torch
    >>> operator = parse("gaussian_blur(sigma=2, factor=4) + noise(sigma=0.03)")
    >>> operator.forward(torch.zeros(2, 3, 64, 64)).shape, operator.noise_level
    (torch.Size([2, 3, 16, 16]), 0.03)
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise _unreadable(text) from error
    return _parsed(tree, text)


def _parsed(node: ast.expr, text: str) -> Degradation:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        first = _parsed(node.left, text)
        return _parsed(node.right, text) @ first
    if isinstance(node, ast.Name):
        return degradation(node.id)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args and all(keyword.arg for keyword in node.keywords):
        return degradation(node.func.id, **{str(keyword.arg): _literal(keyword.value, text) for keyword in node.keywords})
    raise _unreadable(text)


def _literal(node: ast.expr, text: str) -> Value:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _literal(node.operand, text)
        if isinstance(value, int | float):
            return -value
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str):
        return node.value
    raise _unreadable(text)


def _unreadable(text: str) -> ValueError:
    return ValueError(f"a degradation reads like gaussian_blur(sigma=2, factor=4) + noise(sigma=0.03), got {text!r}; kinds are {', '.join(KINDS)}")


def _lookup(name: str, table: Mapping[str, Entry], what: str) -> Entry:
    if name in table:
        return table[name]
    close = difflib.get_close_matches(name, table, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(table)}" if table else "it takes none"
    raise ValueError(f"there is no {what} called {name!r}; {hint}")
