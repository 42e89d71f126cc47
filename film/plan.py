"""Plans a job: one pass over the film finds shots and faces and divides it into segments."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import PART, atomic_file
from ..faces import Detector, reference_identity, report, select_tracks
from ..models.device import CheckInterrupt, no_check
from ..pipeline import CHUNK, Progress, follow_faces, no_progress
from ..video import FrameSource, ShotCutDetector
from .checks import check_picture, check_same, input_as_planned, moved_to, picture_digest
from .files import content_digest, fingerprint, write_json
from .first_pass import FirstPass
from .job import FORMAT, JOB_FILES, Job, Tools
from .lease import exclusive
from .tracks import save_tracks

SEGMENT_SECONDS = 20.0
"""Default maximum length of a segment."""


def plan(
    folder: Path,
    source: FrameSource,
    tools: Tools,
    *,
    identity: Mapping[str, Any],
    request: Mapping[str, Any],
    selection: Mapping[str, Any],
    encoding: Mapping[str, Any],
    seed: int = 0,
    faces: str = "all",
    min_size: float = 0.0,
    seconds: float | None = None,
    check_interrupt: CheckInterrupt = no_check,
    finds: Callable[[int], AbstractContextManager[Progress]] = lambda kept: nullcontext(no_progress),
) -> Job:
    """The job in `folder`; if it has no plan yet, one pass over the film makes it.

    Args:
        identity: JSON values that must not change between runs, such as version, settings and weights.
        request: from which a worker makes its `tools`; stored as it is.
        selection: "start", "count", "stride", "rate" and "deinterlace", as `source` was opened with.
        encoding: "codec", "crf", "pixel_format" and "container" of the film.
        faces, min_size: as `restore_clip_in_frames`.
        seconds: maximum length of a segment; None is `SEGMENT_SECONDS`, or the value in the plan.
        finds: opens the progress of the pass; called with the number of frames that an interrupted run had done.

    Raises:
        ValueError: naming what differs from the plan.
    """
    if seconds is not None and not seconds > 0:
        raise ValueError(f"a segment lasts more than 0 seconds, got {seconds:g}")
    whole = json.loads(json.dumps({**identity, "input": fingerprint(source.place)}))
    make_folder(folder)
    with exclusive(folder / "plan.lease", folder / "job.json", check_interrupt):
        if (folder / "job.json").exists():
            job = Job.load(folder)
            whole["segment_seconds"] = job.plan["identity"]["segment_seconds"] if seconds is None else seconds
            whole["input"] = input_as_planned(job, whole["input"], source.place, check_interrupt)
            check_same(job, whole, selection, encoding)
            check_picture(job, faces)
            return moved_to(job, source.place)
        picture, like, cuts = picture_digest(faces), reference_identity(faces), ShotCutDetector()
        with FirstPass(folder, source, cuts, finding(whole, selection, tools.detector)) as state, finds(state.frames) as on_found:
            timed = TimesRecorder(source, state.frames, check_interrupt)
            tracks = follow_faces(
                timed,
                tools.detector,
                cuts=cuts,
                check_interrupt=state.before_each(check_interrupt),
                on_frame=on_found,
                first=state.frames,
                keep=state.store.keep,
                resume=state.resume,
            )
            chosen = select_tracks(tracks, faces, min_size, like)
            tick, ticks = timed.ticks()
            save_tracks(folder / "tracks.safetensors", chosen)
            people = asdict(report(tracks, chosen, len(ticks) - 1, min_size, tools.paster.level))
        with atomic_file(folder / "times.npy") as part, part.open("wb") as file:
            np.save(file, ticks)
        whole["segment_seconds"] = seconds or SEGMENT_SECONDS
        ranges = segment_ranges(cuts.found, ticks, tick, seconds or SEGMENT_SECONDS, source.chunk_size(CHUNK))
        exact = tools.restorer.warm_up.exact or all(first == 0 or first in cuts.found for first, _ in ranges)
        content = {
            "format": FORMAT,
            "identity": whole,
            "place": str(Path(str(source.place)).absolute()),
            "content": content_digest(source.place, check_interrupt),
            "request": dict(request),
            "selection": dict(selection),
            "encoding": dict(encoding),
            "seed": seed,
            "picture": picture,
            "scale": tools.paster.scale,
            "frames": len(ticks) - 1,
            "tick": str(tick),
            "segments": [
                {"first": first, "stop": stop, "start": str(int(ticks[first]) * tick), "end": str(int(ticks[stop]) * tick)} for first, stop in ranges
            ],
            "warm_up": asdict(tools.restorer.warm_up),
            "exact": exact,
            "people": people,
            "warnings": list(source.warnings),
            "seconds": round(state.elapsed, 3),
        }
        write_json(folder / "job.json", content)
        return Job.load(folder)


def finding(identity: Mapping[str, Any], selection: Mapping[str, Any], detector: Detector) -> dict[str, Any]:
    """The settings that affect detection: faces found so far are reused if only others change, such as the method or the people to restore."""
    return {
        "input": identity["input"],
        "selection": selection,
        "version": identity.get("version"),
        "detector": [detector.name, getattr(detector, "rotate", None)],
        "weights": [file for file in identity.get("weights", ()) if file["used_by"] == "detector"],
    }


def make_folder(folder: Path) -> None:
    """Creates a job's folder if needed. Raises ValueError for a file, a folder with other files, or a folder that cannot be created."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, and a job is a folder; choose another name")
    others = [path.name for path in folder.iterdir() if path.name not in JOB_FILES and not path.name.endswith(PART)] if folder.is_dir() else []
    if others and not (folder / "job.json").exists():
        raise ValueError(f"{folder} holds other files ({min(others)}) and no job; choose another folder")
    try:
        (folder / "segments").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{folder} cannot be made ({error.strerror or error}); name a folder for the job that may be written") from error


class TimesRecorder(FrameSource):
    """A source that records the times of its frames, 16 bytes each, and delivers all but the first `skipped`."""

    def __init__(self, source: FrameSource, skipped: int, check_interrupt: CheckInterrupt) -> None:
        self.source, self.skipped, self.check_interrupt = source, skipped, check_interrupt
        self.place, self.info, self.selection, self.warnings = source.place, source.info, source.selection, source.warnings
        self.numerators, self.denominators = array("q"), array("q")
        self.last = Fraction(0)

    def numbered(self) -> Iterator[Any]:
        return self.source.numbered()

    def timed(self) -> Iterator[Any]:
        del self.numerators[:], self.denominators[:]
        for item in self.source.timed():
            self.numerators.append(item[0].numerator)
            self.denominators.append(item[0].denominator)
            self.last = item[1]
            if len(self.numerators) > self.skipped:
                yield item
            else:
                self.check_interrupt()

    def ticks(self) -> tuple[Fraction, np.ndarray]:
        """The tick in seconds, and the starts of all frames and the end in ticks, (n + 1,) int64."""
        per_second = math.lcm(self.last.denominator, *set(self.denominators))
        starts = np.fromiter(
            (n * (per_second // d) for n, d in zip(self.numerators, self.denominators, strict=True)), np.int64, count=len(self.numerators)
        )
        return Fraction(1, per_second), np.append(starts, int(self.last * per_second))


def segment_ranges(cuts: Sequence[int], ticks: np.ndarray, tick: Fraction, seconds: float, chunk: int) -> list[tuple[int, int]]:
    """Consecutive frame ranges [first, stop) that cover all frames.

    They begin at shot cuts. Shots that follow each other share one as long as they last at most `seconds` together; a longer shot is cut into
    parts about equal, at multiples of `chunk`, by which they may be longer.
    """
    limit = seconds / float(tick)
    borders = sorted({0, len(ticks) - 1, *cuts})
    ranges: list[tuple[int, int]] = []
    begun = 0
    for first, stop in pairwise(borders):
        if ticks[stop] - ticks[begun] <= limit:
            continue
        if begun < first:
            ranges.append((begun, first))
        begun = first
        parts = math.ceil(float(ticks[stop] - ticks[first]) / limit)
        if parts > 1:
            inner = {round((first + (stop - first) * part / parts) / chunk) * chunk for part in range(1, parts)}
            ranges += pairwise([first, *sorted(edge for edge in inner if first < edge < stop), stop])
            begun = stop
    return [*ranges, (begun, borders[-1])] if begun < borders[-1] else ranges
