"""Restores and encodes one segment of a job: atomic, and the same bytes from any worker."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..atomic import atomic_file
from ..models.device import CheckInterrupt, no_check
from ..pipeline import CHUNK, Progress, Walk, no_progress, session_start
from ..video import FrameChunk, SourceInfo, VideoError, VideoSink, choose_codec
from ..video.overlap import WriteBehind, read_ahead
from ..video.writing.writer import Encoding
from .files import write_json
from .job import Job, Segment, Tools


class OutOfStep(VideoError):
    """The decoded frames are not those of the plan."""


def restore_segment(
    job: Job, segment: Segment, tools: Tools, *, check_interrupt: CheckInterrupt = no_check, on_written: Progress = no_progress
) -> dict:
    """Restores a segment unless it is done; returns its note. Raises VideoError if the film's frames differ from the plan."""
    done = job.done(segment)
    if done is not None:
        return done
    try:
        return restore_anew(job, segment, tools, True, check_interrupt, on_written)
    except OutOfStep:  # a damaged file may decode to other frames where it is entered in the middle
        return restore_anew(job, segment, tools, False, check_interrupt, on_written)


def restore_anew(job: Job, segment: Segment, tools: Tools, seek: bool, check_interrupt: CheckInterrupt, on_written: Progress) -> dict:
    """As `restore_segment`, locating frames by time (`seek`) or by counting from the film's start."""
    began = time.monotonic()
    note = {"frames": len(segment), "times": job.checksum(segment)}
    with atomic_file(job.file(segment)) as part:
        note |= write_segment(job, segment, tools, part, seek, check_interrupt, on_written)
        note |= {"bytes": part.stat().st_size, "seconds": round(time.monotonic() - began, 3), "ended": time.time(), "machine": platform.node()}
    write_json(job.parts / f"{segment.name}.json", note)
    return note


def write_segment(
    job: Job, segment: Segment, tools: Tools, part: Path, seek: bool, check_interrupt: CheckInterrupt, on_written: Progress
) -> dict[str, Any]:
    """Writes the frames of a segment into `part`; returns `SegmentSink.order` and the restorers' notes."""
    tracks = job.tracks(segment.first, segment.stop)
    begin = min([segment.first, *(session_start(track, tools.restorer, segment.first) for track in tracks)])
    stop = max([segment.stop, *(min(track.stop, job.frames) for track in tracks)])
    source = job.range(begin, stop, seek=seek)
    times = job.times(segment.first, segment.stop)
    with SegmentSink(part, source.info, job) as sink:
        with closing(read_ahead(checked(source.chunks(CHUNK, begin), job))) as pieces, WriteBehind(sink.write) as write:
            heard = write.heard(check_interrupt)
            walk = Walk(tracks, tools.restorer, tools.paster, seed=job.plan["seed"], first=segment.first, check_interrupt=heard)
            frames = 0
            for piece in pieces:
                check_interrupt()
                for done in walk.push(piece):
                    kept = min(segment.stop - done.index, len(done))
                    if kept <= 0:
                        continue
                    here = slice(done.index - segment.first, done.index - segment.first + kept)
                    write(done.frames[:kept], times[here], times[here.start + 1 : here.stop + 1], done.stored[:kept])
                    tools.on_frames(done.frames[:kept])
                    on_written(kept)
                    frames += kept
                if frames == len(segment):
                    break
        if sink.count != len(segment):
            raise OutOfStep(f"{source.describe()} ended after {sink.count} of the {len(segment)} frames of segment {segment.number}")
    return {**sink.order(), **({"notes": walk.notes} if walk.notes else {})}


def checked(pieces: Iterator[FrameChunk], job: Job) -> Iterator[FrameChunk]:
    """The chunks, checked against the planned times; raises OutOfStep for the first frame that differs."""
    for piece in pieces:
        planned = job.times(piece.index, piece.index + len(piece))[: len(piece)]
        for number, (start, expected) in enumerate(zip(piece.starts, planned, strict=True), piece.index):
            if start != expected:
                raise OutOfStep(
                    f"frame {number} of {job.plan['place']} is shown at {float(start):.6f} s and was planned for {float(expected):.6f} s; "
                    "the clip is not the one that was planned, or it is damaged there"
                )
        yield piece


class SegmentSink(VideoSink):
    """Writes a segment's video stream alone; the caller publishes the file. All segments of a film are encoded alike."""

    def __init__(self, part: Path, info: SourceInfo, job: Job) -> None:
        self.indices: list[int] = []
        super().__init__(part, None, encoding_of(job, info), like=info, size=job.size(info), audio=None, time_base=job.tick, overwrite=True)

    def temporary(self) -> Path:
        assert self.path is not None
        self.path.touch()
        return self.path

    def zero(self, start: Fraction) -> Fraction:
        """The first frame's start, so that all segments use the job's tick: encoders write it into headers that must be equal."""
        return start

    def add_companions(self, start: Fraction, origin: Fraction) -> None:
        """Adds nothing: chapters, subtitles and timecode are added when the segments are joined."""

    @property
    def tags(self) -> dict[str, str]:
        return {}

    def muxer_options(self, tick: Fraction) -> dict[str, str]:
        """Bit-exact: without random identifiers."""
        return {**super().muxer_options(tick), "fflags": "+bitexact"}

    def publish(self, part: Path) -> Path:
        """Left to the caller."""
        return part

    def mux(self, packets: Sequence[Any]) -> None:
        self.indices += [packet.pts for packet in packets]
        super().mux(packets)

    def order(self) -> dict[str, Any]:
        """ "delay": the decoder's reordering delay in frames; "order": the frame numbers in decoding order, if not 0, 1, 2..."""
        if len(self.indices) != self.count:
            raise VideoError(
                f"{self.encoding.codec.name} wrote {len(self.indices)} packets for {self.count} frames, which cannot be joined; use another codec"
            )
        rank = {tick: number for number, tick in enumerate(sorted(self.indices))}
        numbers = [rank[tick] for tick in self.indices]
        delay = max(place - number for place, number in enumerate(numbers))
        return {"delay": delay} if all(one < other for one, other in pairwise(numbers)) else {"delay": delay, "order": numbers}


def encoding_of(job: Job, info: SourceInfo) -> Encoding:
    """The video encoding of a film and of its segments."""
    note = job.plan["encoding"]
    codec, pixels = choose_codec(note["codec"], note["container"], note["pixel_format"], note["crf"], None, info)
    return Encoding(codec, note["container"], pixels, note["crf"])
