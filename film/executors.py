"""Restores a job's segments one at a time under leases; workers share nothing but the job's folder."""

from __future__ import annotations

import errno
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..atomic import DISK_FULL
from ..models.device import CheckInterrupt, no_check
from ..pipeline import Progress, no_progress
from .files import write_json
from .job import ATTEMPTS, Job, Segment, Tools
from .lease import take
from .segment import restore_segment

POLL_INTERVAL = 0.5
"""Seconds between checks on other workers."""
Say = Callable[[str], None]
Stopping = Callable[[], bool]


def never() -> bool:
    """A `Stopping` that never asks to stop."""
    return False


class DiskFull(OSError):
    """The job's disk is full, so no worker can go on."""


def attempt(
    job: Job,
    segment: Segment,
    tools: Any,
    *,
    say: Say,
    attempts: int = ATTEMPTS,
    check_interrupt: CheckInterrupt = no_check,
    on_written: Progress = no_progress,
    restore: Callable[..., object] = restore_segment,
) -> bool:
    """Restores a segment under its lease; False if another worker holds it. Errors are recorded in the job's folder and reported.

    Args:
        attempts: maximum number of attempts, counting the failures on record.
        restore: called like `restore_segment`, with `tools`.

    Raises:
        DiskFull: if the job's disk has no room.
    """
    try:
        lease = take(job.lease(segment))
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(job) from error
        raise
    if lease is None:
        return False
    with lease:
        if lease.abandoned and job.done(segment) is None:
            who = f"process {lease.abandoned.get('process')} on {lease.abandoned.get('machine')}"
            note_failure(job, segment, f"{who} ended while it worked on it")
        if job.done(segment) is not None or len(job.failures(segment)) >= attempts:
            return True
        written = [0]

        def tick(frames: int) -> None:
            written[0] += frames
            on_written(frames)

        try:
            restore(job, segment, tools, check_interrupt=check_interrupt, on_written=tick)
        except (ValueError, OSError, RuntimeError) as error:
            on_written(-written[0])
            if is_disk_full(error):
                raise disk_full(job) from error
            note_failure(job, segment, str(error))
            say(f"segment {segment.number} failed ({len(job.failures(segment))} of {ATTEMPTS} attempts): {error}")
    return True


def note_failure(job: Job, segment: Segment, sentence: str) -> None:
    with suppress(OSError):
        write_json(job.parts / f"{segment.name}.failed-{secrets.token_hex(4)}.json", {"error": sentence, "time": time.time()})


def disk_full(job: Job) -> DiskFull:
    return DiskFull(errno.ENOSPC, f"the disk of {job.folder} is full; make room and give the same command again, what is done stays done")


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error or one of its causes is a full disk."""
    while error is not None:
        if getattr(error, "errno", None) in DISK_FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


def work(
    job: Job,
    tools: Callable[[], Tools],
    *,
    stopping: Stopping = never,
    say: Say = lambda text: None,
    check_interrupt: CheckInterrupt = no_check,
    on_written: Progress = no_progress,
    first: int | None = None,
) -> None:
    """Restores segments in this process, starting with `first`, until none is left or `stopping()` is true. Other workers may run alongside."""

    def try_one(segment: Segment) -> bool:
        return attempt(job, segment, tools(), say=say, check_interrupt=check_interrupt, on_written=on_written)

    work_loop(job, try_one, stopping, check_interrupt, first)


def work_loop(job: Job, try_one: Callable[[Segment], bool], stopping: Stopping, check_interrupt: CheckInterrupt, first: int | None = None) -> None:
    """Tries segments, `first` and then the longest, until none is left; waits while `try_one` returns False for all of them."""
    while not stopping():
        left = sorted(job.to_do(), key=lambda segment: segment.number != first)
        if not left:
            return
        for segment in left:
            if stopping():
                return
            if try_one(segment):
                break
        else:
            check_interrupt()
            time.sleep(POLL_INTERVAL)


def frames_done(job: Job) -> int:
    return sum(len(segment) for segment in job.segments if job.finished(segment))


def failed(job: Job) -> list[tuple[Segment, str]]:
    """Segments that used up their attempts, with their last errors."""
    gone = ((segment, job.failures(segment)) for segment in job.segments if job.done(segment) is None)
    return [(segment, note[-1]["error"]) for segment, note in gone if len(note) >= ATTEMPTS]


def failed_sentence(gone: list[tuple[Segment, str]]) -> str:
    segment, why = gone[0]
    others = f", and {len(gone) - 1} more" if len(gone) > 1 else ""
    return f"segment {segment.number} failed {ATTEMPTS} times ({why}){others}; what is done stays done, and the same command tries the rest again"
