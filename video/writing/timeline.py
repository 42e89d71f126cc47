"""Timestamps of a clip being written: ticks of frames and durations of packets."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import lcm
from typing import Any

from ..errors import VideoError

MAX_TICK_RATE = 1_000_000
"""Maximum ticks per second; finer clocks are rounded."""


def choose_tick(times: Sequence[Fraction], wanted: Fraction | None, *, fine: bool) -> Fraction:
    """A tick in seconds that divides the given times and `wanted` exactly, at least 1 us; at most 0.1 ms if `fine`."""
    ticks = lcm(*(time.denominator for time in times), wanted.denominator if wanted else 1)
    if ticks > MAX_TICK_RATE:
        ticks = wanted.denominator if wanted else 90_000
    while ticks < 10_000 and fine:
        ticks *= 2
    return Fraction(1, ticks)


class Timeline:
    """Assigns ticks to frames and durations to packets, one packet late: the last one's duration makes the track end with the clip.

    Attributes:
        origin: source time in seconds that becomes 0.
        tick: seconds.
        last: tick of the last frame, and its end in seconds.
    """

    def __init__(self, origin: Fraction, tick: Fraction) -> None:
        self.origin, self.tick = origin, tick
        self.last: tuple[int, Fraction] | None = None
        self.durations: dict[int, int] = {}
        self.stop = 0
        self.first = 0, 0
        self.held: Any = None

    def place(self, start: Fraction, end: Fraction, frame: str) -> int:
        """The tick of the next frame. Raises VideoError naming `frame` if it is not after the previous one."""
        tick = round((start - self.origin) / self.tick)
        length = max(1, round((end - start) / self.tick))
        if self.last is not None and tick <= self.last[0]:
            raise VideoError(f"{frame} starts at {float(start):.6f} s, not after the one before; times must increase")
        if self.last is not None:
            self.durations[self.last[0]] = tick - self.last[0]
        self.last = tick, end
        self.durations[tick], self.stop = length, tick + length
        return tick

    def mux(self, packets: Sequence[Any], output: Any) -> None:
        """Writes packets, holding back the last one."""
        for packet in packets:
            before = self.held.dts if self.held is not None else packet.pts - 2
            if packet.dts is None or not packet.pts - 60 / self.tick < packet.dts <= packet.pts:
                packet.dts = before + 1  # x265 makes up decoding times for clips of one or two frames
            if self.held is not None:
                output.mux(self.held)
            else:
                self.first = packet.pts, packet.dts
            packet.duration = self.durations.pop(packet.pts, packet.duration)
            self.held = packet

    def finish(self, output: Any, *, exact: bool) -> Fraction:
        """Writes the last packet and returns the last frame's end in seconds. `exact`: its duration makes the track end there.

        MP4 sums durations in decoding order, where the last packet is not always the last frame; its edit list ends with the latest packet.
        Readers take the shorter of the two, so one is made exact and the other not shorter.
        """
        assert self.last is not None
        packet, self.held = self.held, None
        if packet is not None:
            if exact:
                missing = (self.stop - self.first[0]) - (packet.dts - self.first[1])
                packet.duration = max(missing, self.stop - packet.pts if packet.pts == self.last[0] else 1)
            output.mux(packet)
        return self.last[1]
