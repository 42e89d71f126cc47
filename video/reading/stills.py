"""Number of pictures in an image file: animations and multi-page files, of which OpenCV reads only the first."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"

REDUCED = 1
"""Bit of TIFF's NewSubfileType that marks a reduced copy of another page."""


def pictures_in(data: bytes) -> int:
    """Number of frames of an APNG or animated WebP, or of full-size pages of a TIFF; 1 for anything else."""
    if data[:4] == b"RIFF":  # Pillow refuses those that are cut short
        return max(1, len(webp_delays(data)))
    try:
        with Image.open(BytesIO(data), formats=("PNG", "TIFF")) as image:
            count: int = getattr(image, "n_frames", 1)
            return max(1, sum(not _reduced(image, n) for n in range(count))) if image.format == "TIFF" else count
    except Exception:  # Pillow raises what its plugins do, of damaged files anything
        return 1


def has_alpha(data: bytes) -> bool:
    """Whether an image file has an alpha channel or a transparent colour; True if unreadable."""
    try:
        with Image.open(BytesIO(data)) as image:
            return "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info
    except Exception:  # Pillow raises what its plugins do, of damaged files anything
        return True


def _reduced(image: Any, page: int) -> bool:
    """Whether a page of a TIFF is a reduced copy of another page."""
    image.seek(page)
    return bool(image.tag_v2.get(254, 0) & REDUCED)


def webp_delays(data: bytes) -> list[int]:
    """Frame durations of an animated WebP in milliseconds, bytes 12 to 14 of its ANMF chunks. Empty for anything else."""
    if data[:4] != b"RIFF" or data[8:16] != b"WEBPVP8X":
        return []
    delays, at = [], 12
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        if kind == b"ANMF" and at + 23 <= len(data):
            delays.append(int.from_bytes(data[at + 20 : at + 23], "little"))
        at += 8 + size + size % 2  # chunks are padded to even sizes
    return delays
