"""Reading a clip as a stream of chunks in bounded memory."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import VideoError
from ..files import Place
from ..info import SourceInfo
from ..times import FrameTimes

CHUNK_BYTES = 1 << 28
"""Maximum size of a chunk, unless a single frame takes more."""


@dataclass(frozen=True, eq=False)
class FrameChunk:
    """Consecutive delivered frames.

    Attributes:
        index: number of the first one among the delivered frames, from 0.
        frames: (n, 3, H, W) float32 RGB in [0, 1], upright.
        starts, ends: presentation times in seconds on the file's clock.
        stored: the decoded FFmpeg frames, from which a sink can write unchanged pixels losslessly; None for changed frames, empty if
            unavailable.
    """

    index: int
    frames: Tensor
    starts: tuple[Fraction, ...]
    ends: tuple[Fraction, ...]
    stored: tuple[Any, ...] = ()

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(frozen=True)
class Selection:
    """The delivered frames of a file: every `stride`-th of start <= i < stop, at most `count`.

    `window` is (start, duration) in seconds: only frames that start inside it are numbered. A duration of 0 or None
    means to the end; a negative start counts from the end of the clip.
    """

    start: int = 0
    stop: int | None = None
    stride: int = 1
    count: int | None = None
    window: tuple[Fraction, Fraction | None] | None = None

    def __post_init__(self) -> None:
        for name, value, least in (("start", self.start, 0), ("stride", self.stride, 1), ("count", self.count, 1)):
            if value is not None and value < least:
                raise VideoError(f"{name} must be at least {least}, got {value}")
        if self.stop is not None and self.stop <= self.start:
            raise VideoError(f"stop must be above start, got start {self.start} and stop {self.stop}")

    @property
    def limit(self) -> int | None:
        """Index after the last frame needed; None for all."""
        by_count = None if self.count is None else self.start + self.count * self.stride
        limits = [limit for limit in (self.stop, by_count) if limit is not None]
        return min(limits, default=None)

    @property
    def whole(self) -> bool:
        """Whether all frames from first to last are selected, by any stride."""
        return self.start == 0 and self.limit is None and self.window is None

    def sees(self, start: Fraction, end: Fraction) -> bool:
        """Whether the window contains a frame that starts at `start`, in a clip that ends at `end`."""
        if self.window is None:
            return True
        begin, duration = self.window
        begin = begin if begin >= 0 else max(Fraction(0), end + begin)
        return begin <= start and (not duration or start < begin + duration)

    def size(self, available: int) -> int:
        """Number of delivered frames out of `available`."""
        stop = available if self.limit is None else min(available, self.limit)
        return max(0, math.ceil((stop - self.start) / self.stride))


class Timed(NamedTuple):
    """A frame whose tensor is made on request; `end` is set for the last frame of the file only."""

    start: Fraction
    picture: Callable[[], Tensor]
    end: Fraction | None


class FrameSource(ABC):
    """A clip that can be read repeatedly in bounded memory.

    Attributes:
        place: path or file it is read from.
        info: properties of the clip.
        selection: which frames are delivered.
        warnings: sentences about damage found so far, each once.
    """

    place: Place
    info: SourceInfo
    selection: Selection
    warnings: list[str]

    @abstractmethod
    def numbered(self) -> Iterator[Timed]:
        """Frames from `selection.start` on in presentation order, including undelivered ones."""

    @property
    def numbers(self) -> list[int] | None:
        """Number in the name of each delivered image; None if they have none, and for videos."""
        return None

    @property
    def cut_short(self) -> bool:
        """Whether the selection ends the clip early."""
        window = self.selection.window
        return self.selection.limit is not None or (window is not None and bool(window[1]))

    @property
    def expected(self) -> int | None:
        """Approximate number of delivered frames by the file's header; None if unknown."""
        available = self.info.frame_estimate
        if available is None:
            return None
        if self.selection.window is not None:
            start, duration = self.selection.window
            whole = self.info.duration or available / self.info.rate
            left = max(Fraction(0), whole - start if start >= 0 else min(-start, whole))
            available = math.ceil(min(left, duration or left) * self.info.rate)
        return self.selection.size(available)

    def chunk_size(self, size: int) -> int:
        """Frames per chunk: `size`, or fewer if they are huge."""
        return min(size, max(1, CHUNK_BYTES // (12 * self.info.width * self.info.height)))

    def chunks(self, size: int = 8, first: int = 0) -> Iterator[FrameChunk]:
        """Decodes the clip in chunks of `size` frames (fewer in the last one, and if they are huge).

        first: number of the first frame. Chunks end at multiples of their size, so a part of a clip has the whole clip's chunks.

        Raises:
            VideoError: if no frame decodes, or the selection is past the end.
        """
        if size < 1:
            raise VideoError(f"a chunk needs at least 1 frame, got {size}")
        size = self.chunk_size(size)
        frames, starts, ends, stored = [], [], [], []
        for start, end, picture in self.timed():
            frames.append(picture())
            stored.append(getattr(picture, "stored", None))
            starts.append(start)
            ends.append(end)
            if (first + len(frames)) % size == 0:
                yield FrameChunk(first, torch.stack(frames), tuple(starts), tuple(ends), tuple(stored))
                first, frames, starts, ends, stored = first + len(frames), [], [], [], []
        if frames:
            yield FrameChunk(first, torch.stack(frames), tuple(starts), tuple(ends), tuple(stored))

    def times(self) -> FrameTimes:
        """Times of all delivered frames; decodes the clip without converting pixels."""
        shown = [(start, end) for start, end, _ in self.timed()]
        return FrameTimes(tuple(start for start, _ in shown), shown[-1][1], self.info)

    def timed(self) -> Iterator[tuple[Fraction, Fraction, Callable[[], Tensor]]]:
        """Start, end and picture of each delivered frame; a frame lasts until the next delivered one."""
        chosen = self.selection
        held: tuple[Fraction, Callable[[], Tensor]] | None = None
        delivered = 0
        number = chosen.start
        finish: Fraction | None = None
        for item in self.numbered():
            if chosen.limit is not None and number >= chosen.limit:
                finish = item.start
                break
            if (number - chosen.start) % chosen.stride == 0:
                if held is not None:
                    yield held[0], item.start, held[1]
                held = item.start, item.picture
                delivered += 1
            finish = item.end
            number += 1
        if held is None:
            raise VideoError(f"{self.describe()} has no frame {chosen.start}{self.window_words()}; choose an earlier start")
        yield held[0], held[0] + 1 / self.info.rate if finish is None else finish, held[1]

    def describe(self) -> str:
        return self.info.path or "the video in memory"

    def window_words(self) -> str:
        if self.selection.window is None:
            return ""
        start, duration = self.selection.window
        return f" in its window from {float(start):.3f} s" + (f" for {float(duration):.3f} s" if duration else "")

    def warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)


def read_all(source: FrameSource, on_frame: Callable[[], object] | None = None) -> tuple[Tensor, FrameTimes]:
    """The whole clip as one tensor (T, 3, H, W), filled in place, without a second copy if the header's frame count is right."""
    room = torch.empty((source.expected or 64, 3, source.info.height, source.info.width))
    starts: list[Fraction] = []
    last = Fraction(0)
    for start, end, picture in source.timed():
        if len(starts) == len(room):
            room = torch.cat((room, torch.empty((max(16, len(room) // 2), *room.shape[1:]))))
        room[len(starts)] = picture()
        starts.append(start)
        last = end
        if on_frame is not None:
            on_frame()
    return room[: len(starts)], FrameTimes(tuple(starts), last, source.info)
