"""Detects truncated files by the sizes of their top-level boxes, elements or chunks, without decoding."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

MEDIA_BOXES = (b"mdat", b"moof", b"moov")
"""Media boxes of MP4 and MOV; other boxes at the end of a file may be padding."""

MATROSKA_SEGMENT = b"\x18\x53\x80\x67"


def missing_bytes(file: BinaryIO) -> int:
    """Missing bytes of the last box (MP4, MOV), segment (Matroska, WebM) or list (AVI); 0 for other formats and whole files."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if head[:4] == b"\x1aE\xdf\xa3":
        end = segment_end(file)
    elif head[:4] == b"RIFF" and head[8:] == b"AVI ":
        end = 8 + struct.unpack("<I", head[4:8])[0]
    elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        end = last_box_end(file, size)
    else:
        return 0
    return max(0, end - size)


def last_box_end(file: BinaryIO, size: int) -> int:
    """End offset of the last top-level box; ISO/IEC 14496-12, section 4.2."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        if length == 1:
            wide = file.read(8)
            length = struct.unpack(">Q", wide)[0] if len(wide) == 8 else 0
        if at + length > size and kind in MEDIA_BOXES:
            return at + length
        if length < 8:
            break
        at += length
    return 0


def segment_end(file: BinaryIO) -> int:
    """End offset of a Matroska file's segment, 0 if unknown (RFC 8794: sizes of 1 to 8 bytes, width by the first set bit)."""
    file.seek(4)
    length, _ = ebml_size(file)
    file.seek(length, os.SEEK_CUR)
    if file.read(4) != MATROSKA_SEGMENT:
        return 0
    length, known = ebml_size(file)
    return file.tell() + length if known else 0


def ebml_size(file: BinaryIO) -> tuple[int, bool]:
    first = file.read(1)
    if not first or not first[0]:
        return 0, False
    width = 9 - first[0].bit_length()
    rest = file.read(width - 1)
    value = int.from_bytes(bytes([first[0] & ((1 << (8 - width)) - 1)]) + rest, "big")
    return value, value != (1 << 7 * width) - 1
