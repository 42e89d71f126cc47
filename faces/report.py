"""What was found in a clip and what will be left alone, in a line and as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .selection import size
from .types import FaceTrack


@dataclass(frozen=True)
class PersonReport:
    """One track: frames [start, stop), how many of them were filled in, median face side in pixels, and whether it is restored."""

    person: int
    start: int
    stop: int
    filled_in: int
    size: float
    selected: bool


@dataclass(frozen=True)
class TrackReport:
    """frames = restored + no_face + too_small + not_selected: every frame is counted once, by the best that happens to it."""

    frames: int
    restored: int
    no_face: int
    too_small: int
    not_selected: int
    people: tuple[PersonReport, ...]

    @property
    def passed_through(self) -> int:
        """Frames in which no face is restored."""
        return self.frames - self.restored

    def to_text(self) -> str:
        """Such as "1,240 frames, 3 people, 87 frames passed through (no face: 60, too small: 20, not selected: 7)"."""
        people = len(self.people)
        head = f"{self.frames:,} {'frame' if self.frames == 1 else 'frames'}, {people:,} {'person' if people == 1 else 'people'}"
        if not self.passed_through:
            return f"{head}, faces restored in every frame" if self.frames else head
        reasons = (("no face", self.no_face), ("too small", self.too_small), ("not selected", self.not_selected))
        why = ", ".join(f"{name}: {count:,}" for name, count in reasons if count)
        return f"{head}, {self.passed_through:,} {'frame' if self.passed_through == 1 else 'frames'} passed through ({why})"

    def to_dict(self) -> dict[str, Any]:
        """The same for a JSON file."""
        return {
            "frames": self.frames,
            "restored": self.restored,
            "passed_through": {"total": self.passed_through, "no_face": self.no_face, "too_small": self.too_small, "not_selected": self.not_selected},
            "people": [
                {
                    "person": p.person,
                    "first_frame": p.start,
                    "last_frame": p.stop - 1,
                    "filled_in": p.filled_in,
                    "size": round(p.size, 1),
                    "selected": p.selected,
                }
                for p in self.people
            ],
        }


def report(tracks: Sequence[FaceTrack], selected: Sequence[FaceTrack], frame_count: int, min_size: float = 0) -> TrackReport:
    """Counts the frames of a clip by what happens to them.

    tracks: everybody. selected: those to be restored, as `select_tracks` chose them with `min_size`.
    """
    chosen = {track.person for track in selected}
    covered = {kind: torch.zeros(frame_count, dtype=torch.bool) for kind in ("restored", "not_selected", "too_small")}
    for track in tracks:
        kind = "restored" if track.person in chosen else "too_small" if size(track) < min_size else "not_selected"
        covered[kind][track.start : track.stop] = True
    restored = covered["restored"]
    not_selected = covered["not_selected"] & ~restored
    too_small = covered["too_small"] & ~restored & ~not_selected
    people = tuple(
        PersonReport(t.person, t.start, t.stop, int((~t.detected).sum()), size(t), t.person in chosen) for t in sorted(tracks, key=lambda t: t.person)
    )
    counts = [int(c.sum()) for c in (restored, too_small, not_selected)]
    return TrackReport(frame_count, counts[0], frame_count - sum(counts), counts[1], counts[2], people)
