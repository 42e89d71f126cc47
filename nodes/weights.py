"""Where the catalogue meets the host's model folders."""

from __future__ import annotations

from pathlib import Path

from ..models.catalogue import find, named
from ..runtime import host


def find_weights(name: str) -> Path | None:
    """The file of a catalogued checkpoint if it is in one of the host's model folders."""
    return find(named(name), host.model_folders())
