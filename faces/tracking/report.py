"""Report of the people in a clip and of the frames that are restored or not, as text and as data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from ...plurals import counted
from ..compositing.strength import GATES
from ..geometry import side
from ..types import FaceTrack
from .people import median_side


@dataclass(frozen=True)
class PersonReport:
    """One person: first frame and the index after the last, numbers of frames, tracks and interpolated frames, median face side in pixels, whether
    at least one track is restored, remarks (see `marks`), and the number of occluded frames (see `covered`)."""

    person: int
    start: int
    stop: int
    filled_in: int
    size: float
    selected: bool
    frames: int = 0
    tracks: int = 1
    marks: tuple[str, ...] = ()
    covered: int = 0


@dataclass(frozen=True)
class TrackReport:
    """frames = restored + left_alone + no_face + too_small + not_selected; each frame counts once, for its best face.

    `left_alone` counts frames whose selected faces all stay unchanged, such as where gates close.
    """

    frames: int
    restored: int
    no_face: int
    too_small: int
    not_selected: int
    people: tuple[PersonReport, ...]
    left_alone: int = 0

    @property
    def passed_through(self) -> int:
        """Frames in which no face is restored."""
        return self.frames - self.restored

    def to_text(self, done: str = "restored") -> str:
        """Such as "1,240 frames, 3 people, 87 frames passed through (no face: 60, too small: 20, not selected: 7)".

        done: what happened to the faces.
        """
        head = f"{counted(self.frames, 'frame')}, {counted(len(self.people), 'person', 'people')}"
        doubtful = [str(p.person) for p in self.people if "unsure" in p.marks]
        if doubtful:
            head += f" ({', '.join(doubtful)} may be the same)"
        if not self.passed_through:
            return f"{head}, faces {done} in every frame" if self.frames else head
        reasons = (("no face", self.no_face), ("too small", self.too_small), ("not selected", self.not_selected), ("left as it was", self.left_alone))
        why = ", ".join(f"{name}: {count:,}" for name, count in reasons if count)
        return f"{head}, {counted(self.passed_through, 'frame')} passed through ({why})"

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return {
            "frames": self.frames,
            "restored": self.restored,
            "passed_through": {
                "total": self.passed_through,
                "no_face": self.no_face,
                "too_small": self.too_small,
                "not_selected": self.not_selected,
                "left_alone": self.left_alone,
            },
            "people": [
                {
                    "person": p.person,
                    "first_frame": p.start,
                    "last_frame": p.stop - 1,
                    "filled_in": p.filled_in,
                    "size": round(p.size, 1),
                    "selected": p.selected,
                    "frames": p.frames,
                    "tracks": p.tracks,
                    "marks": list(p.marks),
                    "covered": p.covered,
                }
                for p in self.people
            ],
        }


def report(
    tracks: Sequence[FaceTrack],
    selected: Sequence[FaceTrack],
    frame_count: int,
    min_size: float = 0,
    level: Callable[[FaceTrack], Tensor] | None = None,
) -> TrackReport:
    """Counts the frames of a clip by what happens to them.

    tracks: all tracks. selected: those to be restored, from `select_tracks` with `min_size`. level: gives a track's (N,) opacity per frame, such as
    `Paster.level`, where 0 leaves the face unchanged; None for 1 throughout.
    """
    chosen = set(selected)
    best = torch.zeros(frame_count, dtype=torch.long)  # per frame 0: no face, 1: too small, 2: not selected, 3: left alone, 4: restored
    for track in tracks:
        here = best[track.start : track.stop]
        if track in chosen:
            shown = torch.ones(len(here)) if level is None else level(track)[: len(here)]
            here.copy_(torch.maximum(here, 3 + (shown > 0).long()))
        else:
            here.clamp_(min=1 if median_side(track) < min_size else 2)
    no_face, too_small, not_selected, left_alone, restored = torch.bincount(best, minlength=5).tolist()
    people = tuple(person_report(some, chosen) for some in group_by_person(tracks))
    return TrackReport(frame_count, restored, no_face, too_small, not_selected, people, left_alone)


TINY = 24.0
"""Median side of a face in frame pixels below which it is marked as tiny."""
OFTEN = 0.1
"""Fraction of occluded frames from which a person is marked as covered."""
LYING = 45.0
"""Median roll in degrees from which a person is marked as rotated."""


def group_by_person(tracks: Sequence[FaceTrack]) -> list[list[FaceTrack]]:
    """Tracks grouped by person, ordered by id, then by time."""
    people: dict[int, list[FaceTrack]] = {}
    for track in sorted(tracks, key=lambda t: (t.person, t.start)):
        people.setdefault(track.person, []).append(track)
    return list(people.values())


def person_report(tracks: Sequence[FaceTrack], chosen: Collection[FaceTrack]) -> PersonReport:
    """Report of one person's tracks; `chosen` are the restored ones."""
    return PersonReport(
        person=tracks[0].person,
        start=min(track.start for track in tracks),
        stop=max(track.stop for track in tracks),
        filled_in=sum(int((~track.detected).sum()) for track in tracks),
        size=float(side(torch.cat([track.boxes for track in tracks])).median()),
        selected=any(track in chosen for track in tracks),
        frames=sum(len(track) for track in tracks),
        tracks=len(tracks),
        marks=marks(tracks),
        covered=covered(tracks),
    )


def covered(tracks: Sequence[FaceTrack]) -> int:
    """Number of frames in which occlusion lowers the strength at the default gates."""
    return sum(int((track.covered > GATES.occlusion[1]).sum()) for track in tracks if track.covered is not None)


def marks(tracks: Sequence[FaceTrack]) -> tuple[str, ...]:
    """Remarks about a person: "rotated" (lying or upside down), "tiny", "covered" (often occluded), "unsure" (may be the same as another
    person of the clip)."""
    linear = torch.cat([track.matrices for track in tracks])[:, :, :2].double()
    turn = torch.rad2deg(torch.atan2(linear[:, 1, 0] - linear[:, 0, 1], linear[:, 0, 0] + linear[:, 1, 1])).abs().median()
    small = side(torch.cat([track.boxes for track in tracks])).median()
    found = {
        "rotated": float(turn) > LYING,
        "tiny": float(small) < TINY,
        "covered": covered(tracks) >= max(OFTEN * sum(map(len, tracks)), 1),
        "unsure": any(track.unsure for track in tracks),
    }
    return tuple(name for name, is_so in found.items() if is_so)


def clock(starts: Sequence[Fraction]) -> Callable[[int], str]:
    """Formats a frame index as its time, such as "1:02.5"; `starts` are the frames' times in seconds."""

    def time_of(frame: int) -> str:
        minutes, seconds = divmod(round(10 * starts[frame]), 600)
        return f"{minutes}:{seconds / 10:04.1f}"

    return time_of


def table(tracks: Sequence[FaceTrack], time_of: Callable[[int], str]) -> str:
    """One line per person for a terminal: id, frames, tracks, first time, face size, marks. time_of: formats a frame index."""
    rows = [("person", "frames", "tracks", "first seen", "face", "")]
    for some in group_by_person(tracks):
        p = person_report(some, ())
        rows.append((str(p.person), f"{p.frames:,}", str(p.tracks), time_of(p.start), f"{p.size:.0f} px", ", ".join(p.marks)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
