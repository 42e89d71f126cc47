"""`fvr job`: how far a job is."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    p = commands.add_parser("job", help="show how far a job is", description="Shows how far a job is, also while others work on it.")
    p.set_defaults(command=job)
    p.add_argument("folder", type=Path, metavar="DIR", help="the job")


def job(options: Namespace) -> int:
    from ..film.job import Job
    from ..film.status import status, status_text

    planned = Job.load(options.folder)
    print(status_text(planned, status(planned)))
    return 0
