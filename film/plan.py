"""A job: a folder that says once and for all how a film is cut into segments, and holds those that are done.

job.json               what is restored, how, and in which segments; written last, so that a plan is whole if it is there
times.npy              when each frame begins, and the last one ends, in ticks
tracks.safetensors     the faces that are restored
segments/00042.json    that a segment is done, and what is in its file; written after the file
"""

from __future__ import annotations

import json
import math
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from torch import Tensor

from ..atomic import PART, atomic_file
from ..faces import Detector, FaceTrack, Paster, PersonReport, TrackReport, picture_named, report, select_tracks, wanted_look
from ..methods.base import Restorer
from ..models.device import CheckInterrupt, no_check
from ..pipeline import CHUNK, Progress, follow_faces, no_progress
from ..video import FrameSource, ShotCutDetector, SourceInfo, open_source
from ..video.reading.source import Selection
from .files import content_digest, fingerprint, read_json, sha256, write_json
from .first_pass import FirstPass
from .lease import holder, take
from .tracks import load_tracks, save_tracks

FORMAT = 1
"""Of job.json; a folder of another format is refused."""
SEGMENT_SECONDS = 20.0
"""What a segment lasts at most, by default."""
ATTEMPTS = 3
"""Times that a segment is tried before the rest goes on without it."""


@dataclass(frozen=True)
class Tools:
    """What restores a film, the same for every segment; `on_frames` gets the finished frames (n, 3, H, W) that this process writes."""

    restorer: Restorer
    detector: Detector
    paster: Paster
    on_frames: Callable[[Tensor], object] = lambda frames: None


@dataclass(frozen=True)
class Segment:
    """Frames first <= i < stop, which one worker restores."""

    number: int
    first: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.first

    @property
    def name(self) -> str:
        return f"{self.number:05}"


class Job:
    """A planned job, as its folder says; `plan` is its job.json."""

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        self.folder, self.plan = folder, plan
        self.known_finished: set[int] = set()

    @classmethod
    def load(cls, folder: Path) -> Job:
        """Raises ValueError if there is no plan in the folder, or one of another format."""
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
        """(frames + 1,) int64: when each frame begins, and the last one ends. Read from the disk as it is needed."""
        with self.planned("times.npy") as path:
            return np.load(path, mmap_mode="r")

    def time(self, number: int) -> Fraction:
        """Second at which frame `number` begins, or the last one ends."""
        return int(self.ticks[number]) * self.tick

    def times(self, first: int, stop: int) -> list[Fraction]:
        """Seconds at which frames `first` to `stop` begin, the last one included: `stop` - `first` + 1 of them."""
        return [int(tick) * self.tick for tick in self.ticks[first : stop + 1]]

    def tracks(self, first: int, stop: int) -> list[FaceTrack]:
        """The faces that are restored in these frames."""
        with self.planned("tracks.safetensors") as path:
            return load_tracks(path, first, stop)

    @contextmanager
    def planned(self, name: str) -> Iterator[Path]:
        """One of the plan's files, to be read; raises ValueError where it is missing or damaged."""
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
        """The film from frame `first` to `stop` of the plan: found by its times, or, without `seek`, by counting from the start."""
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
        """Of the times of a segment's frames."""
        return sha256(np.ascontiguousarray(self.ticks[segment.first : segment.stop + 1], "<i8").tobytes())

    def file(self, segment: Segment) -> Path:
        suffix = {"matroska": ".mkv"}.get(self.plan["encoding"]["container"], "." + self.plan["encoding"]["container"])
        return self.parts / (segment.name + suffix)

    def done(self, segment: Segment) -> dict[str, Any] | None:
        """The note of a segment that is done: its file and its note are there and agree with each other and with the plan."""
        note = read_json(self.parts / f"{segment.name}.json")
        if not isinstance(note, dict) or note.get("frames") != len(segment) or note.get("times") != self.checksum(segment):
            return None
        try:
            whole = self.file(segment).stat().st_size == note.get("bytes")
        except FileNotFoundError:
            return None
        return note if whole else None

    def finished(self, segment: Segment) -> bool:
        """Whether a segment is done, or has been at an earlier look."""
        if segment.number not in self.known_finished and self.done(segment) is not None:
            self.known_finished.add(segment.number)
        return segment.number in self.known_finished

    def lease(self, segment: Segment) -> Path:
        return self.parts / f"{segment.name}.lease"

    def failures(self, segment: Segment) -> list[dict[str, Any]]:
        """What went wrong with a segment so far."""
        return [note for path in sorted(self.parts.glob(f"{segment.name}.failed-*.json")) if (note := read_json(path))]

    def forgive(self) -> None:
        """Gives every segment all its attempts again."""
        for path in self.parts.glob("*.failed-*.json"):
            with suppress(FileNotFoundError):
                path.unlink()

    def to_do(self) -> list[Segment]:
        """Segments that are neither done nor given up, the longest first: no worker is left with a long one at the end."""
        left = [segment for segment in self.segments if not self.finished(segment) and len(self.failures(segment)) < ATTEMPTS]
        return sorted(left, key=lambda segment: (-len(segment), segment.number))

    @property
    def people(self) -> TrackReport:
        report = self.plan["people"]
        return TrackReport(**{**report, "people": tuple(PersonReport(**person) for person in report["people"])})


def plan(
    folder: Path,
    source: FrameSource,
    tools: Tools,
    *,
    identity: Mapping[str, Any],
    request: Mapping[str, Any],
    selection: Mapping[str, Any],
    encoding: Mapping[str, Any],
    seed: int = 0,
    faces: str = "all",
    min_size: float = 0.0,
    seconds: float | None = None,
    check_interrupt: CheckInterrupt = no_check,
    on_found: Progress = no_progress,
) -> Job:
    """The job in `folder`, planned if it is not yet: one pass over the film finds its shots and faces.

    Args:
        identity: all that must be the same whenever the job goes on, such as version, settings and weights; ready for JSON.
        request: what a worker makes its `tools` of; not looked at.
        selection: "start", "count", "stride", "rate" and "deinterlace", as `source` was opened with.
        encoding: "codec", "crf", "pixel_format" and "container" of the film.
        faces, min_size: as `restore_clip_in_frames`.
        seconds: what a segment lasts at most; None is `SEGMENT_SECONDS`, or what the job was planned with.

    Raises:
        ValueError: naming what is not as it was when the job was planned.
    """
    if seconds is not None and not seconds > 0:
        raise ValueError(f"a segment lasts more than 0 seconds, got {seconds:g}")
    whole = json.loads(json.dumps({**identity, "input": fingerprint(source.place)}))
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, and a job is a folder; choose another name")
    others = [path.name for path in folder.iterdir() if path.name not in JOB_FILES and not path.name.endswith(PART)] if folder.is_dir() else []
    if others and not (folder / "job.json").exists():
        raise ValueError(f"{folder} holds other files ({min(others)}) and no job; choose another folder")
    try:
        (folder / "segments").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{folder} cannot be made ({error.strerror or error}); name a folder for the job that may be written") from error
    with exclusive(folder / "plan.lease", folder / "job.json", check_interrupt):
        if (folder / "job.json").exists():
            job = Job.load(folder)
            whole["segment_seconds"] = job.plan["identity"]["segment_seconds"] if seconds is None else seconds
            whole["input"] = input_as_planned(job, whole["input"], source.place, check_interrupt)
            check_same(job, whole, selection, encoding)
            check_picture(job, faces)
            return moved_to(job, source.place)
        picture, like, cuts = picture_digest(faces), wanted_look(faces), ShotCutDetector()
        with FirstPass(folder, source, cuts, finding(whole, selection, tools.detector)) as state:
            timed = TimesRecorder(source, state.frames, check_interrupt)
            on_found(state.frames)
            tracks = follow_faces(
                timed,
                tools.detector,
                cuts=cuts,
                check_interrupt=state.before_each(check_interrupt),
                on_frame=on_found,
                first=state.frames,
                keep=state.store.keep,
                resume=state.resume,
            )
            chosen = select_tracks(tracks, faces, min_size, like)
            tick, ticks = timed.ticks()
            save_tracks(folder / "tracks.safetensors", chosen)
            people = asdict(report(tracks, chosen, len(ticks) - 1, min_size, tools.paster.level))
        with atomic_file(folder / "times.npy") as part, part.open("wb") as file:
            np.save(file, ticks)
        whole["segment_seconds"] = seconds or SEGMENT_SECONDS
        ranges = segment_ranges(cuts.found, ticks, tick, seconds or SEGMENT_SECONDS, source.chunk_size(CHUNK))
        exact = tools.restorer.warm_up.exact or all(first == 0 or first in cuts.found for first, _ in ranges)
        content = {
            "format": FORMAT,
            "identity": whole,
            "place": str(Path(str(source.place)).absolute()),
            "content": content_digest(source.place, check_interrupt),
            "request": dict(request),
            "selection": dict(selection),
            "encoding": dict(encoding),
            "seed": seed,
            "picture": picture,
            "scale": tools.paster.scale,
            "frames": len(ticks) - 1,
            "tick": str(tick),
            "segments": [
                {"first": first, "stop": stop, "start": str(int(ticks[first]) * tick), "end": str(int(ticks[stop]) * tick)} for first, stop in ranges
            ],
            "warm_up": asdict(tools.restorer.warm_up),
            "exact": exact,
            "people": people,
            "warnings": list(source.warnings),
            "seconds": round(state.elapsed, 3),
        }
        write_json(folder / "job.json", content)
        return Job.load(folder)


def finding(identity: Mapping[str, Any], selection: Mapping[str, Any], detector: Detector) -> dict[str, Any]:
    """What decides who is found: the faces found so far serve a job that is given anew with another method, or other people to restore."""
    return {
        "input": identity["input"],
        "selection": selection,
        "version": identity.get("version"),
        "detector": [detector.name, getattr(detector, "rotate", None)],
        "weights": [file for file in identity.get("weights", ()) if file["used_by"] == "detector"],
    }


JOB_FILES = {"job.json", "times.npy", "tracks.safetensors", "segments", "plan.lease", "join.lease", "joined.json"}
"""What a job's folder holds, beside a try-out."""


@contextmanager
def exclusive(lease: Path, result: Path | None, check_interrupt: CheckInterrupt) -> Iterator[None]:
    """Holds `lease`, once nobody else does; enters without it where its `result` exists."""
    held = None
    while not (result and result.exists()) and (held := take(lease)) is None:
        check_interrupt()
        time.sleep(0.2)
    try:
        yield
    finally:
        if held is not None:
            held.release()


class TimesRecorder(FrameSource):
    """A source that records when its frames are shown, in a few bytes a frame, and delivers all but the first `skipped`."""

    def __init__(self, source: FrameSource, skipped: int, check_interrupt: CheckInterrupt) -> None:
        self.source, self.skipped, self.check_interrupt = source, skipped, check_interrupt
        self.place, self.info, self.selection, self.warnings = source.place, source.info, source.selection, source.warnings
        self.numerators, self.denominators = array("q"), array("q")
        self.last = Fraction(0)

    def numbered(self) -> Iterator[Any]:
        return self.source.numbered()

    def timed(self) -> Iterator[Any]:
        del self.numerators[:], self.denominators[:]
        for item in self.source.timed():
            self.numerators.append(item[0].numerator)
            self.denominators.append(item[0].denominator)
            self.last = item[1]
            if len(self.numerators) > self.skipped:
                yield item
            else:
                self.check_interrupt()

    def ticks(self) -> tuple[Fraction, np.ndarray]:
        """Seconds of a tick, and each frame's start and the end in ticks, (n + 1,) int64."""
        per_second = math.lcm(self.last.denominator, *set(self.denominators))
        starts = np.fromiter(
            (n * (per_second // d) for n, d in zip(self.numerators, self.denominators, strict=True)), np.int64, count=len(self.numerators)
        )
        return Fraction(1, per_second), np.append(starts, int(self.last * per_second))


def segment_ranges(cuts: Sequence[int], ticks: np.ndarray, tick: Fraction, seconds: float, chunk: int) -> list[tuple[int, int]]:
    """Frame ranges [first, stop) that lie one behind the other over all frames.

    They begin at shot cuts. Shots that follow each other share one as long as they last at most `seconds` together; a longer shot is cut into
    parts about equal, at multiples of `chunk`, by which they may be longer.
    """
    limit = seconds / float(tick)
    borders = sorted({0, len(ticks) - 1, *cuts})
    ranges: list[tuple[int, int]] = []
    begun = 0
    for first, stop in pairwise(borders):
        if ticks[stop] - ticks[begun] <= limit:
            continue
        if begun < first:
            ranges.append((begun, first))
        begun = first
        parts = math.ceil(float(ticks[stop] - ticks[first]) / limit)
        if parts > 1:
            inner = {round((first + (stop - first) * part / parts) / chunk) * chunk for part in range(1, parts)}
            ranges += pairwise([first, *sorted(edge for edge in inner if first < edge < stop), stop])
            begun = stop
    return [*ranges, (begun, borders[-1])] if begun < borders[-1] else ranges


def check_same(job: Job, identity: Mapping[str, Any], selection: Mapping[str, Any], encoding: Mapping[str, Any]) -> None:
    """Raises ValueError, naming the first thing that is not as it was planned."""
    now = {"identity": dict(identity), "selection": json.loads(json.dumps(selection)), "encoding": json.loads(json.dumps(encoding))}
    planned = {name: job.plan[name] for name in now}
    for name, was, is_now in differences(planned, now):
        what = name.removeprefix("identity.").removeprefix("settings.")
        if what.startswith("input"):
            raise ValueError(
                f"{job.folder} was planned for {job.plan['place']}, and the clip given now is another one, or was changed since ({what} {was}, got "
                f"{is_now}); give the clip as it was, or plan it anew in another folder"
            )
        raise ValueError(
            f"{job.folder} was planned with {what} {was}, got {is_now}; go on with what it was planned with, or plan it anew in another folder"
        )


def input_as_planned(job: Job, now: dict[str, Any], place: Any, check_interrupt: CheckInterrupt) -> dict[str, Any]:
    """A clip's fingerprint, with the planned time of its last change where that alone is another one: a copy, or one that was touched."""
    planned = {**now, "modified": job.plan["identity"]["input"].get("modified")}
    same = now != planned == job.plan["identity"]["input"] and content_digest(place, check_interrupt) == job.plan.get("content")
    return planned if same else now


def moved_to(job: Job, place: Any) -> Job:
    """The job with its clip at `place`, for all its workers, if it is no longer where it was planned."""
    here = str(Path(str(place)).absolute())
    if here == job.plan["place"] or Path(job.plan["place"]).exists():
        return job
    write_json(job.folder / "job.json", {**job.plan, "place": here})
    return Job.load(job.folder)


def picture_digest(faces: str) -> str | None:
    """SHA-256 of the picture in "like:photo.jpg"; None for other words, and where it cannot be read."""
    name = picture_named(faces)
    try:
        return sha256(Path(name).read_bytes()) if name else None
    except OSError:
        return None


def check_picture(job: Job, faces: str) -> None:
    """Raises ValueError if the picture that a job's people were chosen by shows something else now; one that is gone is not needed any more."""
    planned, now = job.plan.get("picture"), picture_digest(faces)  # plans of older versions do not say
    if planned and now and now != planned:
        raise ValueError(
            f"{job.folder} was planned with another picture in {picture_named(faces)}, and its people were chosen by that; give the same picture, or "
            "plan it anew in another folder"
        )


def check_input(job: Job) -> dict[str, Any]:
    """The fingerprint of a job's clip for `check_same`, without the time of its last change. Raises ValueError if the clip is not here."""
    place, planned = job.plan["place"], job.plan["identity"]["input"]
    if not Path(place).exists():
        raise ValueError(f"{place}, the clip of the job in {job.folder}, is not here; put it there, or mount its folder under the same name")
    return {**fingerprint(place), "modified": planned["modified"]}


def differences(was: Any, now: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Names of what differs between two JSON values, with both values as text."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in [*was, *(key for key in now if key not in was)]:
            yield from differences(was.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for number, (one, other) in enumerate(zip(was, now, strict=True)):
            yield from differences(one, other, f"{name}.{number}")
    elif was != now:
        before, after = ("none" if value is None else str(value) for value in (was, now))
        yield name, before, after
