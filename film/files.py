"""JSON files of a job, and fingerprints of inputs."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from ..atomic import write_bytes
from ..models.device import CheckInterrupt
from ..video import VideoError
from ..video.files import sequence_files

SAMPLE = 1 << 20
"""Bytes of an input's head and tail that are hashed."""


def write_json(path: Path, note: Any) -> None:
    """Writes a JSON file atomically."""
    write_bytes(path, (json.dumps(note, indent=1) + "\n").encode())


def read_json(path: Path) -> Any:
    """The content of a JSON file; None if it is missing or malformed."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def fingerprint(place: Any) -> dict[str, Any]:
    """Size, modification time (ns) and SHA-256 of the first and last MiB of a clip; for images their names, sizes and latest modification time.

    Raises:
        VideoError: if the clip is not a file.
    """
    if not isinstance(place, (str, os.PathLike)):
        raise VideoError("a job needs a clip in a file, got one in memory; save it first")
    images = sequence_files(place)
    if images is not None:
        seen = [(image.name, image.stat()) for image in images]
        listed = "\n".join(f"{name} {status.st_size}" for name, status in seen)
        modified = max(status.st_mtime_ns for _, status in seen)
        return {"bytes": sum(status.st_size for _, status in seen), "modified": modified, "head": sha256(listed.encode()), "tail": ""}
    with Path(place).open("rb") as file:
        status = os.fstat(file.fileno())
        head = file.read(SAMPLE)
        file.seek(max(0, status.st_size - SAMPLE))
        return {"bytes": status.st_size, "modified": status.st_mtime_ns, "head": sha256(head), "tail": sha256(file.read(SAMPLE))}


def content_digest(place: Any, check_interrupt: CheckInterrupt) -> str:
    """SHA-256 of a clip's bytes, or of its images' bytes in order."""
    digest = hashlib.sha256()
    for path in sequence_files(place) or [Path(place)]:
        with path.open("rb") as file:
            while block := file.read(SAMPLE):
                check_interrupt()
                digest.update(block)
    return digest.hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
