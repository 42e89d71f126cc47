"""Atomic output: a hidden temporary file is renamed when complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ..errors import VideoError
from ..files import hidden_prefix
from .leftovers import SUFFIX


def hidden_file(path: Path | None, overwrite: bool) -> Path:
    """A new empty file beside `path`, or a temporary file for None. Raises VideoError if `path` is taken or its folder is missing."""
    if path is None:
        handle, name = tempfile.mkstemp(prefix="fvr-", suffix=SUFFIX)
    else:
        if os.path.lexists(path) and not overwrite:
            raise VideoError(f"{path} already exists; choose another name or allow overwriting")
        if path.is_dir():
            raise VideoError(f"{path} is a folder; name a file")
        if not path.parent.is_dir():
            raise VideoError(f"{path.parent} is not a folder; make it first")
        with writable(path.parent):
            handle, name = tempfile.mkstemp(prefix=hidden_prefix(path.stem), suffix=SUFFIX, dir=path.parent.absolute())
    os.close(handle)
    return Path(name)


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Raises VideoError naming the folder, not the hidden file, if it is not writable."""
    try:
        yield
    except OSError as error:
        raise VideoError(f"nothing can be written into {folder} ({error.strerror or error}); choose another place, or make room") from error


def publish(part: Path, target: Path, overwrite: bool, otherwise: Callable[[Path], Path] | None = None) -> Path:
    """Moves a finished file to `target`, or the next free name from `otherwise`; returns the path.

    Raises:
        FileExistsError: if the name is taken and `otherwise` is None.
    """
    allow(part, 0o666)
    while not overwrite:
        try:
            take_name(part, target)
            return target
        except FileExistsError:
            if otherwise is None:
                raise
            target = otherwise(target)
    part.replace(target)
    return target


def pour(part: Path, target: IO[bytes]) -> None:
    """Moves a finished file into an open one."""
    with part.open("rb") as finished:
        shutil.copyfileobj(finished, target)
    part.unlink()


def take_name(part: Path, target: Path) -> None:
    """Moves a finished file to a free name, else raises FileExistsError; leaves nothing under that name if interrupted."""
    made = False
    try:
        try:
            target.hardlink_to(part)  # all at once, unlike a look and a move
        except FileExistsError:
            raise
        except (OSError, NotImplementedError):  # a disk without second names: an empty file keeps the name meanwhile
            os.close(os.open(target, os.O_CREAT | os.O_EXCL))
            made = True
            part.replace(target)
            return
        part.unlink()
    except BaseException:
        if part.exists() and target.exists() and (made or target.samefile(part)):
            target.unlink()
        raise


def allow(path: Path, mode: int) -> None:
    """Sets the permissions of a new file (`mode` without the umask), if the disk supports them."""
    umask = os.umask(0)
    os.umask(umask)
    with suppress(OSError):
        path.chmod(mode & ~umask)
