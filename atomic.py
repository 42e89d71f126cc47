"""Atomic file writing: files are complete or absent."""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

if TYPE_CHECKING:
    from torch import Tensor

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk or an exceeded quota."""
PART = ".part"
"""Suffix of unfinished files."""
TEMPORARY = re.compile(rf".+\.[0-9a-f]{{8}}{re.escape(PART)}")
"""Names by `temporary_name`."""
ABANDONED_SECONDS = 600.0
"""Age without writes after which a temporary file counts as abandoned, in folders shared by processes."""


def temporary_name(path: Path) -> Path:
    """A unique temporary name beside `path`."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}{PART}")


def remove_abandoned(folder: Path, seconds: float = ABANDONED_SECONDS) -> None:
    """Removes temporary files of killed processes: those in an existing folder not written to for this many seconds."""
    with suppress(OSError):
        for path in [path for path in folder.iterdir() if TEMPORARY.fullmatch(path.name)]:
            with suppress(OSError):
                if time.time() - path.stat().st_mtime >= seconds:
                    path.unlink()


def publish(part: Path, path: Path) -> None:
    """Flushes a finished file to disk and renames it to `path`."""
    fsync(part, os.O_RDWR)
    part.replace(path)
    with suppress(OSError):  # Windows opens no folders
        fsync(path.parent, os.O_RDONLY)


def fsync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path, which is renamed to `path` on exit, or removed after an exception."""
    part = temporary_name(path)
    try:
        yield part
        publish(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Writes an `atomic_file`."""
    with atomic_file(path) as part:
        part.write_bytes(data)


@contextmanager
def resumable_file(path: Path) -> Iterator[Path]:
    """As `atomic_file`, for work that resumes when it is restarted.

    Raises OSError in one sentence for a full disk, however PyTorch, safetensors or the system reports it.
    """
    try:
        with atomic_file(path) as part:
            yield part
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
        raise OSError(
            f"{path} could not be written ({reason}); the disk may be full: make room and start it again, which goes on from what is done"
        ) from error


def write_tensors(tensors: Mapping[str, Tensor], path: Path, notes: Mapping[str, str] | None = None) -> None:
    """Writes a .safetensors file with `notes` as its metadata, a `resumable_file`."""
    from safetensors.torch import save_file

    with resumable_file(path) as part:
        save_file(dict(tensors), part, None if notes is None else dict(notes))
