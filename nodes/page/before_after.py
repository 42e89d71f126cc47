"""What the page shows of a node's work: progress, and a few frames before and after for the slider of web/compare.js."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import host
from ...faces import FaceTrack, Thumbnails
from ...headless.io import ui
from ...host.images import to_image
from ...pipeline import Progress
from .people import page_files, people

MAX_PAIRS = 8
"""Pairs of frames."""

MAX_SIDE = 768
"""Maximum longer side in pixels: a node on the page is no larger."""


class Samples:
    """Evenly spaced frames of a streamed clip of unknown length: every 2^k-th, fewer than 2 `MAX_PAIRS` at any time."""

    def __init__(self) -> None:
        self.every = 1
        self.kept: dict[int, Tensor] = {}

    def push(self, first: int, frames: Tensor) -> None:
        """Adds frames (n, 3, H, W) from index `first` on."""
        for number in range(first, first + len(frames)):
            if number % self.every:
                continue
            self.kept[number] = downscaled(frames[number - first : number - first + 1])[0]
            if len(self.kept) >= 2 * MAX_PAIRS:
                self.every *= 2
                self.kept = {number: frame for number, frame in self.kept.items() if number % self.every == 0}


def downscaled(frames: Tensor) -> Tensor:
    """Frames (n, 3, H, W) reduced to a longer side of at most `MAX_SIDE` pixels."""
    share = MAX_SIDE / max(frames.shape[-2:])
    if share >= 1:
        return frames.clone()
    size = [max(1, round(side * share)) for side in frames.shape[-2:]]
    return F.interpolate(frames, size, mode="bilinear", antialias=True, align_corners=False)


def evenly_spaced(count: int, places: Tensor | None = None) -> list[int]:
    """Up to `MAX_PAIRS` of `count` indices, or of those in `places`, including first and last."""
    numbers = torch.arange(count) if places is None or not len(places) else places
    return numbers[torch.linspace(0, len(numbers) - 1, min(MAX_PAIRS, len(numbers))).round().long()].tolist()


def slider(node: Any, before: Tensor, after: Tensor) -> dict[str, Any]:
    """`ui` entries of pairs of frames (n, 3, H, W) for web/compare.js; empty without a page."""
    if not host.on_page() or not len(before):
        return {}
    pictures = {"a_images": before, "b_images": after}
    return {name: page_files(ui.PreviewImage(to_image(downscaled(frames)), cls=node).as_dict()["images"]) for name, frames in pictures.items()}


def film_slider(node: Any, folder: Path, film: Path) -> dict[str, Any]:
    """`slider` of a job and its joined film, preferring frames with a face."""
    if not host.on_page():
        return {}
    from ...film.job import Job
    from ...film.pairs import frames_with_faces, pairs

    job = Job.load(folder)
    found = list(pairs(job, film, evenly_spaced(job.frames, frames_with_faces(job))))
    return slider(node, *(torch.stack([downscaled(frame[None])[0] for frame in side]) for side in zip(*found, strict=True))) if found else {}


class Watched:
    """A clip's progress on the page: the last frame read or written, frames/s, time left, and samples before and after.

    Args:
        total: frames of the clip, 0 if unknown.
        tick: of a progress bar over all frames, twice: found, written.
    """

    def __init__(self, total: int, tick: host.Tick) -> None:
        self.total, self.tick = total, tick
        self.before, self.after = Samples(), Samples()
        self.chosen: list[FaceTrack] = []
        self.faces = Thumbnails([])
        self.found = self.found_before = self.kept = self.pushed = self.written = 0
        self.last: Tensor | None = None
        self.began = self.began_finding = self.said = time.monotonic()

    def source(self, source: Any) -> Any:
        """The source, its frames recorded as they are read."""

        def chunks(*given: Any, **named: Any) -> Iterator[Any]:
            for piece in source.chunks(*given, **named):
                self.before.push(piece.index, piece.frames)
                self.faces.push(piece.index, piece.frames)
                if not self.pushed:
                    self.last = piece.frames[-1]
                yield piece

        return _Proxy(source, chunks=chunks)

    def sink(self, sink: Any) -> Any:
        """The sink, recording frames written."""

        def write(frames: Tensor, *times: Any) -> None:
            sink.write(frames, *times)
            self.after.push(self.pushed, frames)
            self.on_frames(frames)

        return _Proxy(sink, write=write)

    def on_frames(self, frames: Tensor) -> None:
        """Records frames (n, 3, H, W)."""
        self.last = frames[-1]
        self.pushed += len(frames)

    def on_people(self, tracks: list[FaceTrack], chosen: list[FaceTrack]) -> None:
        self.faces, self.chosen = Thumbnails(tracks, samples=1), chosen
        self.restoring()

    @contextmanager
    def finds(self, kept: int) -> Iterator[Progress]:
        """The progress of a job's first pass, whose first `kept` frames an earlier run found."""
        self.tick(kept)
        self.found = self.found_before = kept
        self.began_finding = time.monotonic()
        yield self.on_found

    def on_found(self, count: int) -> None:
        self.tick(count)
        self.found += count
        self.show("finding faces: ", self.found, self.began_finding, self.found_before)
        self.began = time.monotonic()  # writing, which comes next

    def on_planned(self, kept: int, of: int) -> None:
        """`kept` of a job's frames were written by earlier runs, which found all faces unless this did."""
        self.tick(kept + (0 if self.found else of))
        self.kept, self.written, self.total = kept, kept, of
        self.began = time.monotonic()
        self.restoring()

    def restoring(self) -> None:
        """Shows that the second pass begins; its first frames take longer."""
        host.show_work(f"restoring: {self.status(self.written, 0.0, self.kept)}")

    def on_written(self, count: int) -> None:
        self.tick(count)
        self.written += count
        self.show("", self.written, self.began, self.kept)

    def show(self, what: str, count: int, began: float, kept: int = 0) -> None:
        """Updates at most twice a second."""
        now = time.monotonic()
        if now - self.said >= 0.5:
            self.said = now
            host.show_work(what + self.status(count, now - began, kept), None if self.last is None else downscaled(self.last[None])[0])

    def status(self, count: int, seconds: float, kept: int = 0) -> str:
        """Text of a pass at `count` frames, all but `kept` done in `seconds`."""
        of = f" of {self.total:,}" if self.total >= count else ""
        if count <= kept:
            return f"{count:,}{of} frames"
        rate = (count - kept) / max(seconds, 1e-6)
        left = f", {_hours_minutes_seconds((self.total - count) / rate)} left" if of else ""
        return f"{count:,}{of} frames, {rate:.2f} frames/s{left}"

    def ui(self, node: Any) -> dict[str, Any]:
        """The slider of the clip, and its people."""
        both = sorted(set(self.before.kept) & set(self.after.kept))
        chosen = [both[k] for k in evenly_spaced(len(both))]
        compared = slider(node, *(torch.stack([side.kept[k] for k in chosen]) for side in (self.before, self.after))) if chosen else {}
        return {**compared, **people(node, self.chosen, self.faces)}


class _Proxy:
    """An object with some attributes replaced."""

    def __init__(self, real: Any, **others: Callable[..., Any]) -> None:
        self.__dict__.update(others, _real=real)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def _hours_minutes_seconds(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
