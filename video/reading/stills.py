"""How many pictures an image file holds: animations and files of several pages, of which OpenCV gives the first alone."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"

REDUCED = 1
"""Bit of TIFF's NewSubfileType that marks a small copy of another page."""


def pictures_in(data: bytes) -> int:
    """Frames of an APNG or animated WebP, full-size pages of a TIFF; 1 for anything else, damaged or not."""
    if data[:4] == b"RIFF":  # Pillow refuses those that are cut short
        return max(1, len(webp_delays(data)))
    try:
        with Image.open(BytesIO(data), formats=("PNG", "TIFF")) as image:
            count: int = getattr(image, "n_frames", 1)
            return max(1, sum(not _reduced(image, n) for n in range(count))) if image.format == "TIFF" else count
    except Exception:  # Pillow raises what its plugins do, of damaged files anything
        return 1


def has_alpha(data: bytes) -> bool:
    """Whether an image file says that it has an alpha channel or a transparent colour; true where that cannot be read."""
    try:
        with Image.open(BytesIO(data)) as image:
            return "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info
    except Exception:  # Pillow raises what its plugins do, of damaged files anything
        return True


def _reduced(image: Any, page: int) -> bool:
    """Whether a page of a TIFF is a small copy of another one."""
    image.seek(page)
    return bool(image.tag_v2.get(254, 0) & REDUCED)


def webp_delays(data: bytes) -> list[int]:
    """Milliseconds that each picture of an animated WebP is shown: bytes 12 to 14 of its ANMF chunks. Empty for anything else."""
    if data[:4] != b"RIFF" or data[8:16] != b"WEBPVP8X":
        return []
    delays, at = [], 12
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        if kind == b"ANMF" and at + 23 <= len(data):
            delays.append(int.from_bytes(data[at + 20 : at + 23], "little"))
        at += 8 + size + size % 2  # chunks are padded to even sizes
    return delays
