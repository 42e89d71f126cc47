"""Frames of a film before and after its restoration, found by their times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from ..video import open_source
from .job import Job


def frames_with_faces(job: Job) -> Tensor:
    """Numbers of the frames with a restored face, in order."""
    seen = torch.zeros(job.frames, dtype=torch.bool)
    for track in job.tracks(0, job.frames):
        seen[track.start : track.stop] = True
    return seen.nonzero()[:, 0]


def pairs(job: Job, film: Path, numbers: Iterable[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Frames (3, H, W) with these numbers from the source and from the joined `film`. Frames that a damaged file cannot seek to are omitted."""
    begins = open_source(film).info.start
    for number in numbers:
        early, start, stop = (job.time(k) - job.time(0) for k in (max(number - 1, 0), number, number + 1))
        window = begins + (early + start) / 2, stop - (early + start) / 2
        before = next(job.range(number, number + 1).chunks(1), None)
        after = next(open_source(film, window=window).chunks(1), None)
        if before is not None and after is not None and before.starts[0] == job.time(number):
            yield before.frames[0], after.frames[0]
