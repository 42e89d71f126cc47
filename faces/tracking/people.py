"""Re-identification across a film: an embedding per track, and clustering of tracks into people."""

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
"""Maps crops (n, 3, 150, 150) RGB in [0, 1] of `embedding_crop` to embeddings (n, D) float32 on the CPU, compared by Euclidean distance."""
SAME = 0.5
"""Distance of embeddings below which tracks are merged; dlib's advice for single images is 0.6."""
OTHER_PERSON_DISTANCE = 0.6
"""Between SAME and this, identity is uncertain: tracks stay separate, and the report says so."""
SMALL, LARGE, LARGER = 24.0, 48.0, 60.0
"""Face sides in frame pixels. Embeddings of small damaged faces are close to each other whatever the identity, and far from the same person's large
ones: the former does not happen from LARGE on, the latter from LARGER on (benchmarks/README.md, Who is who)."""
SOFT, SHARP = 0.15, 0.35
"""`clarity` at which an embedding is hardly, and fully, reliable: portraits have about 0.38; blurred by 1.5, 3, 4.5 and 6 % of the face 0.33, 0.25,
0.19 and 0.16, noisy or not."""
MAX_UNRELIABILITY = 1.3
"""Largest `unreliability`: 1 at SOFT, SMALL_WEIGHT at SMALL, more for worse faces."""
SMALL_WEIGHT = 0.57
MERGE_MARGIN, DOUBT_MARGIN = 0.21, 0.25
"""For tracks of unreliability 1: by how much SAME is lowered, and OTHER_PERSON_DISTANCE raised
(benchmarks/README.md, Who is who)."""
SAMPLES = 8
"""Largest number of faces embedded per track."""
QUALITY = 92
"""JPEG quality of embedding crops kept until the end of their shot."""


@lru_cache(maxsize=1)
def load_embedder() -> Embed | None:
    """The bundled embedding network; None if its file is missing."""
    if not (FOLDER / FACE_EMBEDDING).is_file():
        return None
    network = load_embedded(FaceEmbedding)

    @torch.inference_mode()
    def embed(faces: Tensor) -> Tensor:
        found = [network(one) for one in faces.float().split(1)]
        return torch.cat(found).clone() if found else torch.zeros(0, 128)

    return embed


def embedding_crop(frame: Tensor, landmarks: Tensor, aspect: float = 1.0) -> Tensor:
    """The face in frame (3, H, W) at landmarks (5, 2), aligned for the embedding network: (3, 150, 150) in [0, 1]."""
    crop = umeyama(TEMPLATE, torch.tensor(PLACES, dtype=torch.float64))
    return warp_crop(frame, compose_affine(crop, similarity(landmarks, aspect).double()), SIDE)


def encode_crop(face: Tensor) -> bytes:
    """A crop (3, 150, 150) as JPEG; `plots.decode_image` reads it."""
    pixels = np.asarray(face.permute(1, 2, 0).mul(255).round().byte())[:, :, ::-1]
    return cv2.imencode(".jpg", np.ascontiguousarray(pixels), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


@dataclass(frozen=True)
class Identity:
    """A person's embedding (D,), with the `clarity` and side in frame pixels of the faces it was computed from."""

    embedding: Tensor
    clarity: float
    size: float


def identity_of(faces: Tensor, embeddings: Tensor, size: float) -> Identity:
    """Median embedding and clarity of crops (n, 3, 150, 150) with embeddings (n, D), of faces of this size."""
    return Identity(median_embedding(embeddings), float(torch.tensor([clarity(face) for face in faces]).median()), size)


def median_side(track: FaceTrack) -> float:
    """Median side of the track's boxes in frame pixels."""
    return float(side(track.boxes).median())


def unreliability(size: float, clarity: float, large: float = LARGE) -> float:
    """Unreliability, in [0, MAX_UNRELIABILITY], of embeddings of faces of this size (frame pixels) and clarity: 0 from `large` and SHARP on."""
    small, soft = (large - size) / (large - SMALL), (SHARP - clarity) / (SHARP - SOFT)
    return min(max(SMALL_WEIGHT * small, soft, 0.0), MAX_UNRELIABILITY)


def identity_distance(a: Identity, b: Identity) -> float:
    """Euclidean distance of the embeddings, plus MERGE_MARGIN times the lower unreliability."""
    return float((a.embedding - b.embedding).norm()) + MERGE_MARGIN * min(unreliability(look.size, look.clarity) for look in (a, b))


def clarity(face: Tensor) -> float:
    """Noise-robust `sharpness` in [0, 1] of a crop (3, 150, 150): computed after a blur by 2.3 % of the face."""
    soft = cv2.GaussianBlur(chip(face, torch.tensor(PLACES)).permute(1, 2, 0).numpy(), (0, 0), 1.5)
    return sharpness(torch.from_numpy(soft).permute(2, 0, 1))


def median_embedding(embeddings: Tensor) -> Tensor:
    """Elementwise median (D,) of embeddings (n, D), robust to outliers."""
    return embeddings.quantile(0.5, 0)


def change_point(embeddings: Tensor) -> int | None:
    """Index at which the identity changes in embeddings (n, D) ordered by time, None if it does not.

    The split with the largest `difference`, if that exceeds OTHER_PERSON_DISTANCE.
    """
    apart = [difference(embeddings[:k], embeddings[k:]) for k in range(1, len(embeddings))]
    return apart.index(max(apart)) + 1 if max(apart, default=0.0) > OTHER_PERSON_DISTANCE else None


def difference(before: Tensor, later: Tensor) -> float:
    """Distance of the medians of embeddings (n, D) and (m, D); 0 unless every embedding is nearer to its own median."""
    a, b = median_embedding(before), median_embedding(later)
    loyal = ((before - a).norm(dim=1) < (before - b).norm(dim=1)).all() and ((later - b).norm(dim=1) < (later - a).norm(dim=1)).all()
    return float((a - b).norm()) if loyal else 0.0


def assign_people(tracks: Sequence[FaceTrack]) -> list[FaceTrack]:
    """Tracks with person ids, by decreasing number of frames, then face area; in the given order.

    People are clusters of tracks by average linkage below SAME that do not overlap in time; a track without an embedding is a
    person of its own. `unsure` is set where another person that does not overlap in time is nearer than OTHER_PERSON_DISTANCE. Small and blurred
    faces are merged later, and marked unsure earlier (`unreliability`).
    """
    sizes = [median_side(track) for track in tracks]
    unreliable, doubted = (
        torch.tensor([unreliability(median, track.clarity, large) for median, track in zip(sizes, tracks, strict=True)]) for large in (LARGE, LARGER)
    )
    groups, nearest = average_linkage(distance_matrix(tracks, unreliable))

    def rank(number: int) -> tuple[float, ...]:
        group = groups[number]
        frames = sum(len(tracks[k]) for k in group)
        pixels = sum(float(area(tracks[k].boxes).double().sum()) for k in group)
        return (-frames, -pixels, min(tracks[k].start for k in group), *tracks[group[0]].boxes[0].tolist())

    out: list[FaceTrack] = list(tracks)
    for person, number in enumerate(sorted(range(len(groups)), key=rank)):
        doubtful = OTHER_PERSON_DISTANCE + DOUBT_MARGIN * float(doubted[groups[number]].max())
        for k in groups[number]:
            out[k] = tracks[k].with_person(person, unsure=float(nearest[number]) < doubtful)
    return out


def average_linkage(distances: Tensor) -> tuple[list[list[int]], Tensor]:
    """Average-linkage clustering up to SAME: the clusters, and each one's distance to its nearest other, (m,).

    distances: (n, n), infinite on its diagonal; overwritten. Distances are updated in place (Lance and Williams, 1967), as a long film has
    thousands of tracks and this matrix dominates memory. An average is never below both of its parts, so rows keep their nearest neighbour unless
    it was merged.
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


def distance_matrix(tracks: Sequence[FaceTrack], unreliable: Tensor) -> Tensor:
    """(n, n) float32 distances of embeddings, plus MERGE_MARGIN times the lower unreliability; infinite between tracks that overlap in
    time or lack an embedding.

    unreliable: (n,), see `unreliability`.
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
        margin = MERGE_MARGIN * torch.minimum(unreliable[known], unreliable[k])
        distances[k, known] = torch.where(apart, (looks - looks[row]).norm(dim=1) + margin, float("inf"))
    return distances
