"""Files whose clock starts anew on the way, as where recordings of a broadcast were put one behind the other."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

from .files import Place, open_input, picture_stream

MAY_JUMP = 0x200
"""FFmpeg's AVFMT_TS_DISCONT: formats (MPEG transport and program streams) whose times may jump."""

LEAST_JUMP = Fraction(1, 10)


@dataclass(frozen=True)
class Part:
    """What lies between two jumps back: its stated times reach from `first` to `last`; `offset` puts it behind the part before. Seconds."""

    first: Fraction
    last: Fraction
    offset: Fraction


def jump(container: Any) -> Fraction:
    """Seconds; times that go back further than this start anew, less is disorder."""
    stream = picture_stream(container)
    rate = None if stream is None else stream.average_rate
    return max(LEAST_JUMP, 3 / Fraction(rate)) if rate else LEAST_JUMP


def parts_of(place: Place) -> list[Part]:
    """The parts of a file by the packets of its picture; one for an ordinary file, none without a picture. Reads the whole file."""
    spans: list[list[Fraction]] = []
    with open_input(place) as container:
        stream = picture_stream(container)
        if stream is None:
            return []
        slack, frame = jump(container), 1 / Fraction(stream.average_rate or 25)
        latest = Fraction(0)
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.FFmpegError, OSError):
                break
            if not packet.size or packet.pts is None:
                continue
            start = packet.pts * packet.time_base
            end = start + (packet.duration * packet.time_base if packet.duration else frame)
            decoded = start if packet.dts is None else packet.dts * packet.time_base
            if not spans or decoded < latest - slack:
                spans.append([start, end])
                latest = decoded
            spans[-1] = [min(spans[-1][0], start), max(spans[-1][1], end)]
            latest = max(latest, decoded)
    parts: list[Part] = []
    for first, last in spans:
        offset = parts[-1].last + parts[-1].offset - first if parts else Fraction(0)
        parts.append(Part(first, last, offset))
    return parts


def can_seek(container: Any, place: Place) -> bool:
    """Whether a time means one place in the file: not in one with several parts."""
    return not container.format.flags & MAY_JUMP or len(parts_of(place)) < 2


class RunningClock:
    """Makes the stated times of one stream run on across jumps back.

    Picture and sound take the same offset after a jump, that of the picture, so that they stay together.
    """

    def __init__(self, place: Place, container: Any) -> None:
        self.place, self.slack = place, jump(container)
        self.parts: list[Part] | None = None
        self.jumps = self.number = 0
        self.offset = Fraction(0)
        self.latest: Fraction | None = None
        self.end = Fraction(0)

    def __call__(self, stated: Fraction, length: Fraction) -> Fraction:
        """Seconds at which something begins that is stated to begin at `stated` and lasts `length`; call it in the file's order."""
        if self.latest is not None and stated < self.latest - self.slack:
            self.start_anew(stated)
        else:
            self.latest = stated if self.latest is None else max(self.latest, stated)
        self.end = stated + length + self.offset
        return stated + self.offset

    def start_anew(self, stated: Fraction) -> None:
        """Goes on to the part that a time belongs to; a time out of order that belongs to none changes nothing."""
        if self.parts is None:
            self.parts = parts_of(self.place)
        fitting = (k for k in range(self.number + 1, len(self.parts)) if self.parts[k].first - 1 <= stated <= self.parts[k].last + 1)
        number = next(fitting, None)
        if number is not None:
            self.number, self.offset = number, self.parts[number].offset
        elif not self.parts:
            self.offset = self.end - stated
        else:
            return
        self.jumps, self.latest = self.jumps + 1, stated
