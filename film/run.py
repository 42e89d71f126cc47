"""Runs a whole job in this process; shared by node and command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ..models.device import CheckInterrupt, no_check
from ..pipeline import Progress, Summary, no_progress
from ..video import FrameSource
from .executors import Say, failed, failed_sentence, frames_done, work
from .job import Job, Tools
from .join import join_once, last_joined
from .plan import plan


def run_job(
    folder: Path,
    source: FrameSource,
    tools: Tools,
    output: Path,
    *,
    planning: Mapping[str, Any],
    joining: Mapping[str, Any],
    say: Say,
    check_interrupt: CheckInterrupt = no_check,
    finds: Callable[[int], AbstractContextManager[Progress]] = lambda kept: nullcontext(no_progress),
    on_planned: Callable[[int, int], object] = lambda kept, of: None,
    on_written: Progress = no_progress,
) -> tuple[Summary, Path]:
    """Plans or resumes the job in `folder`, restores the remaining segments and joins them, unless that is done.

    Args:
        output: path of the film, unless it is joined already.
        planning, joining: further arguments of `plan` and `join`.
        on_planned: called before restoration with the number of finished frames and of all frames.

    Raises:
        ValueError: if anything differs from the plan.
        RuntimeError: if a segment failed three times, after all others are done.
    """
    job = plan(folder, source, tools, check_interrupt=check_interrupt, finds=finds, **planning)
    job.forgive()
    on_planned(frames_done(job), job.frames)
    work(job, lambda: tools, say=say, check_interrupt=check_interrupt, on_written=on_written)
    if gone := failed(job):
        raise RuntimeError(failed_sentence(gone))
    path, warnings = join_once(job, last_joined(job) or output, check_interrupt=check_interrupt, **joining)
    return summary_of(job, tools, warnings), path


def summary_of(job: Job, tools: Tools, warnings: list[str]) -> Summary:
    """Summary of a film whose segments are done; `seconds` is the sum over all workers."""
    notes = [job.done(segment) or {} for segment in job.segments]
    seconds = job.plan["seconds"] + sum(note.get("seconds", 0) for note in notes)
    said = dict.fromkeys(sentence for note in notes for sentence in note.get("notes", ()))  # the parts of a long shot say the same
    return Summary(job.frames, seconds, tools.restorer.name, job.people, tuple(warnings), tuple(said))
