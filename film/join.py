"""Joins a job's segments by copying their video packets; sound and other streams are copied once from the source."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from ..atomic import PART, temporary_name
from ..models.device import CheckInterrupt, no_check
from ..pipeline import CHUNK, Progress, no_progress
from ..plurals import counted
from ..video import VideoError, VideoSink
from ..video.files import ffmpeg_reason, open_input, picture_stream
from ..video.writing.timeline import Timeline
from .files import read_json, write_json
from .job import Job, Segment
from .lease import exclusive
from .segment import encoding_of


def join(
    job: Job,
    output: Path,
    *,
    overwrite: bool = False,
    otherwise: Callable[[Path], Path] | None = None,
    metadata: dict[str, str] | None = None,
    check_interrupt: CheckInterrupt = no_check,
    on_joined: Progress = no_progress,
) -> tuple[Path, list[str]]:
    """Writes the film, checks its frames and their times, then moves it to its final name. Returns that path and the warnings.

    Args:
        otherwise: as `open_sink`.

    Raises:
        VideoError: if a segment is not done, does not match its note, or was encoded differently from the others.
    """
    with JoinedSink(job, output, overwrite, otherwise, metadata, check_interrupt) as sink:
        for segment in job.segments:
            check_interrupt()
            sink.append(segment)
            on_joined(len(segment))
    assert sink.path is not None
    return sink.path, [*job.plan["warnings"], *sink.warnings]


class JoinedSink(VideoSink):
    """A sink whose video packets come from the segment files of a job."""

    def __init__(
        self,
        job: Job,
        output: Path,
        overwrite: bool,
        otherwise: Callable[[Path], Path] | None,
        metadata: dict[str, str] | None,
        check_interrupt: CheckInterrupt,
    ) -> None:
        source = job.source()
        self.job = job
        self.folder = output.absolute().parent
        self.delay = max(self.note(segment)["delay"] for segment in job.segments)
        self.template: Any = None
        how: dict[str, Any] = dict(overwrite=overwrite, otherwise=otherwise, check_interrupt=check_interrupt)
        encoding = replace(encoding_of(job, source.info), metadata=metadata or {})
        super().__init__(output, None, encoding, like=source.info, size=job.size(source.info), audio=source, time_base=None, **how)

    def note(self, segment: Segment) -> dict[str, Any]:
        note = self.job.done(segment)
        if note is None:
            raise VideoError(
                f"segment {segment.number} of {self.job.folder} is not done; restore it with: fvr segment {self.job.folder} {segment.number}"
            )
        return note

    def temporary(self) -> Path:
        """In the job's folder if that is on the film's disk, so that a killed join leaves nothing beside the film."""
        assert self.path is not None
        if self.path.is_dir() or (os.path.lexists(self.path) and not self.overwrite) or not self.folder.is_dir():
            return super().temporary()
        if self.job.folder.stat().st_dev != self.folder.stat().st_dev:
            return super().temporary()
        part = temporary_name(self.job.parts / "film")
        part.touch()
        return part

    def append(self, segment: Segment) -> None:
        """Copies the video packets of the next segment."""
        file = self.job.file(segment)
        order: Sequence[int] = self.note(segment).get("order") or range(len(segment))
        try:
            with self.opened(segment) as container:
                stream = picture_stream(container)
                if stream is None:
                    raise self.unlike_its_note(segment, "it holds no picture")
                self.begin(stream, file)
                packets = (packet for packet in container.demux(stream) if packet.size)
                for packet, number in zip(packets, order, strict=True):
                    self.copy(packet, segment.first + number)
        except VideoError:
            raise
        except (av.FFmpegError, ValueError) as error:
            raise self.unlike_its_note(segment, error) from error

    def opened(self, segment: Segment) -> Any:
        try:
            return open_input(str(self.job.file(segment)))
        except VideoError as error:
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            raise self.unlike_its_note(segment, ffmpeg_reason(cause)) from error

    def unlike_its_note(self, segment: Segment, reason: object) -> VideoError:
        """The error for a segment file damaged after it was finished."""
        held = f"does not hold the {counted(len(segment), 'frame')} that it should ({reason})"
        return VideoError(f"{self.job.file(segment)} {held}; remove it, and the same command makes it anew")

    def begin(self, stream: Any, file: Path) -> None:
        """Opens the film with the codec parameters of its first segment; raises VideoError if later ones differ."""
        kind = (stream.codec_context.name, stream.codec_context.extradata, stream.width, stream.height)
        if self.template is None:
            self.template, self.kind = stream, kind
            times = self.job.times(0, min(CHUNK, self.job.frames))
            with self.writing():
                self.open(times[:-1], times[1:])
        elif kind != self.kind:
            raise VideoError(
                f"{file} was encoded unlike the segments before it, by another version of an encoder perhaps; remove it, and restore it here"
            )

    def add_picture(self, rate: Fraction, tick: Fraction) -> Any:
        stream = self.output.add_stream_from_template(self.template)
        stream.time_base = tick
        stream.codec_context.framerate = rate.limit_denominator(1001)  # Matroska's header has it, beside what H.264 counts its ticks by
        return stream

    def tick_of(self, number: int) -> int:
        """Start of frame `number` (or end of the last one) in ticks of this file."""
        assert self.timeline is not None
        return round((self.job.time(number) - self.timeline.origin) / self.timeline.tick)

    def copy(self, packet: Any, number: int) -> None:
        """Writes the packet of frame `number`; its decoding time is the presentation time of the frame `delay` packets earlier."""
        assert self.timeline is not None
        timeline, tick = self.timeline, self.timeline.tick
        start, stop = self.tick_of(number), self.tick_of(number + 1)
        decoded = self.count - self.delay
        packet.time_base, packet.pts = tick, start
        frame = max(1, round(1 / self.rate / tick))
        packet.dts = self.tick_of(decoded) if decoded >= 0 else min(self.tick_of(0), start) + decoded * frame
        packet.stream = self.stream
        timeline.durations[start] = max(1, stop - start)
        if timeline.last is None or start > timeline.last[0]:
            timeline.last, timeline.stop = (start, self.job.time(number + 1)), max(stop, start + 1)
        with self.writing():
            self.mux([packet])
            self.count += 1
            for lane in self.lanes:
                lane.pump(start * tick)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Distinguishes errors in writing the film from errors in reading a segment."""
        try:
            yield
        except av.FFmpegError as error:
            raise self.refused(error, "written") from error

    @property
    def rate(self) -> Fraction:
        assert self.like is not None
        return self.like.rate

    def flush(self) -> None:
        """No encoder, so nothing to flush."""

    def finish(self, timeline: Timeline) -> None:
        if self.count != self.job.frames:
            raise VideoError(f"{self.job.folder} has {self.count} of {self.job.frames} frames; {self.name} was not written")
        super().finish(timeline)
        self.check(timeline.tick)

    def check(self, tick: Fraction) -> None:
        """Raises VideoError if the finished file does not show the planned frames at the planned times (Matroska and WebM: to the millisecond)."""
        assert self.part is not None
        near = tick if self.encoding.container in ("mp4", "mov") else Fraction(1, 1000) + tick
        with open_input(str(self.part)) as container:
            stream = picture_stream(container)
            base = Fraction(stream.time_base)
            found = sorted(packet.pts for packet in container.demux(stream) if packet.size)
        first = found[0] * base - self.tick_of(0) * tick if found else Fraction(0)
        wrong = (n for n, pts in enumerate(found) if abs(pts * base - first - self.tick_of(n) * tick) > near)
        if len(found) != self.job.frames or next(wrong, None) is not None:
            raise VideoError(f"{self.name} came out with {len(found)} frames at other times than the {self.job.frames} planned; nothing was written")


def is_joined(job: Job, output: Path) -> bool:
    """Whether `output` is the film that was joined from this job."""
    return last_joined(job) == output.resolve()


def last_joined(job: Job) -> Path | None:
    """The film that was joined from this job, if it is still there."""
    note = read_json(job.folder / "joined.json")
    if not note:
        return None
    path = Path(note["output"])
    try:
        return path if path.stat().st_size == note["bytes"] else None
    except FileNotFoundError:
        return None


def join_once(job: Job, output: Path, *, overwrite: bool = False, check_interrupt: CheckInterrupt = no_check, **how: Any) -> tuple[Path, list[str]]:
    """As `join`, but once only: waits for a join in progress, and records that it is done."""
    with exclusive(job.folder / "join.lease", None, check_interrupt):
        if is_joined(job, output):
            return output, job.plan["warnings"]
        for part in (*job.folder.glob(f"*{PART}"), *job.parts.glob(f"*{PART}")):  # what killed workers left
            with suppress(OSError):
                part.unlink()
        path, warnings = join(job, output, overwrite=overwrite, check_interrupt=check_interrupt, **how)
        write_json(job.folder / "joined.json", {"output": str(path.resolve()), "bytes": path.stat().st_size})
        return path, warnings
