"""Runs a job in several local processes, one per GPU if there are any; used by the command line only, as nodes start no processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from ..models.device import CheckInterrupt, no_check
from ..pipeline import Progress, no_progress
from .executors import POLL_INTERVAL, Say, Stopping, frames_done, never
from .job import ATTEMPTS, Job

Worker = subprocess.Popen[bytes]
PARENT_VARIABLE = "FVR_WORKER_OF"
"""Environment variable with the process that a worker works for; the worker ends with it."""


def work_in_processes(
    job: Job,
    workers: int,
    *,
    arguments: Sequence[str] = (),
    ready: dict[int, Worker] | None = None,
    stopping: Stopping = never,
    say: Say = lambda text: None,
    check_interrupt: CheckInterrupt = no_check,
    on_written: Progress = no_progress,
) -> None:
    """Restores the remaining segments in `workers` processes of this machine, each on its own GPU if there are any.

    A process that dies is replaced, unless several die in a row without finishing a segment. On a stop request they finish their segments; an
    interrupt of this process interrupts them too.

    Args:
        arguments: further arguments of `fvr segment`.
        ready: processes of `prestarted_workers` by index; removed from it once they work.
    """
    ready = {} if ready is None else ready
    running: dict[int, Worker] = {}
    seen = frames_done(job)
    deaths = 0
    signalled = False
    try:
        while True:
            left = job.to_do()
            for place in range(min(workers, len(left)) if not stopping() else 0):
                if place not in running and deaths < ATTEMPTS * workers:
                    running[place] = wake(ready.pop(place)) if place in ready else start_worker(job.folder, place, workers, arguments)
            if stopping() and not signalled:
                signalled = True
                for process in running.values() if os.name == "posix" else ():  # Windows' console has told them itself
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
            time.sleep(POLL_INTERVAL)
    finally:
        terminate(running.values())


def terminate(processes: Collection[Worker]) -> None:
    for process in processes:
        with suppress(OSError):
            process.terminate()
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)


@contextmanager
def prestarted_workers(folder: Path, workers: int, arguments: Sequence[str] = ()) -> Iterator[dict[int, Worker]]:
    """Processes by index for `work_in_processes`, which import their modules, most of the start-up time, while the job is planned.

    Unused ones are terminated on leaving the context.
    """
    ready: dict[int, Worker] = {}
    try:
        for place in range(workers):
            ready[place] = start_worker(folder, place, workers, arguments, waiting=True)
        yield ready
    finally:
        terminate(ready.values())


def wake(process: Worker) -> Worker:
    """Makes a prestarted process begin its work."""
    assert process.stdin is not None
    with suppress(OSError):  # it died: so it is found
        process.stdin.write(b"\n")
        process.stdin.close()
    return process


def start_worker(folder: Path, place: int, workers: int, arguments: Sequence[str] = (), *, waiting: bool = False) -> Worker:
    """Starts a process that restores segments until none is left. With `waiting` it imports its modules and waits for `wake`."""
    package = __name__.rpartition(".film.")[0]
    code = f"import sys; from {package}.cli import main; sys.exit(main())"
    if waiting:
        imports = f"import sys, {package}.film.executors, {package}.job_request; from {package}.cli import main"
        code = f"{imports}; sys.stdin.buffer.readline() and sys.exit(main())"
    environment = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
    if torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = [name for name in visible.split(",") if name] or [str(number) for number in range(torch.cuda.device_count())]
        environment["CUDA_VISIBLE_DEVICES"] = names[place % len(names)]
    else:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    command = [sys.executable, "-c", code, "segment", str(folder), *arguments]
    stdin = subprocess.PIPE if waiting else None
    return subprocess.Popen(command, env=environment, stdin=stdin, stdout=subprocess.DEVNULL, start_new_session=os.name == "posix")


def orphaned() -> bool:
    """Whether the process that started this worker has ended."""
    return PARENT_VARIABLE in os.environ and os.environ[PARENT_VARIABLE] != str(os.getppid())


def workers_for(text: str) -> int:
    """Number of workers for `--workers`: a number (0 for none) or "auto", one per local GPU and at least one. Else ValueError."""
    if text == "auto":
        return max(1, torch.cuda.device_count() if torch.cuda.is_available() else 1)
    if not text.isdecimal():
        raise ValueError(f'--workers is a number or "auto", got {text!r}')
    return int(text)
