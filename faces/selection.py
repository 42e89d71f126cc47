"""Whom to restore, in words that also work in API prompts."""

from __future__ import annotations

from collections.abc import Sequence

from .geometry import area, side
from .types import FaceTrack


def select_tracks(tracks: Sequence[FaceTrack], which: str = "all", min_size: float = 0) -> list[FaceTrack]:
    """Tracks by `which`: "all"; "largest", at most one person at a time, the one with the largest total area; or ids such as "0,2".

    min_size: tracks whose median face (square root of its box's area) is smaller than this many frame pixels are left out.

    Raises:
        ValueError: for an id that is not in the clip, or words that are none of these.
    """
    word = which.strip().lower()
    large = [track for track in tracks if size(track) >= min_size]
    if word == "all":
        return large
    if word == "largest":
        return largest(large)
    wanted = ids(which)
    known = {track.person for track in tracks}
    unknown = sorted(wanted - known)
    if unknown:
        people = f"persons {', '.join(map(str, sorted(known)))}" if known else "nobody"
        raise ValueError(f"no person {', '.join(map(str, unknown))} in this clip, which shows {people}; choose among them, or all, or largest")
    return [track for track in large if track.person in wanted]


def check_words(which: str) -> None:
    """Raises ValueError for what `select_tracks` would not read in any clip."""
    if which.strip().lower() not in ("all", "largest"):
        ids(which)


def ids(which: str) -> set[int]:
    """The numbers in "0,2".

    Raises:
        ValueError: if there is anything else.
    """
    parts = [part.strip() for part in which.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise ValueError(f"faces must be all, largest, or ids such as 0,2, got {which!r}")
    return {int(part) for part in parts}


def largest(tracks: Sequence[FaceTrack]) -> list[FaceTrack]:
    """The tracks with the largest total area, taken greedily, that do not overlap in time."""
    kept: list[FaceTrack] = []
    for track in sorted(tracks, key=lambda t: (-float(area(t.boxes).double().sum()), t.person)):
        if all(track.stop <= other.start or other.stop <= track.start for other in kept):
            kept.append(track)
    return sorted(kept, key=lambda t: t.person)


def size(track: FaceTrack) -> float:
    """Median side of the track's boxes, in frame pixels."""
    return float(side(track.boxes).median())
