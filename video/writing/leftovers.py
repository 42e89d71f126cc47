"""Unfinished output of killed jobs, distinguished from that of running ones by a lock that ends with its process."""

from __future__ import annotations

import os
import shutil
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: without such locks nothing is swept
    fcntl = None  # type: ignore[assignment]

SUFFIX = ".fvr.part"
"""Suffix of an unfinished file or folder of images."""
KEPT = ".fvr.kept"
"""Suffix of finished output that could not be given its name."""
UNLOCKED_SECONDS = 10.0
"""Age below which a new one may not be locked yet."""


def claim(part: Path, owner: object) -> Callable[[], object]:
    """Locks a hidden file or folder until `owner` is deleted, this process ends, or the returned function is called."""
    if fcntl is None:
        return lambda: None
    handle = os.open(part, os.O_RDONLY)
    with suppress(OSError):  # a disk without locks: then `sweep` gets none either
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return weakref.finalize(owner, os.close, handle)


def keep(part: Path) -> Path:
    """Renames finished output so that `sweep` leaves it; returns the new path."""
    kept = part.with_name(part.name.removesuffix(SUFFIX) + KEPT)
    try:
        return part.replace(kept)
    except OSError:
        return part


def sweep(folder: Path) -> list[str]:
    """Removes leftovers of dead jobs from a folder; returns one sentence about them, or none."""
    names: list[str] = []
    if fcntl is None:
        return names
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in [entry for entry in entries if entry.name.endswith(SUFFIX)]:
            with suppress(OSError):
                if _remove_abandoned(Path(entry.path)):
                    names.append(entry.name)
    if not names:
        return names
    what = f"what a killed job had left unfinished ({min(names)})" if len(names) == 1 else f"what {len(names)} killed jobs had left unfinished"
    return [f"{what} was removed from {folder}"]


def _remove_abandoned(part: Path) -> bool:
    """Removes a leftover if its process is dead."""
    handle = os.open(part, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    try:
        if time.time() - os.fstat(handle).st_mtime < UNLOCKED_SECONDS:
            return False
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(part) if part.is_dir() else part.unlink()
        return True
    finally:
        os.close(handle)
