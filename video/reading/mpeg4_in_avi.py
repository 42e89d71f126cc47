"""MPEG-4 Part 2 in AVI (DivX, Xvid), also as put into Matroska from there: it states decoding times alone, and may pack a B-frame into the packet
of the picture before it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from av.bitstream import BitStreamFilterContext

VOP = b"\0\0\1\xb6"
"""Start code of a picture (ISO/IEC 14496-2, section 6.2.5); the two bits after it are its type."""

B_FRAME = 2


def as_in_avi(stream: Any) -> bool:
    """Whether a stream states decoding times alone: in AVI, or in Matroska by an AVI header (V_MS/VFW/FOURCC), which has a FourCC."""
    name, context = stream.container.format.name, stream.codec_context
    return context is not None and (name == "avi" or (name.startswith("matroska") and bool(context.codec_tag.strip("\0"))))


def with_presentation_times(packets: Iterator[Any], stream: Any) -> Iterator[Any]:
    """One packet per picture in decoding order, each with the time at which it is shown; packets of other codecs or containers pass untouched.

    The places of the file are shown in order. A B-frame is shown as soon as it is decoded, so its place is that of the packet before it; any other
    picture waits for the next one that is no B-frame, so its place is that of the last packet before that one. FFmpeg's own times are one frame
    later, and out of order in a packed bitstream.
    """
    if not as_in_avi(stream) or stream.codec_context.name != "mpeg4":
        yield from packets
        return
    group: list[Any] = []
    for packet in unpacked(packets, stream):
        data = bytes(packet)
        at = data.find(VOP) + len(VOP)
        if data[at : at + 1] and data[at] >> 6 != B_FRAME:
            yield from in_place(group)
            group = []
        group.append(packet)
    yield from in_place(group)


def in_place(group: list[Any]) -> list[Any]:
    """A picture and the B-frames decoded after it, with their presentation times."""
    places = [packet.dts for packet in group]
    for packet, place in zip(group, [*places[-1:], *places[:-1]], strict=True):
        packet.pts = place
    return group


def unpacked(packets: Iterator[Any], stream: Any) -> Iterator[Any]:
    """One packet per picture; the last one is empty, as FFmpeg's is."""
    split = BitStreamFilterContext("mpeg4_unpack_bframes", stream)
    for packet in packets:
        for one in split.filter(packet if packet.size else None):
            one.stream = stream
            yield one
    yield packet
