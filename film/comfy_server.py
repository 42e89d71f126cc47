"""Client of a ComfyUI server's HTTP API: uploads and downloads files, and runs one node at a time."""

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

ANSWER_TIMEOUT = 60.0
"""Seconds that one answer may take."""
UPLOAD_TIMEOUT = 600.0
"""Seconds that an upload may take; the server holds it in memory before it writes it."""
SILENCE_TIMEOUT = 60.0
"""Seconds without an answer, while a node runs, after which a server is considered dead."""
POLL_INTERVAL = 0.5
"""Seconds between two looks at a node that runs."""
CHUNK_BYTES = 1 << 20
NETWORK_ERRORS = (ConnectionError, TimeoutError, socket.gaierror, socket.herror, ssl.SSLError)
UNREACHABLE_ERRNOS = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)


class Unreachable(RuntimeError):
    """A server does not answer."""


class Refused(RuntimeError):
    """A server answers with an error, or is not a ComfyUI server."""


class TooLarge(Refused):
    """A server refuses an upload of this size."""


class ComfyServer:
    """One server, given by an address such as http://host:8188."""

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
    def request(self, method: str, route: str, body: bytes | None = None, **headers: str) -> Iterator[http.client.HTTPResponse]:
        """The response to a request, readable inside the context. Raises Unreachable, also for a truncated response."""
        with self.connection(ANSWER_TIMEOUT) as connection:
            connection.request(method, self.root + route, body, headers)
            yield connection.getresponse()

    @contextmanager
    def connection(self, seconds: float) -> Iterator[http.client.HTTPConnection]:
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        try:
            with closing(kind(str(self.host), self.port, timeout=seconds)) as connection:
                yield connection
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and not isinstance(error, NETWORK_ERRORS) and error.errno not in UNREACHABLE_ERRNOS:
                raise  # of a file here
            raise Unreachable(f"{self.address} does not answer ({getattr(error, 'strerror', None) or error or type(error).__name__})") from error

    def request_json(self, route: str, content: Any = None) -> dict[str, Any]:
        """The JSON object in the response; `content`, if given, is posted."""
        body = None if content is None else json.dumps(content).encode()
        with self.request("GET" if body is None else "POST", route, body, **{"Content-Type": "application/json"}) as answer:
            text = answer.read()
        try:
            found = json.loads(text) if text else {}
        except ValueError:
            found = None
        if answer.status != 200:
            raise Refused(f"{self.address} says {error_message(found) or f'{answer.status} {answer.reason} to {route}'}")
        if not isinstance(found, dict):
            raise Refused(f"{self.address} answers {route} with what no ComfyUI says; is it one?")
        return found

    def file_size(self, view: str) -> int | None:
        """Size of the file at a route in bytes; None if it does not exist."""
        with self.request("HEAD", view) as answer:
            return int(answer.headers.get("Content-Length", -1)) if answer.status == 200 else None

    def read_range(self, view: str, first: int, size: int) -> bytes:
        """Bytes [first, first + size) of a file; empty if the server does not support ranges."""
        with self.request("GET", view, Range=f"bytes={first}-{first + size - 1}") as answer:
            return answer.read(size) if answer.status == 206 else b""

    def download(self, view: str, path: Path, check_interrupt: CheckInterrupt) -> tuple[int, str]:
        """Downloads into a file; returns its size in bytes and its SHA-256."""
        digest, size = hashlib.sha256(), 0
        with self.request("GET", view) as answer, path.open("wb") as file:
            if answer.status != 200:
                raise Refused(f"{self.address} does not give {view} away ({answer.status} {answer.reason})")
            while data := answer.read(CHUNK_BYTES):
                check_interrupt()
                file.write(data)
                digest.update(data)
                size += len(data)
        return size, digest.hexdigest()

    def upload(self, name: str, folder: str, kind: str, size: int, pieces: Iterable[bytes], check_interrupt: CheckInterrupt) -> None:
        """Uploads a file of `size` bytes into the server's "input" or "temp" folder, replacing a namesake. Raises TooLarge."""
        border = secrets.token_hex(16)
        fields = {"type": kind, "subfolder": folder, "overwrite": "true"}
        head = "".join(f'--{border}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n' for key, value in fields.items())
        head += f'--{border}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        tail = f"\r\n--{border}--\r\n"
        total = len(head) + size + len(tail)
        limit = self.upload_limit()
        if limit is not None and total > limit:
            raise self.too_large(size, limit)
        with self.connection(UPLOAD_TIMEOUT) as connection:
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

    def upload_limit(self) -> int | None:
        """Largest upload the server accepts in bytes; None if it does not say."""
        try:
            found = self.request_json("/features").get("max_upload_size")
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
        """Runs one node and returns its UI outputs.

        Raises:
            Refused: with the error message of the node or of ComfyUI.
            Unreachable: if the server is silent for `SILENCE_TIMEOUT` seconds.
        """
        number = self.request_json("/prompt", {"prompt": {"1": {"class_type": kind, "inputs": inputs}}}).get("prompt_id")
        if not isinstance(number, str):
            raise Refused(f"{self.address} took a segment and gave no number for it; is it a ComfyUI?")
        heard = time.monotonic()
        try:
            while True:
                check_interrupt()
                try:
                    entry = self.history(number)
                    heard = time.monotonic()
                except Unreachable:
                    if time.monotonic() - heard > SILENCE_TIMEOUT:
                        raise
                    entry = None
                if entry is not None:
                    return self.outputs(entry)
                time.sleep(POLL_INTERVAL)
        except (Refused, Unreachable):
            raise
        except BaseException:
            self.cancel(number)
            raise

    def history(self, number: str) -> Any:
        """The history of a prompt; None while it waits or runs."""
        route = f"/history/{quote(number)}"
        entry = self.request_json(route).get(number)
        if entry is None and not self.is_queued(number):
            entry = self.request_json(route).get(number)  # it ended in between
            if entry is None:
                raise Refused(f"{self.address} has forgotten the segment; it was restarted, or its queue was cleared")
        return entry

    def is_queued(self, number: str) -> bool:
        queue = self.request_json("/queue")
        items = [item for name in ("queue_running", "queue_pending") for item in queue.get(name) or ()]
        return any(number in item for item in items)

    def outputs(self, entry: Any) -> dict[str, Any]:
        """UI outputs of a prompt's only node. Raises Refused if it failed or the history is malformed."""
        try:
            for what, details in entry["status"].get("messages") or ():
                if what == "execution_error":
                    raise Refused(f"{self.address}: {' '.join(str(details.get('exception_message')).split())}")
                if what == "execution_interrupted":
                    raise Refused(f"{self.address}: the segment was interrupted there")
            return dict(entry["outputs"]["1"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Refused(f"{self.address} answers with what is no result of {NODE}") from error

    def cancel(self, number: str) -> None:
        """Removes a prompt from the queue, or interrupts it."""
        with suppress(Refused, Unreachable):
            self.request_json("/queue", {"delete": [number]})
            self.request_json("/interrupt", {"prompt_id": number})


def view_route(name: str, folder: str, kind: str) -> str:
    """The route that downloads a file from ComfyUI."""
    return "/view?" + urlencode({"filename": name, "subfolder": folder, "type": kind})


def error_message(found: Any) -> str | None:
    """The reason for refusing a prompt in the server's answer; None if there is none."""
    try:
        errors = [error for node in found["node_errors"].values() for error in node["errors"]]
        first = errors[0] if errors else found["error"]
        return first.get("details") or first["message"]
    except (KeyError, TypeError, IndexError, AttributeError):
        return None
