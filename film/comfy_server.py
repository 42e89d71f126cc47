"""A ComfyUI server over its own HTTP API: files there and back, and one node at a time."""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import secrets
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from ..models.device import CheckInterrupt
from .bundle import NODE

ANSWER = 60.0
"""Seconds that one answer may take."""
WRITTEN = 600.0
"""Seconds until a server has written an upload, which it holds in memory first."""
PATIENCE = 60.0
"""Seconds without an answer, while a node runs, after which a server is taken for dead."""
LOOK = 0.5
"""Seconds between two looks at a node that runs."""
PIECE = 1 << 20
NETWORK = (ConnectionError, TimeoutError, socket.gaierror, socket.herror, ssl.SSLError)
NO_WAY = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)


class Unreachable(RuntimeError):
    """A server does not answer."""


class Refused(RuntimeError):
    """A server answers, and not with what it was asked for."""


class TooLarge(Refused):
    """A server takes no upload of this size."""


class ComfyServer:
    """One server.

    Attributes:
        address: such as http://host:8188.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        try:
            self.host, self.port = parts.hostname, parts.port
        except ValueError:  # a port that is no number
            self.host = None
        if parts.scheme not in ("http", "https") or not self.host:
            raise ValueError(f"a ComfyUI server has an address such as http://host:8188, got {address!r}")
        self.secure, self.root = parts.scheme == "https", parts.path.rstrip("/")
        self.address = f"{parts.scheme}://{parts.netloc}{self.root}"

    @contextmanager
    def exchange(self, method: str, route: str, body: bytes | None = None, **headers: str) -> Iterator[http.client.HTTPResponse]:
        """The answer to a request, to be read within.

        Raises:
            Unreachable: also if it ends in the middle.
        """
        with self.connected(ANSWER) as connection:
            connection.request(method, self.root + route, body, headers)
            yield connection.getresponse()

    @contextmanager
    def connected(self, seconds: float) -> Iterator[http.client.HTTPConnection]:
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        try:
            with closing(kind(str(self.host), self.port, timeout=seconds)) as connection:
                yield connection
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and not isinstance(error, NETWORK) and error.errno not in NO_WAY:
                raise  # of a file here
            raise Unreachable(f"{self.address} does not answer ({getattr(error, 'strerror', None) or error or type(error).__name__})") from error

    def ask(self, route: str, content: Any = None) -> dict[str, Any]:
        """A JSON object; `content` is posted."""
        body = None if content is None else json.dumps(content).encode()
        with self.exchange("GET" if body is None else "POST", route, body, **{"Content-Type": "application/json"}) as answer:
            text = answer.read()
        try:
            found = json.loads(text) if text else {}
        except ValueError:
            found = None
        if answer.status != 200:
            raise Refused(f"{self.address} says {complaint(found) or f'{answer.status} {answer.reason} to {route}'}")
        if not isinstance(found, dict):
            raise Refused(f"{self.address} answers {route} with what no ComfyUI says; is it one?")
        return found

    def length(self, view: str) -> int | None:
        """Bytes of a file, by its route; None if it is not there."""
        with self.exchange("HEAD", view) as answer:
            return int(answer.headers.get("Content-Length", -1)) if answer.status == 200 else None

    def piece(self, view: str, first: int, size: int) -> bytes:
        """Some bytes of a file."""
        with self.exchange("GET", view, Range=f"bytes={first}-{first + size - 1}") as answer:
            return answer.read(size) if answer.status == 206 else b""

    def download(self, view: str, path: Path, check_interrupt: CheckInterrupt) -> tuple[int, str]:
        """Writes a file; its bytes and their SHA-256."""
        digest, size = hashlib.sha256(), 0
        with self.exchange("GET", view) as answer, path.open("wb") as file:
            if answer.status != 200:
                raise Refused(f"{self.address} does not give {view} away ({answer.status} {answer.reason})")
            while data := answer.read(PIECE):
                check_interrupt()
                file.write(data)
                digest.update(data)
                size += len(data)
        return size, digest.hexdigest()

    def upload(self, name: str, folder: str, kind: str, size: int, pieces: Iterable[bytes], check_interrupt: CheckInterrupt) -> None:
        """Puts a file of `size` bytes below its "input" or "temp" folder, in place of another of that name.

        Raises:
            TooLarge: saying what to do.
        """
        border = secrets.token_hex(16)
        fields = {"type": kind, "subfolder": folder, "overwrite": "true"}
        head = "".join(f'--{border}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n' for key, value in fields.items())
        head += f'--{border}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        tail = f"\r\n--{border}--\r\n"
        total = len(head) + size + len(tail)
        limit = self.limit()
        if limit is not None and total > limit:
            raise self.too_large(size, limit)
        with self.connected(WRITTEN) as connection:
            connection.putrequest("POST", f"{self.root}/upload/image")
            connection.putheader("Content-Type", f"multipart/form-data; boundary={border}")
            connection.putheader("Content-Length", str(total))
            connection.endheaders()
            with suppress(ConnectionError):  # who has had enough says why, and hangs up
                connection.send(head.encode())
                for data in pieces:
                    check_interrupt()
                    connection.send(data)
                connection.send(tail.encode())
            answer = connection.getresponse()
            answer.read()
        if answer.status == 413:
            raise self.too_large(size, limit)
        if answer.status != 200:
            raise Refused(f"{self.address} does not take {name} ({answer.status} {answer.reason})")

    def limit(self) -> int | None:
        """Bytes of the largest upload, if it says so."""
        try:
            found = self.ask("/features").get("max_upload_size")
        except Refused:
            return None
        return int(found) if isinstance(found, (int, float)) else None

    def too_large(self, size: int, limit: int | None) -> TooLarge:
        most = "" if limit is None else f", only of {limit / 2**20:.0f} MB"
        return TooLarge(
            f"{self.address} takes no upload of {size / 2**20:.1f} MB{most}: start its ComfyUI with --max-upload-size {size // 2**20 + 2}, "
            "or copy the film into its input folder"
        )

    def run(self, kind: str, inputs: dict[str, Any], check_interrupt: CheckInterrupt) -> dict[str, Any]:
        """Runs one node; what it shows.

        Raises:
            Refused: with the sentence that the node, or ComfyUI, gives.
            Unreachable: if the server is silent for `PATIENCE` seconds.
        """
        number = self.ask("/prompt", {"prompt": {"1": {"class_type": kind, "inputs": inputs}}}).get("prompt_id")
        if not isinstance(number, str):
            raise Refused(f"{self.address} took a segment and gave no number for it; is it a ComfyUI?")
        heard = time.monotonic()
        try:
            while True:
                check_interrupt()
                try:
                    entry = self.outcome(number)
                    heard = time.monotonic()
                except Unreachable:
                    if time.monotonic() - heard > PATIENCE:
                        raise
                    entry = None
                if entry is not None:
                    return self.shown(entry)
                time.sleep(LOOK)
        except (Refused, Unreachable):
            raise
        except BaseException:
            self.cancel(number)
            raise

    def outcome(self, number: str) -> Any:
        """The history of a prompt; None while it waits or runs."""
        route = f"/history/{quote(number)}"
        entry = self.ask(route).get(number)
        if entry is None and not self.queued(number):
            entry = self.ask(route).get(number)  # it ended in between
            if entry is None:
                raise Refused(f"{self.address} has forgotten the segment; it was restarted, or its queue was cleared")
        return entry

    def queued(self, number: str) -> bool:
        queue = self.ask("/queue")
        items = [item for name in ("queue_running", "queue_pending") for item in queue.get(name) or ()]
        return any(number in item for item in items)

    def shown(self, entry: Any) -> dict[str, Any]:
        """Of the only node of a prompt.

        Raises:
            Refused: if it failed, or the history makes no sense.
        """
        try:
            messages = entry["status"].get("messages") or ()
            for what, details in messages:
                if what == "execution_error":
                    raise Refused(f"{self.address}: {' '.join(str(details.get('exception_message')).split())}")
                if what == "execution_interrupted":
                    raise Refused(f"{self.address}: the segment was interrupted there")
            return dict(entry["outputs"]["1"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Refused(f"{self.address} answers with what is no result of {NODE}") from error

    def cancel(self, number: str) -> None:
        """Takes a prompt out of the queue, or stops it."""
        with suppress(Refused, Unreachable):
            self.ask("/queue", {"delete": [number]})
            self.ask("/interrupt", {"prompt_id": number})


def view_of(name: str, folder: str, kind: str) -> str:
    """The route of a file."""
    return "/view?" + urlencode({"filename": name, "subfolder": folder, "type": kind})


def complaint(found: Any) -> str | None:
    """The sentence of a prompt that was not accepted."""
    try:
        errors = [error for node in found["node_errors"].values() for error in node["errors"]]
        first = errors[0] if errors else found["error"]
        return first.get("details") or first["message"]
    except (KeyError, TypeError, IndexError, AttributeError):
        return None
