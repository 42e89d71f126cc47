"""Timestamp discontinuities, as in joined broadcast recordings or damaged files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ..files import NO_TIMES, Place, duration_of, once_per_version, open_input, picture_stream, place_name, presentation_time
from .health import has_presentation_times, readable

MAY_JUMP = 0x200
"""FFmpeg's AVFMT_TS_DISCONT: formats (MPEG transport and program streams) whose times may jump."""

MIN_JUMP = Fraction(1, 10)

MAX_STEP = 10
"""Seconds; if clocks may jump, larger steps forward are discontinuities too. FFmpeg's dts_delta_threshold."""

MAX_SILENCE = 1
"""Seconds; longer gaps in sound are kept only where there is a picture."""


@dataclass(frozen=True)
class Part:
    """A part between two discontinuities with timestamps from `first` to `last`; adding `offset` puts it after the previous part. Seconds.

    stated: whether each picture has its own timestamp. In program streams those that start in one packet share one; FFmpeg interpolates the
        others, wrongly after a seek.
    """

    first: Fraction
    last: Fraction
    offset: Fraction
    stated: bool


def jump_threshold(container: Any) -> Fraction:
    """Seconds; larger steps back are discontinuities, smaller ones just unordered timestamps."""
    stream = picture_stream(container)
    rate = None if stream is None else stream.average_rate
    return max(MIN_JUMP, 3 / Fraction(rate)) if rate else MIN_JUMP


@once_per_version
def parts_of(place: Place) -> tuple[Part, ...]:
    """The parts of a file by its video packets: one for an ordinary file, none without video. Reads the whole file."""
    spans: list[tuple[Fraction, Fraction, bool]] = []
    with open_input(place) as container:
        stream = picture_stream(container)
        if stream is None:
            return ()
        slack, frame = jump_threshold(container), 1 / Fraction(stream.average_rate or 25)
        may_jump = container.format.flags & MAY_JUMP
        latest = Fraction(0)
        for packet in readable(container.demux(stream)):
            start = presentation_time(packet)
            if not packet.size or start is None:
                continue
            end = start + (duration_of(packet) or frame)
            decoded = start if packet.dts is None else packet.dts * packet.time_base
            if not spans or decoded < latest - slack or (may_jump and decoded > latest + MAX_STEP):
                spans.append((start, end, True))
                latest = decoded
            first, last, stated = spans[-1]
            spans[-1] = min(first, start), max(last, end), stated and packet.pos is not None
            latest = max(latest, decoded)
    parts: list[Part] = []
    for first, last, stated in spans:
        offset = parts[-1].last + parts[-1].offset - first if parts else Fraction(0)
        parts.append(Part(first, last, offset, stated))
    return tuple(parts)


def shares_times(container: Any, place: Place) -> bool:
    """Whether some pictures have no timestamp of their own, and so another one after a seek than if read from the start."""
    return bool(container.format.flags & MAY_JUMP) and not all(part.stated for part in parts_of(place))


def can_seek(container: Any, place: Place) -> bool:
    """Whether times identify places in the file: not if it has several parts, or no timestamps."""
    stream = picture_stream(container)
    if container.format.flags & NO_TIMES or (stream is not None and not has_presentation_times(stream)):
        return False
    return not container.format.flags & MAY_JUMP or len(parts_of(place)) < 2


def no_warning(sentence: str) -> None:
    """Discards a warning."""


class RunningClock:
    """Makes the timestamps of a stream continuous across discontinuities.

    Sound takes the picture's offset of the same part, so that they stay in sync. Sound with a timestamp outside all parts is damaged and
    placed right after the previous sound.

    Args:
        sound: whether this is an audio stream, whose gaps are checked against the picture.
        warn: receives warnings of damaged timestamps.
    """

    def __init__(self, place: Place, container: Any, *, sound: bool = False, warn: Callable[[str], None] = no_warning) -> None:
        self.place, self.slack, self.sound, self.warn = place, jump_threshold(container), sound, warn
        self.ahead = MAX_SILENCE if sound else MAX_STEP if container.format.flags & MAY_JUMP else None
        self.parts: tuple[Part, ...] | None = None
        self.jumps = self.number = 0
        self.offset = Fraction(0)
        self.astray = False
        picture = picture_stream(container)
        begin = None if picture is None else picture.start_time
        self.latest: Fraction | None = None if not sound or begin is None else begin * picture.time_base
        self.end = self.latest or Fraction(0)

    def __call__(self, stated: Fraction, length: Fraction) -> Fraction:
        """The continuous time in seconds of a timestamp `stated` and duration `length`; call in file order."""
        if self.latest is not None and stated < self.latest - self.slack:
            self.change_part(stated, back=True)
        elif self.latest is not None and self.ahead is not None and stated > max(self.latest, self.end - self.offset) + self.ahead:
            self.change_part(stated, back=False)
        else:
            self.latest = stated if self.latest is None else max(self.latest, stated)
        self.end = stated + length + self.offset
        return stated + self.offset

    def reset(self) -> None:
        """Call after a seek: the next timestamp is trusted."""
        self.latest = None

    def change_part(self, stated: Fraction, *, back: bool) -> None:
        """Moves to the part of a timestamp; one before all parts is unordered and changes nothing."""
        if self.parts is None:
            self.parts = parts_of(self.place)
        first = self.number + (back and not self.astray)
        fitting = (k for k in range(first, len(self.parts)) if self.parts[k].first - 1 <= stated <= self.parts[k].last + 1)
        number = next(fitting, None)
        if number is None and back and self.parts and not self.astray:
            return
        meant = number == self.number if self.parts else not back and stated <= self.end - self.offset + MAX_STEP
        if meant and not self.astray:
            self.latest = stated
            return
        self.astray = number is None and bool(self.parts)
        if number is not None and self.parts:
            self.number, self.offset = number, self.parts[number].offset
        else:
            self.offset = self.end - stated
        if self.astray:
            kind = "sound" if self.sound else "picture"
            self.warn(f"the {kind} of {place_name(self.place)} has damaged time stamps; what they are of was put right behind what is before it")
        self.jumps, self.latest = self.jumps + 1, stated
