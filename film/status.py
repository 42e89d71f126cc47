"""The progress of a job, read from its folder."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from ..plurals import counted
from .job import ATTEMPTS, Job, Segment
from .lease import holder

RECENT = 20
"""Number of the latest segments, whose speed is assumed for the rest."""


@dataclass(frozen=True)
class Status:
    """The state of a job.

    Attributes:
        done: numbers of segments that are done.
        running: number of each running segment -> note of its lease's holder.
        failed: number of each abandoned segment -> its last error.
        retried: the same for failed segments still to be retried.
        frames, of: number of finished frames, and of all frames.
        speed: frames per second of one worker over the last segments; 0 if unknown.
        people: person id, finished frames, all frames, whether restored.
    """

    done: list[int] = field(default_factory=list)
    running: dict[int, dict[str, Any]] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    retried: dict[int, str] = field(default_factory=dict)
    frames: int = 0
    of: int = 0
    speed: float = 0.0
    people: list[tuple[int, int, int, bool]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Frames per second of all workers."""
        return self.speed * len(self.running)

    @property
    def left(self) -> float | None:
        """Estimated seconds left; None if no worker is running or the speed is unknown."""
        return (self.of - self.frames) / self.rate if self.rate else None


def status(job: Job) -> Status:
    """The current state of a job; reads a small file per segment."""
    done: list[Segment] = []
    notes: list[dict[str, Any]] = []
    running: dict[int, dict[str, Any]] = {}
    failed: dict[int, str] = {}
    retried: dict[int, str] = {}
    for segment in job.segments:
        if (note := job.done(segment)) is not None:
            done.append(segment)
            notes.append(note)
        elif (note := holder(job.lease(segment))) is not None:
            running[segment.number] = note
        elif failures := job.failures(segment):
            (failed if len(failures) >= ATTEMPTS else retried)[segment.number] = failures[-1]["error"]
    recent = sorted(notes, key=lambda note: note["ended"])[-RECENT:]
    seconds = sum(note["seconds"] for note in recent)
    speed = sum(note["frames"] for note in recent) / seconds if seconds else 0.0
    people = [
        (p.person, sum(max(0, min(p.stop, s.stop) - max(p.start, s.first)) for s in done), p.stop - p.start, p.selected) for p in job.people.people
    ]
    return Status([segment.number for segment in done], running, failed, retried, sum(map(len, done)), job.frames, speed, people)


def status_text(job: Job, now: Status) -> str:
    """The text of `fvr job`."""
    total = len(job.segments)
    lines = [
        f"{job.plan['place']}: {counted(job.frames, 'frame')} in {counted(total, 'segment')}",
        f"{len(now.done)} done, {len(now.running)} running, {len(now.failed)} failed",
        f"{now.frames:,} of {counted(now.of, 'frame')} ({now.frames / now.of:.0%})",
    ]
    if now.speed:
        speed = f"{now.rate or now.speed:.2f} frames/s" + ("" if now.running else " when last worked on")
        lines.append(speed + (f", {duration(now.left)} left" if now.left is not None and now.frames < now.of else ""))
    for number, note in now.running.items():
        since = duration(time.time() - note.get("since", time.time()))
        lines.append(f"segment {number} {span(job, number)}: process {note.get('process')} on {note.get('machine')}, for {since}")
    for number, sentence in now.failed.items():
        lines.append(f"segment {number} {span(job, number)} failed {ATTEMPTS} times: {sentence}")
    for number, sentence in now.retried.items():
        lines.append(f"segment {number} {span(job, number)} will be tried again: {sentence}")
    for person, done, of, selected in now.people:
        lines.append(f"person {person}: " + (f"{done:,} of {counted(of, 'frame')}" if selected else "left alone"))
    if now.done:
        lines.append(f"to look at: {job.file(job.segments[now.done[0]])}")
    return "\n".join(lines)


def span(job: Job, number: int) -> str:
    """The time range of a segment in the film, such as "(0:02:20 to 0:02:40)"."""
    segment = job.segments[number]
    return f"({duration(float(job.time(segment.first)))} to {duration(float(job.time(segment.stop)))})"


def duration(seconds: float) -> str:
    """A duration as text, such as 1:02:03."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
