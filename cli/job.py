"""`fvr job`: the progress of a job."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    p = commands.add_parser("job", help="show the progress of a job", description="Shows the progress of a job, also while workers run.")
    p.set_defaults(command=job)
    p.add_argument("folder", type=Path, metavar="DIR", help="the job")


def job(options: Namespace) -> int:
    from ..film.job import Job
    from ..film.status import status, status_text

    planned = Job.load(options.folder)
    print(status_text(planned, status(planned)))
    return 0
