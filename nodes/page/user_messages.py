"""Errors and texts of our nodes as ComfyUI's page shows them."""

from __future__ import annotations

import functools
from typing import Any

from ... import host
from ...headless.io import io
from ..sockets import check_inputs


def with_user_messages(node: type[io.ComfyNode]) -> None:
    """Makes a node check its inputs (`sockets.check_inputs`), raise built-in exceptions, and omit the server's folders from all texts.

    The page prints an exception's full class name, which for ours would start with this pack's path.
    """
    run = node.execute.__func__  # type: ignore[attr-defined]
    if hasattr(run, "__wrapped__"):
        return

    @functools.wraps(run)
    def execute(cls: type[io.ComfyNode], *given: Any, **named: Any) -> Any:
        try:
            check_inputs(node, named)
            done = run(cls, *given, **named)
        except Exception as error:
            plain = host.user_error(error)
            if plain is error:
                raise
            raise plain from error
        shown = getattr(done, "ui", None)
        if isinstance(shown, dict) and "text" in shown:
            shown["text"] = tuple(host.user_message(str(text)) for text in shown["text"])
        return done

    node.execute = classmethod(execute)  # type: ignore[method-assign, assignment]
