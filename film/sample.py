"""A sample restored before the rest of the film: a few seconds around the face hardest to restore."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import torch

from ..atomic import atomic_file
from ..faces import FaceTrack
from ..faces.geometry import side
from ..models.device import CheckInterrupt, no_check
from ..pipeline import CHUNK, Progress, no_progress
from .job import Job, Segment, Tools
from .segment import write_segment


def hardest(tracks: list[FaceTrack]) -> tuple[FaceTrack, int]:
    """The track with the smallest product of face size in pixels and sharpness, and its frame. Raises ValueError if no face is restored."""
    if not tracks:
        raise ValueError("no face of this film is restored, so there is none to try first; choose others with --faces or --min-size")

    def least(track: FaceTrack) -> tuple[float, int]:
        telling = torch.where(track.detected, side(track.boxes) * (0.1 + track.sharpness), torch.inf)
        return float(telling.min()), track.start + int(telling.argmin())

    track = min(tracks, key=least)
    return track, least(track)[1]


def sample_range(job: Job, seconds: float, chunk: int) -> Segment:
    """Frames of about `seconds` around the hardest face, within its shot and starting at a multiple of `chunk`."""
    track, frame = hardest(job.tracks(0, job.frames))
    first, stop = track.shot or (track.start, track.stop)
    stop = min(stop, job.frames)
    half = round(Fraction(seconds) / 2 / job.tick)
    near = job.ticks[first : stop + 1] - job.ticks[frame]
    begin = first + int((near < -half).sum())
    end = first + max(int((near[:-1] <= half).sum()), 1)
    if begin > first:
        begin = max(first, begin // chunk * chunk)
    return Segment(-1, begin, max(end, begin + 1))


def restore_sample(job: Job, tools: Tools, seconds: float, *, check_interrupt: CheckInterrupt = no_check, on_written: Progress = no_progress) -> Path:
    """Restores the frames of `sample_range` into a file in the job's folder, without sound, and returns its path."""
    segment = sample_range(job, seconds, job.source().chunk_size(CHUNK))
    file = job.folder / f"test{job.file(segment).suffix}"
    with atomic_file(file) as part:
        write_segment(job, segment, tools, part, True, check_interrupt, on_written)
    return file
