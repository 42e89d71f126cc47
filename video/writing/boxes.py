"""Sets display matrix and size of a finished MP4 or MOV file in place (ISO/IEC 14496-12)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..errors import VideoError

ROTATIONS = {0: (1, 0, 0, 1), 90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), -90: (0, 1, -1, 0)}
"""(a, b, c, d) of the display matrix: x' = a x + c y + t_x, y' = b x + d y + t_y turns counter-clockwise by the key."""


class Box(NamedTuple):
    kind: bytes
    start: int
    """Offset of the content."""
    stop: int


def boxes(file: BinaryIO, start: int, stop: int) -> Iterator[Box]:
    """The sibling boxes between two offsets."""
    while start + 8 <= stop:
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        head = 8
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
            head = 16
        end = stop if size == 0 else start + size
        if (size != 0 and size < head) or end > stop:
            return
        yield Box(kind, start + head, end)
        start = end


def find(file: BinaryIO, box: Box, *path: bytes) -> Box:
    for kind in path:
        inside = next((child for child in boxes(file, box.start, box.stop) if child.kind == kind), None)
        if inside is None:
            raise VideoError(f"the file just written has no {kind.decode()} box; its rotation and size could not be set")
        box = inside
    return box


def set_display(path: Path, *, rotation: int, size: tuple[int, int], mirrored: bool = False, aspect: float = 1.0) -> None:
    """Sets rotation and size of a file's video track.

    Args:
        rotation: degrees counter-clockwise that turn the stored pixels upright.
        size: (height, width) of the visible stored pixels; at most one less than coded.
        mirrored: whether they are then mirrored left to right.
        aspect: width / height of a stored pixel.
    """
    height, width = size
    with path.open("r+b") as file:
        moov = find(file, Box(b"", 0, path.stat().st_size), b"moov")
        for track in (box for box in boxes(file, moov.start, moov.stop) if box.kind == b"trak"):
            handler = find(file, track, b"mdia", b"hdlr")
            file.seek(handler.start + 8)
            if file.read(4) != b"vide":
                continue
            header = find(file, track, b"tkhd")
            file.seek(header.start)
            fields = 36 + (12 if file.read(1)[0] == 1 else 0)
            shown = round(width * aspect)
            a, b, c, d = ROTATIONS[rotation]
            a, c = (-a, -c) if mirrored else (a, c)
            t_x = max(0, -a) * shown + max(0, -c) * height
            t_y = max(0, -b) * shown + max(0, -d) * height
            matrix = (a << 16, b << 16, 0, c << 16, d << 16, 0, t_x << 16, t_y << 16, 1 << 30)
            file.seek(header.start + fields + 4)
            file.write(struct.pack(">9i2I", *matrix, shown << 16, height << 16))
            samples = find(file, track, b"mdia", b"minf", b"stbl", b"stsd")
            file.seek(samples.start + 8 + 8 + 24)
            file.write(struct.pack(">2H", width, height))
            return
    raise VideoError(f"{path} has no video track; its rotation and size could not be set")
