"""Leases: files that record which worker holds which task, with a heartbeat and, if the disk supports it, a lock; both end with the process."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..models.device import CheckInterrupt

try:
    import fcntl
except ImportError:  # Windows: the heartbeat alone tells
    fcntl = None  # type: ignore[assignment]

HEARTBEAT_INTERVAL = 5.0
"""Seconds between two heartbeats."""
HEARTBEAT_TIMEOUT = 60.0
"""Seconds without a heartbeat after which a worker on another machine is considered dead; the machines' clocks must agree within this time."""


class Lease:
    """The right to work on one task until `release` or the end of this process; see `take`. `abandoned`: the note of a holder that died."""

    def __init__(self, path: Path, handle: int, abandoned: dict[str, Any]) -> None:
        self.path, self.handle, self.abandoned = path, handle, abandoned
        self.over = threading.Event()
        threading.Thread(target=self.heartbeat, name="fvr lease", daemon=True).start()

    def heartbeat(self) -> None:
        while not self.over.wait(HEARTBEAT_INTERVAL):
            with suppress(OSError):
                os.utime(self.path)

    def release(self) -> None:
        """Releases the task: the next worker that asks may take it."""
        self.over.set()
        with suppress(OSError):
            if fcntl is None:  # Windows removes no file that is open; elsewhere the lock must not end while the file can be found
                os.close(self.handle)
            self.path.unlink(missing_ok=True)
        with suppress(OSError):
            os.close(self.handle)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def take(path: Path, **note: Any) -> Lease | None:
    """Takes the lease at `path`; None while a living worker holds it.

    A worker on this machine is dead once its lock is gone, one on another machine once its last heartbeat is `HEARTBEAT_TIMEOUT` seconds old.

    Args:
        note: further entries about the holder, besides its machine and process.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        locked = lock(handle)
        status = os.fstat(handle)
        if locked is False or not same_file(path, status):
            os.close(handle)
            return None
        before = read(handle)
        elsewhere = before.get("machine", platform.node()) != platform.node()
        if before and (elsewhere or locked is None) and time.time() - status.st_mtime < HEARTBEAT_TIMEOUT:
            os.close(handle)
            return None
        text = json.dumps({"machine": platform.node(), "process": os.getpid(), "since": time.time(), **note}).encode()
        os.ftruncate(handle, 0)
        os.pwrite(handle, text, 0) if hasattr(os, "pwrite") else os.write(handle, text)
        os.utime(path)
    except BaseException:
        os.close(handle)
        raise
    return Lease(path, handle, before)


def lock(handle: int, *, shared: bool = False) -> bool | None:
    """Tries to take an exclusive or `shared` lock. True if taken, False if another process has it, None if the disk has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return None


def same_file(path: Path, status: os.stat_result) -> bool:
    """Whether a path still refers to the opened file."""
    try:
        return os.path.samestat(path.stat(), status)
    except OSError:
        return False


def read(handle: int) -> dict[str, Any]:
    """The last holder's note; empty if there was none."""
    os.lseek(handle, 0, os.SEEK_SET)
    try:
        note = json.loads(os.read(handle, 1 << 16))
        return note if isinstance(note, dict) else {}
    except ValueError:
        return {}


def holder(path: Path) -> dict[str, Any] | None:
    """The note of the lease's living holder, or None; does not take the lease."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        status, note = os.fstat(handle), read(handle)
        free = lock(handle, shared=True) if note.get("machine") == platform.node() else None
        if free is not None:
            return None if free else note
        return note if note and time.time() - status.st_mtime < HEARTBEAT_TIMEOUT else None
    finally:
        os.close(handle)


@contextmanager
def exclusive(lease: Path, result: Path | None, check_interrupt: CheckInterrupt) -> Iterator[None]:
    """Waits for `lease` and holds it; enters without it if `result` exists."""
    held = None
    while not (result and result.exists()) and (held := take(lease)) is None:
        check_interrupt()
        time.sleep(0.2)
    try:
        yield
    finally:
        if held is not None:
            held.release()
