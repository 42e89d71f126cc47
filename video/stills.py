"""How many pictures an image file holds: animations and files of several pages, of which OpenCV gives the first alone."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np

PNG = b"\x89PNG\r\n\x1a\n"

REDUCED = 1
"""Bit of TIFF's NewSubfileType that marks a small copy of another page."""


def pictures_in(data: bytes) -> int:
    """Frames of an APNG or animated WebP, full-size pages of a TIFF; 1 for anything else, damaged or not."""
    try:
        if data.startswith(PNG):
            return apng_frames(data)
        if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X":
            return max(1, sum(kind == b"ANMF" for kind, _ in riff_chunks(data, 12)))
        if data[:4] in (b"II*\0", b"MM\0*"):
            return max(1, tiff_pages(data))
    except struct.error:
        pass
    return 1


def unpacked(data: bytes, flags: int) -> Any:
    """An image file's pixels as OpenCV's imdecode gives them; None where it cannot, or refuses the size that a damaged header claims."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:
        return None


def apng_frames(data: bytes) -> int:
    """By the acTL chunk, which comes before the first picture's pixels."""
    at = 8
    while data[at + 4 : at + 8] not in (b"IDAT", b""):
        (size,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] == b"acTL":
            return max(1, *struct.unpack_from(">I", data, at + 8))
        at += 12 + size
    return 1


def webp_delays(data: bytes) -> list[int]:
    """Milliseconds that each picture of an animated WebP is shown: bytes 12 to 14 of its ANMF chunks. Empty for anything else."""
    if data[:4] != b"RIFF" or data[8:16] != b"WEBPVP8X":
        return []
    places, at = [], 12
    for kind, size in riff_chunks(data, 12):
        if kind == b"ANMF" and at + 23 <= len(data):
            places.append(at + 8 + 12)
        at += 8 + size + size % 2
    return [int.from_bytes(data[place : place + 3], "little") for place in places]


def riff_chunks(data: bytes, at: int) -> list[tuple[bytes, int]]:
    """(kind, size) of each chunk from offset `at`; sizes are padded to even ones."""
    chunks = []
    while at + 8 <= len(data):
        (size,) = struct.unpack_from("<I", data, at + 4)
        chunks.append((data[at : at + 4], size))
        at += 8 + size + size % 2
    return chunks


def tiff_pages(data: bytes) -> int:
    """Directories of a TIFF (6.0, section 2) that are no reduced copies."""
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    seen: set[int] = set()
    pages = 0
    while at and at not in seen:
        seen.add(at)
        (entries,) = struct.unpack_from(order + "H", data, at)
        kinds = {}
        for entry in range(at + 2, at + 2 + 12 * entries, 12):
            (tag,) = struct.unpack_from(order + "H", data, entry)
            (kinds[tag],) = struct.unpack_from(order + "I", data, entry + 8)
        pages += not kinds.get(254, 0) & REDUCED
        (at,) = struct.unpack_from(order + "I", data, at + 2 + 12 * entries)
    return pages
