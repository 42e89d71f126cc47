"""`fvr segment`: a worker for a job."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from functools import cache
from pathlib import Path
from typing import Any

from .film import graceful_interrupt


def add(commands: Any) -> None:
    p = commands.add_parser(
        "segment",
        help="restore segments of a job, as a worker",
        description="Restores segments of a job planned by `fvr restore --job`. Finished segments are skipped.",
    )
    p.set_defaults(command=segment)
    p.add_argument("folder", type=Path, metavar="DIR", help="the job")
    p.add_argument(
        "numbers", nargs="*", type=int, metavar="N", help="segments, counted from 0 (default: all unfinished ones that no other worker has)"
    )
    p.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")


def segment(options: Namespace) -> int:
    from .. import host
    from ..film.executors import Job

    if options.device:
        host.set_device(options.device)
    planned = Job.load(options.folder)
    wrong = [number for number in options.numbers if not 0 <= number < len(planned.segments)]
    if wrong:
        raise ValueError(f"{options.folder} has segments 0 to {len(planned.segments) - 1}, got {wrong[0]}")
    try:
        return restore_segments(options, planned)
    except (OSError, ValueError) as error:
        if planned.folder.exists():
            raise
        gone = f"{planned.folder} is gone; its film has been joined, or somebody has removed it"
        if options.numbers:
            raise ValueError(gone) from error
        host.say(gone)
        return 0


def restore_segments(options: Namespace, planned: Any) -> int:
    from .. import host
    from ..film.executors import attempt, failed, work
    from ..film.processes import orphaned
    from ..job_request import worker_tools

    tools = cache(lambda: worker_tools(planned))
    with graceful_interrupt(host.say) as stopping:
        common: dict[str, Any] = dict(say=host.say, check_interrupt=host.check_interrupt)
        if not options.numbers:
            work(planned, tools, stopping=lambda: stopping() or orphaned(), **common)
            return 130 if stopping() else 1 if failed(planned) else 0
        for number in options.numbers:
            part = planned.segments[number]
            while not planned.finished(part) and not stopping():
                if not attempt(planned, part, tools(), attempts=sys.maxsize, **common):
                    host.say(f"segment {number} is being restored by somebody else; waiting")
                    time.sleep(5)
                elif not planned.finished(part):
                    raise RuntimeError(f"segment {number} failed: {planned.failures(part)[-1]['error']}")
            if planned.finished(part):
                print(planned.file(part))
    return 130 if stopping() else 0
