"""Selection of the people to restore, by text that also works in API prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ...plots import decode_image
from ..detection.detectors import load_detector
from ..geometry import area, side
from ..types import FaceTrack
from .people import (
    DOUBT_MARGIN,
    LARGER,
    OTHER_PERSON_DISTANCE,
    SAME,
    Identity,
    embedding_crop,
    identity_distance,
    identity_of,
    load_embedder,
    median_side,
    unreliability,
)

LIKE = "like:"
"""Prefix of the path of a reference photo."""


def select_tracks(tracks: Sequence[FaceTrack], which: str = "all", min_size: float = 0, like: Identity | None = None) -> list[FaceTrack]:
    """Tracks selected by `which`: "all"; "largest", non-overlapping tracks by decreasing total area; person ids such as "0,2"; or "like:photo.jpg",
    the person in a reference photo.

    min_size: least median face side (square root of the box area) in frame pixels.
    like: reference identity, see `identity_in`; overrides `which`.

    Raises:
        ValueError: for an id that is not in the clip, if nobody matches the reference, or for any other text.
        OSError: if the photo cannot be read.
    """
    word = which.strip().lower()
    large = [track for track in tracks if median_side(track) >= min_size]
    like = reference_identity(which) if like is None else like
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
    """Raises ValueError for text that `select_tracks` rejects for any clip."""
    if (name := photo_path(which)) is not None:
        if not name:
            raise ValueError("faces like: must name a picture, such as like:photo.jpg, got nothing after it")
    elif which.strip().lower() not in ("all", "largest"):
        parse_ids(which)


def reference_identity(which: str) -> Identity | None:
    """The identity in the photo that `which` names, None for other text; to be called early, as it raises all errors that do not depend on the clip.

    Raises:
        ValueError, OSError: as `select_tracks`.
    """
    check_selection(which)
    name = photo_path(which)
    return None if name is None else identity_in(read_picture(name))


def photo_path(which: str) -> str | None:
    """The path in "like:photo.jpg", None for other text."""
    word = which.strip()
    return word[len(LIKE) :].strip() if word.lower().startswith(LIKE) else None


def parse_ids(which: str) -> set[int]:
    """The person ids in "0,2". Raises ValueError for any other text."""
    parts = [part.strip() for part in which.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise ValueError(f"faces must be all, largest, ids such as 0,2, or like:photo.jpg, got {which!r}")
    return {int(part) for part in parts}


def read_picture(path: str | Path) -> Tensor:
    """An image file as (3, H, W) RGB in [0, 1]. Raises OSError if it cannot be read."""
    try:
        picture = decode_image(Path(path).read_bytes())
    except OSError as error:
        raise OSError(f"the picture {path} of whom to restore cannot be read ({error.strerror}); give the path of a photo") from error
    if picture is None:
        raise OSError(f"the picture {path} of whom to restore cannot be decoded; give a JPEG or PNG")
    return picture


def identity_in(picture: Tensor) -> Identity:
    """The identity of the largest face in an image (3, H, W) RGB in [0, 1].

    Raises:
        ValueError: if it shows no face, or the embedding network's file is missing.
    """
    embed = load_embedder()
    if embed is None:
        raise ValueError("nobody can be recognised without face-embedding.safetensors, which is missing from the package; install it again")
    faces = load_detector("blazeface")(picture[None])[0]
    if not faces:
        height, width = picture.shape[-2:]
        raise ValueError(f"the picture of whom to restore ({width} x {height}) shows no face; give one that shows the person from the front")
    face = max(faces, key=lambda face: float(area(face.box)))
    shown = embedding_crop(picture.float().cpu(), face.landmarks)[None]
    return identity_of(shown, embed(shown), float(side(face.box[None])))


MIN_LEAD = 0.05
"""Least margin to the second nearest person for a match beyond SAME."""


BY_ID = "choose by id, see fvr faces"


def tracks_like(tracks: Sequence[FaceTrack], like: Identity) -> list[FaceTrack]:
    """Tracks of the people who match an identity: all within SAME, else the nearest one, if nearer than the next by MIN_LEAD and
    within OTHER_PERSON_DISTANCE, which is raised for small or blurred faces as in `people.assign_people`.

    Raises:
        ValueError: if nobody matches, or two people match about equally.
    """
    looks: dict[int, list[Identity]] = {}
    for track in sorted(tracks, key=lambda track: track.person):
        if track.embedding is not None:
            looks.setdefault(track.person, []).append(Identity(track.embedding, track.clarity, median_side(track)))
    far = {person: sum(identity_distance(look, like) for look in some) / len(some) for person, some in looks.items()}
    if not far:
        raise ValueError(f"nobody in this clip looks like the person on the picture (nobody in it was recognised); {BY_ID}")
    chosen = {person for person, distance in far.items() if distance < SAME}
    if not chosen:
        nearest, *others = sorted(far, key=lambda person: far[person])
        limit = OTHER_PERSON_DISTANCE + DOUBT_MARGIN * max(unreliability(look.size, look.clarity, LARGER) for look in (*looks[nearest], like))
        if far[nearest] >= limit:
            said = f"the nearest is person {nearest} at a distance of {far[nearest]:.2f}, {limit:.2f} is the limit"
            raise ValueError(f"nobody in this clip looks like the person on the picture ({said}); {BY_ID}")
        if others and far[others[0]] - far[nearest] < MIN_LEAD:
            said = f"person {nearest} or {others[0]} of this clip (at distances of {far[nearest]:.2f} and {far[others[0]]:.2f})"
            raise ValueError(f"the person on the picture may be {said}; give a clearer picture, or {BY_ID}")
        chosen = {nearest}
    return [track for track in tracks if track.person in chosen]


def largest(tracks: Sequence[FaceTrack]) -> list[FaceTrack]:
    """Tracks that do not overlap in time, chosen greedily by decreasing total area."""
    kept: list[FaceTrack] = []
    for track in sorted(tracks, key=lambda t: (-float(area(t.boxes).double().sum()), t.person)):
        if all(track.stop <= other.start or other.stop <= track.start for other in kept):
            kept.append(track)
    return sorted(kept, key=lambda t: t.person)
