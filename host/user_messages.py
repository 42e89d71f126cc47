"""Error messages for ComfyUI's page: without the paths of the server's folders and without the names of our modules."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

PACKAGE = __name__.rpartition(".host.")[0]
"""This package's import name; ComfyUI derives it from the folder's path."""


def without_folders(text: str, folders: Mapping[Path, str]) -> str:
    """`text` with the paths below these folders as their names have it: /srv/output/video/a.mp4 as output/video/a.mp4.

    A folder that stands for itself is called "the output folder".
    """
    for folder, name in sorted(folders.items(), key=lambda item: -len(str(item[0]))):
        path = re.escape(str(folder).rstrip("/\\"))
        if path:
            itself = name if "/" in name else f"the {name} folder"
            text = re.sub(rf"(?<![\w.\-/\\]){path}[/\\](?=[^\s/\\])", f"{name}/", text)
            text = re.sub(rf"(?<![\w.\-/\\]){path}(?![\w\-/\\]|\.\w)", itself, text)
    return text


def user_facing(error: Exception, folders: Mapping[Path, str]) -> Exception:
    """`error` itself if it reads well, else its built-in base class with the same message without `folders`."""
    text = str(error)
    shown = without_folders(text, folders)
    if shown == text and not type(error).__module__.startswith(PACKAGE + "."):
        return error
    kind: type[Exception] = next(base for base in type(error).__mro__ if base.__module__ == "builtins" and issubclass(base, Exception))
    if issubclass(kind, (KeyError, UnicodeError)):  # the one quotes its sentence, the other takes five arguments
        kind = LookupError if issubclass(kind, KeyError) else ValueError
    return kind(shown)


def named_and_resolved(folder: str | os.PathLike[str]) -> set[Path]:
    """A folder as named, and with links resolved."""
    path = Path(folder)
    try:
        return {path, path.resolve()}
    except OSError:
        return {path}
