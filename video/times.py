"""Presentation times as exact fractions of a second, which keep variable frame rates."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import lcm

from .errors import VideoError
from .info import SourceInfo


@dataclass(frozen=True)
class FrameTimes:
    """Frame i is shown from starts[i] to starts[i + 1], the last one until `end`; all in seconds.

    Args:
        starts: strictly increasing, at least one.
        end: after the last start.
        source: the file the times come from, if any.

    Raises:
        VideoError: if the times are empty or not strictly increasing.
    """

    starts: tuple[Fraction, ...]
    end: Fraction
    source: SourceInfo | None = None

    def __post_init__(self) -> None:
        if not self.starts:
            raise VideoError("frame times need at least one frame, got none")
        for index, (now, after) in enumerate(pairwise((*self.starts, self.end))):
            if after <= now:
                raise VideoError(f"frame times must increase, but frame {index} starts at {float(now):.6f} s and ends at {float(after):.6f} s")

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, part: slice) -> FrameTimes:
        """The times of frames[part]; each frame lasts until the next kept one, the last for its stride."""
        if not isinstance(part, slice):
            raise TypeError("index FrameTimes with a slice; read single times from .starts and .ends")
        first, stop, stride = part.indices(len(self))
        if stride < 1:
            raise VideoError(f"a slice of frame times needs a positive stride, got {stride}")
        picked = range(first, stop, stride)
        if not picked:
            raise VideoError(f"frames {first} to {stop} of {len(self)} are none; pick at least one frame")
        return FrameTimes(tuple(self.starts[i] for i in picked), self.ends[min(picked[-1] + stride, stop) - 1], self.source)

    @property
    def ends(self) -> tuple[Fraction, ...]:
        return (*self.starts[1:], self.end)

    @property
    def durations(self) -> tuple[Fraction, ...]:
        return tuple(end - start for start, end in zip(self.starts, self.ends, strict=True))

    @property
    def duration(self) -> Fraction:
        return self.end - self.starts[0]

    @property
    def rate(self) -> Fraction:
        """Average frames per second."""
        return len(self) / self.duration

    @property
    def time_base(self) -> Fraction:
        """The longest tick of at most 1 s of which all times are multiples."""
        return Fraction(1, lcm(*(time.denominator for time in (*self.starts, self.end))))

    def interpolated(self, multiple: int) -> FrameTimes:
        """Times with `multiple` - 1 frames inserted evenly between neighbours, (len - 1) * multiple + 1 in all.

        First start and end stay, so that sound fits; the last frame is therefore longer than its neighbours.

        Raises:
            VideoError: if `multiple` is below 1.
        """
        if multiple < 1:
            raise VideoError(f"frames can be multiplied by 1 or more, got {multiple}")
        between = [now + Fraction(step, multiple) * (after - now) for now, after in pairwise(self.starts) for step in range(multiple)]
        return FrameTimes((*between, self.starts[-1]), self.end, self.source)

    def shifted(self, seconds: Fraction) -> FrameTimes:
        return FrameTimes(tuple(start + seconds for start in self.starts), self.end + seconds, self.source)

    @classmethod
    def constant(cls, count: int, rate: Fraction | float) -> FrameTimes:
        """`count` frames at `rate` per second from second 0; decimal rates such as 29.97 mean 30000/1001."""
        exact = nearest_rate(rate)
        return cls(tuple(i / exact for i in range(count)), count / exact)


def nearest_rate(rate: Fraction | float) -> Fraction:
    """The exact frame rate meant by `rate`: 23.976, 29.97, 59.94, ... become n * 1000 / 1001. Raises VideoError unless 0 < rate < 100000."""
    if not 0 < rate < 100_000:
        raise VideoError(f"a frame rate must be above 0 and below 100000 frames per second, got {rate}")
    if isinstance(rate, (Fraction, int)):
        return Fraction(rate)
    film = Fraction(round(rate * 1001 / 1000) * 1000, 1001)
    if film and abs(film - rate) < 0.003 and rate != round(rate):
        return film
    return Fraction(rate).limit_denominator(1001)
