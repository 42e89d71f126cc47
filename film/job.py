"""A job: a folder with the fixed plan of a film's segments and the segments finished so far.

job.json               what is restored, how, and in which segments; written last, so that a plan is whole if it is there
times.npy              when each frame begins, and the last one ends, in ticks
tracks.safetensors     the faces that are restored
segments/00042.json    that a segment is done, and what is in its file; written after the file
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from torch import Tensor

from ..faces import Detector, FaceTrack, Paster, PersonReport, TrackReport
from ..methods.base import Restorer
from ..video import FrameSource, SourceInfo, open_source
from ..video.reading.source import Selection
from .files import read_json, sha256
from .lease import holder
from .tracks import load_tracks

FORMAT = 1
"""Of job.json; a folder of another format is refused."""
ATTEMPTS = 3
"""Times that a segment is tried before the rest goes on without it."""
JOB_FILES = {"job.json", "times.npy", "tracks.safetensors", "segments", "plan.lease", "join.lease", "joined.json"}
"""What a job's folder holds, beside a try-out."""


@dataclass(frozen=True)
class Tools:
    """What every segment is restored with; `on_frames` receives the finished frames (n, 3, H, W) of this process."""

    restorer: Restorer
    detector: Detector
    paster: Paster
    on_frames: Callable[[Tensor], object] = lambda frames: None


@dataclass(frozen=True)
class Segment:
    """Frames first <= i < stop, restored by one worker."""

    number: int
    first: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.first

    @property
    def name(self) -> str:
        return f"{self.number:05}"


class Job:
    """A planned job, loaded from its folder; `plan` is the content of job.json."""

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        self.folder, self.plan = folder, plan
        self.known_finished: set[int] = set()

    @classmethod
    def load(cls, folder: Path) -> Job:
        """Raises ValueError if the folder has no plan, or one of another format."""
        plan = read_json(folder / "job.json")
        if plan is None and (folder / "job.json").exists():
            raise ValueError(f"{folder / 'job.json'} is damaged; remove {folder} and plan the job anew")
        if plan is None and holder(folder / "plan.lease"):
            raise ValueError(f"{folder} is being planned, and finds faces until then; ask again when its command says that it restores")
        if plan is None:
            raise ValueError(f"{folder} holds no job (job.json is not there); plan one with: fvr restore INPUT OUTPUT --job {folder}")
        if plan.get("format") != FORMAT:
            raise ValueError(f"{folder} holds a job of format {plan.get('format')}, and this version reads {FORMAT}; plan it anew in another folder")
        return cls(folder, plan)

    @cached_property
    def segments(self) -> list[Segment]:
        return [Segment(number, part["first"], part["stop"]) for number, part in enumerate(self.plan["segments"])]

    @property
    def frames(self) -> int:
        return self.plan["frames"]

    def size(self, info: SourceInfo) -> tuple[int, int]:
        """(H, W) of the film's upright frames."""
        scale = self.plan.get("scale", 1)
        return info.height * scale, info.width * scale

    @property
    def parts(self) -> Path:
        """The folder of the segments."""
        return self.folder / "segments"

    @cached_property
    def tick(self) -> Fraction:
        """Seconds."""
        return Fraction(self.plan["tick"])

    @cached_property
    def ticks(self) -> np.ndarray:
        """(frames + 1,) int64: start of each frame and end of the last one, memory-mapped."""
        with self.planned("times.npy") as path:
            return np.load(path, mmap_mode="r")

    def time(self, number: int) -> Fraction:
        """Start of frame `number` in seconds; number = frames gives the end of the last one."""
        return int(self.ticks[number]) * self.tick

    def times(self, first: int, stop: int) -> list[Fraction]:
        """Starts of frames `first` to `stop` inclusive in seconds: `stop` - `first` + 1 values."""
        return [int(tick) * self.tick for tick in self.ticks[first : stop + 1]]

    def tracks(self, first: int, stop: int) -> list[FaceTrack]:
        """The tracks to be restored in frames `first` to `stop`."""
        with self.planned("tracks.safetensors") as path:
            return load_tracks(path, first, stop)

    @contextmanager
    def planned(self, name: str) -> Iterator[Path]:
        """Path of one of the plan's files; reading it inside raises ValueError if it is missing or damaged."""
        try:
            yield self.folder / name
        except (OSError, ValueError, EOFError, SafetensorError) as error:
            raise ValueError(f"{self.folder / name} is missing or damaged; remove {self.folder} and plan the job anew") from error

    def source(self) -> FrameSource:
        """The film, as it was planned."""
        frames = self.plan["selection"]
        return open_source(
            self.plan["place"],
            start=frames["start"],
            count=frames["count"],
            stride=frames["stride"],
            rate=Fraction(frames["rate"]),
            deinterlace=frames["deinterlace"],
        )

    def range(self, first: int, stop: int, *, seek: bool = True) -> FrameSource:
        """Frames `first` to `stop` of the plan, located by time, or by counting from the start without `seek`."""
        source = self.source()
        whole = source.selection
        begin, end = self.time(first), self.time(stop)
        if seek and first and begin > 0:
            source.selection = Selection(stride=whole.stride, window=(begin, end - begin))
        else:
            source.selection = Selection(start=whole.start + first * whole.stride, stride=whole.stride, count=stop - first, window=whole.window)
            source.can_seek = not first  # type: ignore[attr-defined]
        return source

    def checksum(self, segment: Segment) -> str:
        """SHA-256 of the times of a segment's frames."""
        return sha256(np.ascontiguousarray(self.ticks[segment.first : segment.stop + 1], "<i8").tobytes())

    def file(self, segment: Segment) -> Path:
        suffix = {"matroska": ".mkv"}.get(self.plan["encoding"]["container"], "." + self.plan["encoding"]["container"])
        return self.parts / (segment.name + suffix)

    def done(self, segment: Segment) -> dict[str, Any] | None:
        """The note of a finished segment, whose file and note agree with each other and with the plan; else None."""
        note = read_json(self.parts / f"{segment.name}.json")
        if not isinstance(note, dict) or note.get("frames") != len(segment) or note.get("times") != self.checksum(segment):
            return None
        try:
            whole = self.file(segment).stat().st_size == note.get("bytes")
        except FileNotFoundError:
            return None
        return note if whole else None

    def finished(self, segment: Segment) -> bool:
        """Whether a segment is done; a positive answer is cached."""
        if segment.number not in self.known_finished and self.done(segment) is not None:
            self.known_finished.add(segment.number)
        return segment.number in self.known_finished

    def lease(self, segment: Segment) -> Path:
        return self.parts / f"{segment.name}.lease"

    def failures(self, segment: Segment) -> list[dict[str, Any]]:
        """The failures recorded for a segment."""
        return [note for path in sorted(self.parts.glob(f"{segment.name}.failed-*.json")) if (note := read_json(path))]

    def forgive(self) -> None:
        """Clears all recorded failures, so that every segment has all its attempts again."""
        for path in self.parts.glob("*.failed-*.json"):
            with suppress(FileNotFoundError):
                path.unlink()

    def to_do(self) -> list[Segment]:
        """Segments neither done nor given up, longest first so that workers finish together."""
        left = [segment for segment in self.segments if not self.finished(segment) and len(self.failures(segment)) < ATTEMPTS]
        return sorted(left, key=lambda segment: (-len(segment), segment.number))

    @property
    def people(self) -> TrackReport:
        report = self.plan["people"]
        return TrackReport(**{**report, "people": tuple(PersonReport(**person) for person in report["people"])})
