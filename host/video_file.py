"""A VIDEO value where there is no ComfyUI."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class VideoFile:
    """A clip on disk, or a window of it: the part of ComfyUI's VideoInput that does not hold a whole clip in memory.

    `start_time` and `duration` are seconds; a duration of 0 reaches to the end.
    """

    path: Path
    start_time: float = 0.0
    duration: float = 0.0

    def get_stream_source(self) -> str:
        return str(self.path)

    def get_active_trim_window(self) -> tuple[float, float]:
        return self.start_time, self.duration

    def get_dimensions(self) -> tuple[int, int]:
        """(width, height) as stored, before any rotation."""
        with self._stream() as (_, stream):
            return stream.width, stream.height

    def get_frame_rate(self) -> Fraction:
        with self._stream() as (_, stream):
            return Fraction(stream.average_rate or 1)

    def get_duration(self) -> float:
        """Seconds inside the window."""
        with self._stream() as (container, stream):
            length = container.duration / 1_000_000 if container.duration else float(stream.duration * stream.time_base)
        left = max(length - self.start_time, 0.0)
        return min(self.duration, left) if self.duration else left

    def get_frame_count(self) -> int:
        """From the header, else duration times rate: may be off by a few."""
        with self._stream() as (_, stream):
            if stream.frames and (self.start_time, self.duration) == (0.0, 0.0):
                return stream.frames
        return round(self.get_duration() * self.get_frame_rate())

    def get_container_format(self) -> str:
        with self._stream() as (container, _):
            return container.format.name

    def as_trimmed(self, start_time: float | None = None, duration: float | None = None, strict_duration: bool = True) -> VideoFile | None:
        """The window moved `start_time` seconds on and cut to `duration`; None when nothing is left, or less than a strict `duration`."""
        start = start_time or 0.0
        left = self.get_duration() - start
        if left <= 0 or (strict_duration and duration and left < duration):
            return None
        return replace(self, start_time=self.start_time + start, duration=min(duration, left) if duration else (left if self.duration else 0.0))

    def save_to(self, path: str | os.PathLike[str], **_: Any) -> None:
        """Copies the file.

        Raises:
            ValueError: for a window of a file, which would have to be encoded again.
        """
        if (self.start_time, self.duration) != (0.0, 0.0):
            raise ValueError(f"{self.path} is trimmed to a window and cannot be copied; encode it through video.open_sink")
        shutil.copyfile(self.path, path)

    @contextmanager
    def _stream(self) -> Iterator[tuple[Any, Any]]:
        import av

        with av.open(str(self.path)) as container:
            if not container.streams.video:
                raise ValueError(f"{self.path} holds no video stream; choose a video file")
            yield container, container.streams.video[0]
