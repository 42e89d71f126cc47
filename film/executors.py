"""Who restores the segments of a job, and where: this process, one process per GPU, or Ray. None of them knows more than the job's folder."""

from __future__ import annotations

import errno
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from ..models.device import CheckInterrupt, no_check
from ..pipeline import Progress, no_progress
from .files import write_json
from .lease import take
from .plan import ATTEMPTS, Job, Segment, Tools
from .segment import restore_segment

PAUSE = 0.5
"""Seconds between two looks at what others do."""
PARENT = "FVR_WORKER_OF"
"""Environment variable with the process that a worker works for; the worker ends with it."""

Say = Callable[[str], None]
Stopping = Callable[[], bool]


def never() -> bool:
    """Nobody asks to stop."""
    return False


class DiskFull(OSError):
    """No segment can be written, whoever tries."""


def attempt(
    job: Job,
    segment: Segment,
    tools: Tools,
    *,
    say: Say,
    attempts: int = ATTEMPTS,
    check_interrupt: CheckInterrupt = no_check,
    on_written: Progress = no_progress,
) -> bool:
    """Restores a segment that nobody else works on; False if somebody does. What goes wrong is noted in the folder and said.

    Args:
        attempts: how many there may be, those noted included.

    Raises:
        DiskFull: if the job's disk has no room.
    """
    try:
        lease = take(job.lease(segment))
    except OSError as error:
        if disk_is_full(error):
            raise full(job) from error
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
            restore_segment(job, segment, tools, check_interrupt=check_interrupt, on_written=tick)
        except (ValueError, OSError, RuntimeError) as error:
            on_written(-written[0])
            if disk_is_full(error):
                raise full(job) from error
            note_failure(job, segment, str(error))
            say(f"segment {segment.number} failed ({len(job.failures(segment))} of {ATTEMPTS} attempts): {error}")
    return True


def note_failure(job: Job, segment: Segment, sentence: str) -> None:
    with suppress(OSError):
        write_json(job.parts / f"{segment.name}.failed-{secrets.token_hex(4)}.json", {"error": sentence, "time": time.time()})


def full(job: Job) -> DiskFull:
    return DiskFull(errno.ENOSPC, f"the disk of {job.folder} is full; make room and give the same command again, what is done stays done")


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is that of a full disk."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
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
    first: Iterable[int] = (),
) -> None:
    """Restores what is to do in this process, beside whoever else does, until nothing is left or `stopping` says so.

    Args:
        first: numbers of segments to begin with.
    """
    order = {number: place for place, number in enumerate(first)}
    while not stopping():
        left = sorted(job.to_do(), key=lambda segment: order.get(segment.number, len(order)))
        if not left:
            return
        for segment in left:
            if stopping():
                return
            if attempt(job, segment, tools(), say=say, check_interrupt=check_interrupt, on_written=on_written):
                break
        else:
            check_interrupt()
            time.sleep(PAUSE)


def work_in_processes(
    job: Job,
    workers: int,
    *,
    arguments: Sequence[str] = (),
    stopping: Stopping = never,
    say: Say = lambda text: None,
    check_interrupt: CheckInterrupt = no_check,
    on_written: Progress = no_progress,
) -> None:
    """Restores what is to do in `workers` processes of this machine, each on a GPU of its own if there are any.

    A process that dies is replaced, unless they die one after the other and nothing gets done. Asked to stop, they finish their segments; if this
    one is made to stop, so are they.

    Args:
        arguments: further ones of `fvr segment`.
    """
    running: dict[int, subprocess.Popen[bytes]] = {}
    seen = frames_done(job)
    deaths = 0
    signalled = False
    try:
        while True:
            left = job.to_do()
            for place in range(min(workers, len(left)) if not stopping() else 0):
                if place not in running and deaths < ATTEMPTS * workers:
                    running[place] = start_worker(job.folder, place, workers, arguments)
            if stopping() and not signalled:
                signalled = True
                for process in running.values():
                    process.send_signal(signal.SIGINT)
            for place, process in list(running.items()):
                if process.poll() is not None:
                    del running[place]
                    deaths += process.returncode != 0
            now = frames_done(job)
            on_written(now - seen)
            deaths = deaths if now == seen else 0
            seen = now
            if not running and (not left or stopping() or deaths >= ATTEMPTS * workers):
                return
            check_interrupt()
            time.sleep(PAUSE)
    finally:
        for process in running.values():
            with suppress(OSError):
                process.terminate()
        for process in running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)


def frames_done(job: Job) -> int:
    return sum(len(segment) for segment in job.segments if job.finished(segment))


def start_worker(folder: Path, place: int, workers: int, arguments: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """A process that restores segments until none is left. What it has to say goes where this process's words go."""
    package = __name__.rpartition(".film.")[0]
    code = f"import sys; from {package}.cli import main; sys.exit(main())"
    environment = {**os.environ, PARENT: str(os.getpid())}
    if torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = [name for name in visible.split(",") if name] or [str(number) for number in range(torch.cuda.device_count())]
        environment["CUDA_VISIBLE_DEVICES"] = names[place % len(names)]
    else:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    command = [sys.executable, "-c", code, "segment", str(folder), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=os.name == "posix")


def orphaned() -> bool:
    """Whether this process works for one that is gone."""
    return PARENT in os.environ and os.environ[PARENT] != str(os.getppid())


def workers_for(text: str) -> int:
    """Of `--workers`: a number, 0 for none, or "auto", one for each GPU here and one without any.

    Raises:
        ValueError: for anything else.
    """
    if text == "auto":
        return max(1, torch.cuda.device_count() if torch.cuda.is_available() else 1)
    if not text.isdecimal():
        raise ValueError(f'--workers is a number or "auto", got {text!r}')
    return int(text)


def failed(job: Job) -> list[tuple[Segment, str]]:
    """Segments that were given up, with what went wrong last."""
    gone = ((segment, job.failures(segment)) for segment in job.segments if job.done(segment) is None)
    return [(segment, note[-1]["error"]) for segment, note in gone if len(note) >= ATTEMPTS]


def failed_sentence(job: Job, gone: list[tuple[Segment, str]]) -> str:
    segment, why = gone[0]
    others = f", and {len(gone) - 1} more" if len(gone) > 1 else ""
    return f"segment {segment.number} failed {ATTEMPTS} times ({why}){others}; all others are done, and the same command tries it again"
