"""Deinterlacing by FFmpeg's bwdif."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from av.filter import Graph
from av.video.frame import VideoFrame

from ..errors import VideoError
from ..files import duration_of, presentation_time

DEINTERLACE = ("auto", "off", "fields", "top", "bottom", "fields-top", "fields-bottom")
"""auto: each frame marked as interlaced becomes one progressive frame; fields: two, one per field, at twice the rate; top or bottom:
all frames are taken as interlaced with that field first; off: combs stay."""

Shown = tuple[Fraction, Any]
"""Presentation time in seconds, and the frame."""


def check_deinterlace(choice: str) -> None:
    """Raises VideoError unless `choice` is one of DEINTERLACE."""
    if choice not in DEINTERLACE:
        raise VideoError(f"deinterlace is one of {', '.join(DEINTERLACE)}, got {choice!r}")


class Deinterlacer:
    """Deinterlaces frames; those before the first interlaced one pass unchanged.

    Args:
        choice: one of DEINTERLACE but "off".
        length: seconds that a frame lasts if its duration is unknown.
    """

    def __init__(self, choice: str, length: Fraction) -> None:
        first = choice.removeprefix("fields-")
        self.forced = first in ("top", "bottom")
        parity = {"top": "tff", "bottom": "bff"}.get(first, "auto")
        mode = "send_field" if choice.startswith("fields") else "send_frame"
        self.options = f"mode={mode}:parity={parity}:deint={'all' if self.forced else 'interlaced'}"
        self.length = length
        self.graph: Graph | None = None
        self.shape: tuple[int, int, str] | None = None
        self.starts: dict[int, Fraction] = {}
        """Of the frames in the graph, which knows them by their number here: bwdif gives frame n as 2 n, its second field as 2 n + 1."""
        self.number, self.last, self.place = 0, Fraction(0), -1

    def __call__(self, frames: Iterator[Shown]) -> Iterator[Shown]:
        for start, frame in frames:
            if self.graph is None and not self.forced and not frame.interlaced_frame:
                yield start, frame
                continue
            shape = frame.width, frame.height, frame.format.name
            if shape != self.shape:
                yield from self.flushed()
                self.graph, self.shape, self.starts = opened(frame, self.options), shape, {}
            self.last = start + (duration_of(frame) or self.length)
            frame.pts, frame.time_base = self.number, Fraction(1)
            self.starts[self.number] = start
            self.number += 1
            assert self.graph is not None
            self.graph.vpush(frame)
            yield from self.pulled()
        yield from self.flushed()

    def flushed(self) -> Iterator[Shown]:
        if self.graph is not None:
            self.graph.vpush(None)
            yield from self.pulled()
            self.graph = None

    def pulled(self) -> Iterator[Shown]:
        assert self.graph is not None
        while True:
            try:
                frame: VideoFrame = self.graph.vpull()
            except (BlockingIOError, av.error.EOFError):
                return
            place = round((presentation_time(frame) or 0) * 2)
            self.place = place if place > self.place else self.place + 1  # of a clip of one frame, both fields are given as 0
            number, second = divmod(self.place, 2)
            start, after = self.starts[number], self.starts.get(number + 1, self.last)
            self.starts.pop(number - 1, None)
            yield start + (after - start) / 2 * second, frame


def opened(frame: Any, options: str) -> Graph:
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))
    weaver, sink = graph.add("bwdif", options), graph.add("buffersink")
    source.link_to(weaver)
    weaver.link_to(sink)
    graph.configure()
    return graph
