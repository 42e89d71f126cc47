"""Files that are whole or absent, whatever happens to who writes them."""

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
"""Error numbers of a disk that is full, or of which no more may be used."""
PART = ".part"
"""Ending of a file until it is whole."""
TEMPORARY = re.compile(rf".+\.[0-9a-f]{{8}}{re.escape(PART)}")
"""Names by `temporary_name`."""
ABANDONED_SECONDS = 600.0
"""After which a temporary file that nobody writes to is nobody's, in a folder that several processes may write to."""


def temporary_name(path: Path) -> Path:
    """A name beside `path` that nobody else uses."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}{PART}")


def remove_abandoned(folder: Path, seconds: float = ABANDONED_SECONDS) -> None:
    """Removes the temporary files in a folder, if it is there, that were last written to so many seconds ago: what killed processes left."""
    with suppress(OSError):
        for path in [path for path in folder.iterdir() if TEMPORARY.fullmatch(path.name)]:
            with suppress(OSError):
                if time.time() - path.stat().st_mtime >= seconds:
                    path.unlink()


def publish(part: Path, path: Path) -> None:
    """Renames a whole file to `path`, once its bytes are on the disk."""
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
    """A temporary name to write to, whose file is renamed to `path` on leaving, or removed after any exception."""
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
    """As `atomic_file`, for work that goes on from what is done when it is started again.

    Raises OSError in one sentence for what PyTorch, safetensors and the system each say in words of their own of a full disk.
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
