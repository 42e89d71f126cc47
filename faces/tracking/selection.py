"""Whom to restore, in words that also work in API prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ...plots import decode_image
from ..detection.detectors import load_detector
from ..geometry import area, side
from ..types import FaceTrack
from .people import (
    BLUNT_DOUBT_MARGIN,
    LARGER,
    OTHER_PERSON_DISTANCE,
    SAME,
    Look,
    bluntness,
    likeness,
    load_embed,
    look_distance,
    look_of,
    median_side,
)

LIKE = "like:"
"""Before the path of a picture that shows who is meant."""


def select_tracks(tracks: Sequence[FaceTrack], which: str = "all", min_size: float = 0, like: Look | None = None) -> list[FaceTrack]:
    """Tracks by `which`: "all"; "largest", at most one person at a time, the one with the largest total area; ids of people such as "0,2"; or
    "like:photo.jpg", the person on a picture.

    min_size: tracks whose median face (square root of its box's area) is smaller than this many frame pixels are left out.
    like: whom, see `look_in`; then `which` does not count.

    Raises:
        ValueError: for an id that is not in the clip, nobody like the person on the picture, or words that are none of these.
        OSError: if the picture cannot be read.
    """
    word = which.strip().lower()
    large = [track for track in tracks if median_side(track) >= min_size]
    like = wanted_look(which) if like is None else like
    if like is not None:
        chosen = {track.person for track in tracks_like(tracks, like)}
        return [track for track in large if track.person in chosen]
    if word == "all":
        return large
    if word == "largest":
        return largest(large)
    wanted = parse_ids(which)
    known = {track.person for track in tracks}
    unknown = sorted(wanted - known)
    if unknown:
        people = f"persons {', '.join(map(str, sorted(known)))}; choose among them, or all, or largest" if known else "nobody: it has no face"
        raise ValueError(f"no person {', '.join(map(str, unknown))} in this clip, which shows {people}")
    return [track for track in large if track.person in wanted]


def check_selection(which: str) -> None:
    """Raises ValueError for what `select_tracks` would not read in any clip."""
    if (name := picture_named(which)) is not None:
        if not name:
            raise ValueError("faces like: must name a picture, such as like:photo.jpg, got nothing after it")
    elif which.strip().lower() not in ("all", "largest"):
        parse_ids(which)


def wanted_look(which: str) -> Look | None:
    """The look of the person on the picture that `which` names, None for other words; asked before the work, as it raises what it can.

    Raises:
        ValueError, OSError: as `select_tracks`, but for what depends on the clip.
    """
    check_selection(which)
    name = picture_named(which)
    return None if name is None else look_in(read_picture(name))


def picture_named(which: str) -> str | None:
    """The file in "like:photo.jpg", None for other words."""
    word = which.strip()
    return word[len(LIKE) :].strip() if word.lower().startswith(LIKE) else None


def parse_ids(which: str) -> set[int]:
    """The numbers in "0,2". Raises ValueError if there is anything else."""
    parts = [part.strip() for part in which.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise ValueError(f"faces must be all, largest, ids such as 0,2, or like:photo.jpg, got {which!r}")
    return {int(part) for part in parts}


def read_picture(path: str | Path) -> Tensor:
    """A picture file as (3, H, W) RGB in [0, 1]. Raises OSError if it cannot be read."""
    try:
        picture = decode_image(Path(path).read_bytes())
    except OSError as error:
        raise OSError(f"the picture {path} of whom to restore cannot be read ({error.strerror}); give the path of a photo") from error
    if picture is None:
        raise OSError(f"the picture {path} of whom to restore cannot be decoded; give a JPEG or PNG")
    return picture


def look_in(picture: Tensor) -> Look:
    """The look of the largest face in a picture (3, H, W) RGB in [0, 1].

    Raises:
        ValueError: if it shows no face, or the embedding is not in the package.
    """
    embed = load_embed()
    if embed is None:
        raise ValueError("nobody can be recognised without face-embedding.safetensors, which is missing from the package; install it again")
    faces = load_detector("blazeface")(picture[None])[0]
    if not faces:
        height, width = picture.shape[-2:]
        raise ValueError(f"the picture of whom to restore ({width} x {height}) shows no face; give one that shows the person from the front")
    face = max(faces, key=lambda face: float(area(face.box)))
    shown = likeness(picture.float().cpu(), face.landmarks)[None]
    return look_of(shown, embed(shown), float(side(face.box[None])))


MIN_LEAD = 0.05
"""Least lead in distance over the second nearest of a nearest person who is not within SAME."""


BY_ID = "choose by id, see fvr faces"


def tracks_like(tracks: Sequence[FaceTrack], like: Look) -> list[FaceTrack]:
    """The tracks of the people who look so: all that are nearer than SAME, or else the nearest one, if nearer by MIN_LEAD than the next and within
    OTHER_PERSON_DISTANCE, or where faces are small or blurred as far beyond it as `people.assign_people` doubts.

    Raises:
        ValueError: if there is nobody.
    """
    looks: dict[int, list[Look]] = {}
    for track in sorted(tracks, key=lambda track: track.person):
        if track.embedding is not None:
            looks.setdefault(track.person, []).append(Look(track.embedding, track.clarity, median_side(track)))
    far = {person: sum(look_distance(look, like) for look in some) / len(some) for person, some in looks.items()}
    if not far:
        raise ValueError(f"nobody in this clip looks like the person on the picture (nobody in it was recognised); {BY_ID}")
    chosen = {person for person, distance in far.items() if distance < SAME}
    if not chosen:
        nearest, *others = sorted(far, key=lambda person: far[person])
        limit = OTHER_PERSON_DISTANCE + BLUNT_DOUBT_MARGIN * max(bluntness(look.size, look.clarity, LARGER) for look in (*looks[nearest], like))
        if far[nearest] >= limit:
            said = f"the nearest is person {nearest} at a distance of {far[nearest]:.2f}, {limit:.2f} is the limit"
            raise ValueError(f"nobody in this clip looks like the person on the picture ({said}); {BY_ID}")
        if others and far[others[0]] - far[nearest] < MIN_LEAD:
            said = f"person {nearest} or {others[0]} of this clip (at distances of {far[nearest]:.2f} and {far[others[0]]:.2f})"
            raise ValueError(f"the person on the picture may be {said}; give a clearer picture, or {BY_ID}")
        chosen = {nearest}
    return [track for track in tracks if track.person in chosen]


def largest(tracks: Sequence[FaceTrack]) -> list[FaceTrack]:
    """The tracks with the largest total area, taken greedily, that do not overlap in time."""
    kept: list[FaceTrack] = []
    for track in sorted(tracks, key=lambda t: (-float(area(t.boxes).double().sum()), t.person)):
        if all(track.stop <= other.start or other.stop <= track.start for other in kept):
            kept.append(track)
    return sorted(kept, key=lambda t: t.person)
