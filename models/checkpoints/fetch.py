"""Downloads of published checkpoints, on request only: resumable, verified, and renamed to the final name when complete."""

from __future__ import annotations

import hashlib
import http
import http.client
import os
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from ...atomic import DISK_FULL
from .catalogue import Checkpoint
from .state_dict import read_state

CHUNK = 1 << 18
"""Bytes between two checks for an interrupt."""
WAIT = 30.0
"""Seconds without a byte after which a connection counts as broken."""
PATIENCE = 3
"""Consecutive connections that may break without transferring a byte."""

OnBytes = Callable[[int, int | None], None]
"""(bytes received, bytes of the whole file or None if the server does not say)."""


def fetch(
    checkpoint: Checkpoint,
    folder: Path | str,
    on_bytes: OnBytes = lambda done, total: None,
    check_interrupt: Callable[[], None] = lambda: None,
) -> Path:
    """Downloads a checkpoint into `folder` and returns the file's path.

    The download is written to a file with ".part" added to the name, and resumed from it after an interruption. Before it is renamed, its size, its
    SHA-256 as far as that is known (`catalogue.verification`), and whether it opens as a checkpoint are checked. A file that exists already is
    checked too, but never changed. If another process is fetching the same file, this one waits for it.

    Raises:
        ValueError: one sentence: there is no direct link, or what arrived is not the published file.
        OSError: one sentence: no connection, no such address, no room on the disk.
    """
    if not checkpoint.direct:
        raise ValueError(f"{checkpoint.file} has no direct link; open {checkpoint.url}, download it there and put it into {folder}")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{folder} cannot be made ({error.strerror or error}), and {checkpoint.file} goes there; choose another folder") from error
    target = folder / checkpoint.file
    part = target.with_name(target.name + ".part")

    def wait() -> None:
        check_interrupt()
        on_bytes(_size(part), checkpoint.size)
        time.sleep(0.2)

    with _exclusive(part, target, wait) as held:
        if held is None:
            fault = _fault(checkpoint, target, check_interrupt)
            if fault:
                raise ValueError(f"{target} is there, but {fault}; move it away and fetch it again")
            return target
        _download(checkpoint, part, on_bytes, check_interrupt)
        fault = _fault(checkpoint, part, check_interrupt)
        if fault:
            os.truncate(part, 0)
            raise ValueError(f"{checkpoint.url} did not give {checkpoint.file}: {fault}")
        if os.name == "nt":  # which renames nothing that is open
            held.close()
        part.replace(target)
    return target


@contextmanager
def _exclusive(part: Path, target: Path, wait: Callable[[], object]) -> Iterator[IO[bytes] | None]:
    """Locks `part` against other processes, and waits while another one holds it; yields None as soon as `target` exists.

    The operating system releases the lock when the process ends, however it ends. An empty part is removed afterwards.
    """
    while True:
        if target.exists():
            yield None
            return
        with part.open("ab") as held:
            if not _locked(held):
                wait()
                continue
            try:
                if not os.path.samestat(os.fstat(held.fileno()), part.stat()):
                    continue  # another process has just given it its name
            except FileNotFoundError:
                continue
            try:
                yield held
                return
            finally:
                if part.is_file() and not _size(part):
                    with suppress(OSError):  # Windows removes nothing that is open
                        part.unlink()


def _locked(file: IO[bytes]) -> bool:
    """Takes the lock on an open file; False if another process has it."""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        file.seek(1 << 40)  # a place that no file reaches: what Windows locks, nobody else may write
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a disk without locks
        return True
    return True


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https, or within the same server, only."""

    def redirect_request(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> urllib.request.Request | None:
        old, new = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        if new.scheme != "https" and (new.scheme, new.netloc) != (old.scheme, old.netloc):
            raise OSError(
                f"{req.full_url} leads to {newurl[:200]}, where anybody on the way could change the file; open it in a browser and judge for yourself"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_opener = urllib.request.build_opener(_Redirects())


def _download(checkpoint: Checkpoint, part: Path, on_bytes: OnBytes, check_interrupt: Callable[[], None]) -> None:
    """Downloads `part` to its full length, over as many connections as it takes."""
    broken = 0
    while True:
        before = _size(part)
        try:
            if _transfer(checkpoint, part, on_bytes, check_interrupt):
                return
            reason = "it ended early"
        except urllib.error.HTTPError as error:
            raise OSError(_refusal(checkpoint, error)) from error
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = str(getattr(error, "reason", "") or error or type(error).__name__)
        except OSError as error:
            if error.errno in DISK_FULL:
                raise OSError(f"the disk is full; {_mib(_size(part))} of {part} are kept: make room and fetch it again") from error
            raise
        broken = 0 if _size(part) > before else broken + 1
        if broken == PATIENCE or (broken and not _size(part)):
            kept = f"; {_mib(_size(part))} are kept, fetch it again to go on" if _size(part) else ""
            raise OSError(f"{checkpoint.url} cannot be reached ({reason}){kept or '; check the network and fetch it again'}")


def _transfer(checkpoint: Checkpoint, part: Path, on_bytes: OnBytes, check_interrupt: Callable[[], None]) -> bool:
    """One connection: appends the missing bytes to `part`, and returns whether it is complete."""
    start = _size(part)
    headers = {"User-Agent": "face-video-restoration", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = _opener.open(urllib.request.Request(checkpoint.url, headers=headers), timeout=WAIT)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise
        if error.headers.get("Content-Range", "").rpartition("/")[2] == str(start):
            return True
        os.truncate(part, 0)  # longer than the file, so not a beginning of it
        return _transfer(checkpoint, part, on_bytes, check_interrupt)
    with response:
        if "text/html" in response.headers.get("Content-Type", ""):
            raise ValueError(f"{checkpoint.url} gives a page instead of {checkpoint.file}; open it in a browser and put the file into {part.parent}")
        begins = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if start and not (response.status == http.HTTPStatus.PARTIAL_CONTENT and begins):
            start = 0  # the server sends the whole file
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        if None not in (total, checkpoint.size) and total != checkpoint.size:
            raise ValueError(f"{checkpoint.url} offers {total} bytes where {checkpoint.file} has {checkpoint.size}; it is another file now")
        _check_room(part, total or checkpoint.size, start)
        with part.open("ab" if start else "wb") as file:
            done = _copy(response, file, start, lambda done: on_bytes(done, total or checkpoint.size), check_interrupt)
    return done == total if total is not None else checkpoint.size in (None, done)


def _copy(response: http.client.HTTPResponse, file: BinaryIO, done: int, on_bytes: Callable[[int], None], check_interrupt: Callable[[], None]) -> int:
    """Writes what a connection still gives to `file`; returns how many bytes are there then."""
    on_bytes(done)
    while True:
        check_interrupt()
        block = response.read(CHUNK)
        if not block:
            return done
        file.write(block)
        done += len(block)
        on_bytes(done)


def _check_room(part: Path, total: int | None, start: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - start > free:
        raise OSError(f"there is no room for {_mib(total - start)} more in {part.parent}, where {_mib(free)} are free; make room and fetch it again")


def _refusal(checkpoint: Checkpoint, error: urllib.error.HTTPError) -> str:
    if error.code in (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.GONE):
        return f"{checkpoint.url} is gone (HTTP {error.code}); look for {checkpoint.file} at its authors' and put it into the model folder"
    return f"the server refused {checkpoint.url} (HTTP {error.code} {error.reason}); try again later or open it in a browser"


def _fault(checkpoint: Checkpoint, path: Path, check_interrupt: Callable[[], None]) -> str | None:
    """Why `path` is not the published file; None if it is."""
    if checkpoint.size is not None and _size(path) != checkpoint.size:
        return f"it has {_size(path)} bytes where {checkpoint.size} were published"
    if checkpoint.sha256:
        digest = sha256_of(path, check_interrupt)
        if not digest.startswith(checkpoint.sha256):
            return f"its SHA-256 begins {digest[:8]} where {checkpoint.sha256[:8]} was published"
    try:
        read_state(path, checkpoint.file)
    except ValueError as error:
        return str(error)
    return None


def sha256_of(path: Path, check_interrupt: Callable[[], None] = lambda: None) -> str:
    """The SHA-256 of a file, 64 lower-case hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            check_interrupt()
            digest.update(block)
    return digest.hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _mib(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"
