"""MPEG program streams: pictures that start in one packet share its timestamp, and FFmpeg interpolates the others, otherwise after a seek."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from ..files import Place, once_per_version, open_input, picture_stream
from .health import readable


@dataclass(frozen=True)
class Pictures:
    """The timestamps of a file's pictures in decoding order, as read from its start, in ticks.

    keys: digest -> number of each key frame that is unlike all others.
    """

    pts: array[int]
    dts: array[int]
    keys: dict[bytes, int]


def digest(packet: Any) -> bytes:
    return blake2b(memoryview(packet), digest_size=16).digest()


@once_per_version
def pictures_of(place: Place) -> Pictures:
    """Reads the whole file."""
    pts, dts = array("q"), array("q")
    keys: dict[bytes, int] = {}
    alike: set[bytes] = set()
    with open_input(place) as container:
        for packet in readable(container.demux(picture_stream(container))):
            if not packet.size or packet.pts is None or packet.dts is None:
                if packet.size:
                    break  # what follows is found by no key frame
                continue
            if packet.is_keyframe:
                key = digest(packet)
                alike |= {key} & keys.keys()
                keys[key] = len(pts)
            pts.append(packet.pts)
            dts.append(packet.dts)
    return Pictures(pts, dts, {key: number for key, number in keys.items() if key not in alike})


def timed_as_from_the_start(packets: Iterator[Any], place: Place) -> Iterator[Any]:
    """The packets after a seek from the first known key frame on, with the timestamps that they have if the file is read from its start."""
    known = pictures_of(place)
    number: int | None = None
    for packet in packets:
        if packet.size:
            number = known.keys.get(digest(packet)) if number is None and packet.is_keyframe else number
            if number is None or number >= len(known.pts):
                continue
            packet.pts, packet.dts = known.pts[number], known.dts[number]
            number += 1
        yield packet
