"""Who is who across a film: an embedding per track, and which tracks show the same person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor

from ...models.embedded import FACE_EMBEDDING, FOLDER, load_embedded
from ...models.face_embedding import PLACES, SIDE, FaceEmbedding
from ..align import warp_crop
from ..geometry import TEMPLATE, area, compose_affine, side, similarity, umeyama
from ..types import FaceTrack
from .appearance import chip, sharpness

Embed = Callable[[Tensor], Tensor]
"""Faces (n, 3, 150, 150) RGB in [0, 1], cut out by `likeness`, to (n, D) float32 on the CPU; small distances show one person."""
SAME = 0.5
"""Distance of two embeddings below which tracks are tied together; dlib's own advice for single pictures is 0.6."""
OTHER_PERSON_DISTANCE = 0.6
"""Between SAME and this the network does not know: tracks stay apart, and the report says so."""
SMALL, LARGE, LARGER = 24.0, 48.0, 60.0
"""Sides of faces, in frame pixels. Embeddings of small damaged faces lie near to each other, whoever they show, and far from the same person's large
ones: from LARGE on none of the first is seen, from LARGER on none of the second (benchmarks/README.md, Who is who)."""
SOFT, SHARP = 0.15, 0.35
"""`clarity` at which an embedding tells little, and all: portraits have about 0.38; blurred by 1.5, 3, 4.5 and 6 % of the face 0.33, 0.25, 0.19 and
0.16, noisy or not."""
MAX_BLUNTNESS = 1.3
"""Largest `bluntness`: 1 at SOFT, SMALL_WEIGHT at SMALL, more for worse faces."""
SMALL_WEIGHT = 0.57
BLUNT_TIE_MARGIN, BLUNT_DOUBT_MARGIN = 0.21, 0.25
"""How much less than SAME the distance of two tracks of bluntness 1 must be to be tied, and how much more than OTHER_PERSON_DISTANCE is still unsure
(measured: benchmarks/README.md, Who is who)."""
SAMPLES = 8
"""Faces per track that are embedded."""
QUALITY = 92
"""JPEG quality of likenesses kept until the end of their shot."""


@lru_cache(maxsize=1)
def load_embed() -> Embed | None:
    """The embedding that comes with the package; None if its file is not here."""
    if not (FOLDER / FACE_EMBEDDING).is_file():
        return None
    network = load_embedded(FaceEmbedding)

    @torch.inference_mode()
    def embed(faces: Tensor) -> Tensor:
        found = [network(one) for one in faces.float().split(1)]
        return torch.cat(found).clone() if found else torch.zeros(0, 128)

    return embed


def likeness(frame: Tensor, landmarks: Tensor, aspect: float = 1.0) -> Tensor:
    """The face in frame (3, H, W) at landmarks (5, 2), as the embedding wants it: (3, 150, 150) in [0, 1]."""
    crop = umeyama(TEMPLATE, torch.tensor(PLACES, dtype=torch.float64))
    return warp_crop(frame, compose_affine(crop, similarity(landmarks, aspect).double()), SIDE)


def encode_jpeg(face: Tensor) -> bytes:
    """A likeness (3, 150, 150) in a few kilobytes, which `plots.decode_image` reads."""
    pixels = np.asarray(face.permute(1, 2, 0).mul(255).round().byte())[:, :, ::-1]
    return cv2.imencode(".jpg", np.ascontiguousarray(pixels), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


@dataclass(frozen=True)
class Look:
    """What somebody looks like: the embedding (D,) of some faces, their `clarity`, and their side in the pixels of their frames."""

    embedding: Tensor
    clarity: float
    size: float


def look_of(faces: Tensor, embeddings: Tensor, size: float) -> Look:
    """The middle of likenesses (n, 3, 150, 150) and their embeddings (n, D), of faces of this size."""
    return Look(median_embedding(embeddings), float(torch.tensor([clarity(face) for face in faces]).median()), size)


def median_side(track: FaceTrack) -> float:
    """Median side of the track's boxes, in frame pixels."""
    return float(side(track.boxes).median())


def bluntness(size: float, clarity: float, large: float = LARGE) -> float:
    """How little an embedding tells of faces of this size (frame pixels) and clarity, in [0, MAX_BLUNTNESS]: 0 for those both `large` and SHARP."""
    small, soft = (large - size) / (large - SMALL), (SHARP - clarity) / (SHARP - SOFT)
    return min(max(SMALL_WEIGHT * small, soft, 0.0), MAX_BLUNTNESS)


def look_distance(a: Look, b: Look) -> float:
    """The distance of their embeddings; larger by BLUNT_TIE_MARGIN where both are blunt."""
    return float((a.embedding - b.embedding).norm()) + BLUNT_TIE_MARGIN * min(bluntness(look.size, look.clarity) for look in (a, b))


def clarity(face: Tensor) -> float:
    """How much of its detail a likeness (3, 150, 150) shows, in [0, 1]: `sharpness` of what noise does not survive, a blur by 2.3 % of the face."""
    soft = cv2.GaussianBlur(chip(face, torch.tensor(PLACES)).permute(1, 2, 0).numpy(), (0, 0), 1.5)
    return sharpness(torch.from_numpy(soft).permute(2, 0, 1))


def median_embedding(embeddings: Tensor) -> Tensor:
    """The median (D,) of embeddings (n, D), number by number: one bad picture does not move it far."""
    return embeddings.quantile(0.5, 0)


def change_point(embeddings: Tensor) -> int | None:
    """Where one person becomes another in embeddings (n, D) in order of time: the first index of the second; None if nobody does.

    The two parts differ most, and by more than OTHER_PERSON_DISTANCE (`difference`).
    """
    apart = [difference(embeddings[:k], embeddings[k:]) for k in range(1, len(embeddings))]
    return apart.index(max(apart)) + 1 if max(apart, default=0.0) > OTHER_PERSON_DISTANCE else None


def difference(before: Tensor, later: Tensor) -> float:
    """How far the middles of embeddings (n, D) and (m, D) are apart; 0 where a single picture of one is no nearer to its own."""
    a, b = median_embedding(before), median_embedding(later)
    loyal = ((before - a).norm(dim=1) < (before - b).norm(dim=1)).all() and ((later - b).norm(dim=1) < (later - a).norm(dim=1)).all()
    return float((a - b).norm()) if loyal else 0.0


def assign_people(tracks: Sequence[FaceTrack]) -> list[FaceTrack]:
    """Tracks with the ids of people: 0 is seen in most frames, then the one with the larger faces. Order as given.

    People are groups of tracks with a mean distance below SAME (average linkage), no two of which are seen at the same time. A track without
    an embedding is a person of its own. `unsure` is set where another person is nearer than OTHER_PERSON_DISTANCE who could be the same by time.
    Small and blurred faces are tied later, and called unsure sooner (`bluntness`).
    """
    sizes = [median_side(track) for track in tracks]
    blunt, doubted = (
        torch.tensor([bluntness(median, track.clarity, large) for median, track in zip(sizes, tracks, strict=True)]) for large in (LARGE, LARGER)
    )
    groups, nearest = average_linkage(distance_matrix(tracks, blunt))

    def rank(number: int) -> tuple[float, ...]:
        group = groups[number]
        frames = sum(len(tracks[k]) for k in group)
        pixels = sum(float(area(tracks[k].boxes).double().sum()) for k in group)
        return (-frames, -pixels, min(tracks[k].start for k in group), *tracks[group[0]].boxes[0].tolist())

    out: list[FaceTrack] = list(tracks)
    for person, number in enumerate(sorted(range(len(groups)), key=rank)):
        doubtful = OTHER_PERSON_DISTANCE + BLUNT_DOUBT_MARGIN * float(doubted[groups[number]].max())
        for k in groups[number]:
            out[k] = tracks[k].known_as(person, unsure=float(nearest[number]) < doubtful)
    return out


def average_linkage(distances: Tensor) -> tuple[list[list[int]], Tensor]:
    """Agglomerative clustering until no two groups are nearer than SAME: the groups, and each one's distance to the nearest other, (m,).

    distances: (n, n), infinite on its diagonal; overwritten. A pair's distances to the others are averaged in place as it is tied (Lance and
    Williams, 1967): a long film has thousands of tracks, and nothing else here is as large as that matrix. No average is less than both of its
    parts, so rows keep their nearest unless it was tied.
    """
    groups = {k: [k] for k in range(len(distances))}
    if not groups:
        return [], distances.new_zeros(0)
    nearest, where = distances.min(1)
    while True:
        i = int(nearest.argmin())
        if not float(nearest[i]) < SAME:
            return list(groups.values()), nearest[list(groups)]
        i, j = sorted((i, int(where[i])))
        a, b = len(groups[i]), len(groups[j])
        distances[i] = distances[:, i] = (a * distances[i] + b * distances[j]) / (a + b)
        distances[j] = distances[:, j] = nearest[j] = float("inf")
        distances[i, i] = float("inf")
        groups[i] += groups.pop(j)
        for row in {i, *((where == i) | (where == j)).nonzero()[:, 0].tolist()} & groups.keys():
            nearest[row], where[row] = distances[row].min(0)


def distance_matrix(tracks: Sequence[FaceTrack], blunt: Tensor) -> Tensor:
    """(n, n) float32 distances of embeddings; infinite between tracks that share a frame, and where one has none; larger by BLUNT_TIE_MARGIN
    between small or blurred faces.

    blunt: see `bluntness`.
    """
    n = len(tracks)
    distances = torch.full((n, n), float("inf"))
    known = [k for k, track in enumerate(tracks) if track.embedding is not None]
    if not known:
        return distances
    looks = torch.stack([track.embedding for track in tracks if track.embedding is not None]).float()
    starts, stops = (torch.tensor([getattr(tracks[k], name) for k in known]) for name in ("start", "stop"))
    for row, k in enumerate(known):
        apart = (stops[row] <= starts) | (stops <= starts[row])
        margin = BLUNT_TIE_MARGIN * torch.minimum(blunt[known], blunt[k])
        distances[k, known] = torch.where(apart, (looks - looks[row]).norm(dim=1) + margin, float("inf"))
    return distances
