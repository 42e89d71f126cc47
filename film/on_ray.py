"""Runs a job on Ray: one actor per GPU of a cluster keeps the networks loaded and restores segment after segment."""

from __future__ import annotations

import platform
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..models.device import CheckInterrupt, no_check
from ..pipeline import Progress, no_progress
from .executors import ATTEMPTS, Say, Stopping, attempt, never, note_failure
from .job import Job, Segment, Tools

WAIT = 1.0
"""Seconds between two checks of the cluster."""


def ray_here() -> Any:
    """The module `ray`. Raises ImportError with how to install it."""
    try:
        import ray
    except ImportError as error:
        raise ImportError('--ray needs Ray; install it with: pip install "face-video-restoration[ray]"') from error
    return ray


class Worker:
    """Runs in an actor; the job's folder must be on a disk shared by all machines."""

    def __init__(self, folder: str, tools: Callable[[Job], Tools]) -> None:
        self.job = Job.load(Path(folder))
        self.tools = tools(self.job)

    def restore(self, number: int) -> str:
        """Restores a segment; returns the machine's name, empty if another worker has it."""
        mine = attempt(self.job, self.job.segments[number], self.tools, say=lambda text: None)
        return platform.node() if mine else ""


def work_on_ray(
    job: Job,
    tools: Callable[[Job], Tools],
    address: str = "auto",
    *,
    workers: int | None = None,
    stopping: Stopping = never,
    say: Say = lambda text: None,
    check_interrupt: CheckInterrupt = no_check,
    on_written: Progress = no_progress,
    **options: Any,
) -> None:
    """Restores the remaining segments on a Ray cluster, longest first; an actor that dies loses only its segment.

    Args:
        tools: importable function that makes a job's tools on the actor's machine.
        address: of the cluster; "auto" uses the one running here, or starts one.
        workers: number of actors; None is one per GPU of the cluster, or per CPU if it has no GPU.
        options: passed to ray.init.
    """
    ray = ray_here()
    mine = not ray.is_initialized()
    if mine:
        options = {"log_to_driver": False, "include_dashboard": False, **options}
        if address == "auto":
            try:
                ray.init(address="auto", **{key: value for key, value in options.items() if not key.startswith(("num_", "include_"))})
            except ConnectionError:
                ray.init(**options)
        else:
            ray.init(address=address, log_to_driver=False)
    try:
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        count = min(workers or gpus or int(resources.get("CPU", 1)), max(1, len(job.to_do())))
        needs = {"num_gpus": 1, "num_cpus": 1} if gpus else {"num_cpus": 1}
        say(f"Ray: {count} {'actor' if count == 1 else 'actors'} on {len(ray.nodes())} {'machine' if len(ray.nodes()) == 1 else 'machines'}")
        Actor = ray.remote(**needs)(Worker)
        hand_out(ray, job, lambda: Actor.remote(str(job.folder.absolute()), tools), count, stopping, say, check_interrupt, on_written)
    finally:
        if mine:
            ray.shutdown()


def hand_out(
    ray: Any,
    job: Job,
    hire: Callable[[], Any],
    count: int,
    stopping: Stopping,
    say: Say,
    check_interrupt: CheckInterrupt,
    on_written: Progress,
) -> None:
    """Gives each free actor the next segment until all are done or given up."""
    waiting: deque[Segment] = deque(job.to_do())
    free = [hire() for _ in range(min(count, len(waiting)))]
    busy: dict[Any, tuple[Any, Segment]] = {}
    deaths = 0
    while busy or (waiting and not stopping()):
        while free and waiting and not stopping():
            actor, segment = free.pop(), waiting.popleft()
            busy[actor.restore.remote(segment.number)] = actor, segment
        ready, _ = ray.wait(list(busy), timeout=WAIT)
        check_interrupt()
        for reference in ready:
            actor, segment = busy.pop(reference)
            try:
                ray.get(reference)
            except ray.exceptions.RayActorError as error:
                deaths += 1
                sentence = str(error).strip().splitlines()[-1]
                note_failure(job, segment, f"its actor ended: {sentence}")
                say(f"an actor of Ray ended while it restored segment {segment.number}: {sentence}")
                if deaths >= ATTEMPTS * count:
                    raise RuntimeError(f"actors of Ray end one after the other and nothing gets done; the last one said: {sentence}") from error
                actor = hire()
            free.append(actor)
            if job.finished(segment):
                on_written(len(segment))
                deaths = 0
            elif len(job.failures(segment)) < ATTEMPTS:
                waiting.append(segment)
