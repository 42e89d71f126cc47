"""Face tracking: detections in, tracks out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ...plots import decode_image
from ..detection.anisotropic_pixels import AnisotropicPixels
from ..detection.detectors import Detector, following, suppress
from ..detection.external_detections import ExternalDetections
from ..detection.mesh_points import outline
from ..geometry import FACE_BOX, TEMPLATE, iou, side, similarity, smooth, smooth_path, steady
from ..types import CROP, Face, FaceTrack
from .appearance import chip, cosine_distance, descriptor, sharpness
from .association import ALIKE, Detection, Tracklet, associate
from .coverage import colours, covered
from .people import (
    OTHER_PERSON_DISTANCE,
    SAMPLES,
    Embed,
    Identity,
    assign_people,
    change_point,
    difference,
    embedding_crop,
    encode_crop,
    identity_of,
    load_embedder,
    median_embedding,
)


@dataclass(frozen=True)
class TrackOptions:
    """Options of tracking.

    Attributes:
        max_gap: longest gap in frames that is interpolated; longer ones end the track.
        min_length: tracks with fewer detections are dropped, unless they cover half of the shot's frames.
        sigma: standard deviation in frames of the smoothing of landmarks; crops are smoothed once more with half of it.
        sure: least score, in [0, 1], of a track's best detection: clear faces reach 0.98 somewhere, MTCNN's false positives stay below 0.92, drawn
            faces with FaceMesh mostly below 0.94. Not applied to external detections, nor where a second network agrees in most frames
            (`Face.agreed`), as blurred and dark faces score lower.
        density: least fraction of a track's frames with a detection.
        aspect: width / height of one pixel of the frames; crops are in display space.
        recognise: whether tracks of the same person are merged by their embeddings.
    """

    max_gap: int = 10
    min_length: int = 3
    sigma: float = 2.0
    sure: float = 0.94
    density: float = 0.3
    aspect: float = 1.0
    recognise: bool = True


class CutDetector(Protocol):
    """Detects shot cuts: takes the next frames (n, 3, H, W), returns indices of the first frames of new shots, possibly delayed."""

    def push(self, frames: Tensor) -> list[int]: ...

    def finish(self) -> list[int]:
        """The remaining cuts."""
        ...


Keep = Callable[[FaceTrack], FaceTrack]


class Tracker:
    """Streaming tracker: `push` takes frames with their detections, `finish` returns the tracks. Stores no frames, only measurements of one shot.

    frame_size: (H, W). keep: gets each track when its shot ends, and returns what is stored in its place.

    Results do not depend on chunking; a cut may be passed with any later push.
    """

    def __init__(self, frame_size: tuple[int, int], *, keep: Keep = lambda track: track, **changes: float) -> None:
        self.frame_size = (int(frame_size[0]), int(frame_size[1]))
        self.options = TrackOptions(**changes)  # type: ignore[arg-type]
        self.keep = keep
        self.embed: Embed | None = load_embedder() if self.options.recognise else None
        self.shot = 0
        self.detections: list[list[Detection]] = []
        self.before: list[Detection] = []
        """Detections of the previous frame."""
        self.tracks: list[FaceTrack] = []

    @property
    def seen(self) -> int:
        """Number of frames pushed so far."""
        return self.shot + len(self.detections)

    @property
    def memory(self) -> dict[str, Any]:
        """The state after the frames pushed so far, with which another tracker of the same clip continues as this one would."""
        return {"shot": self.shot, "detections": self.detections, "before": self.before, "tracks": self.tracks}

    @memory.setter
    def memory(self, known: Mapping[str, Any]) -> None:
        self.shot, self.detections, self.before, self.tracks = (known[name] for name in ("shot", "detections", "before", "tracks"))

    def push(self, index: int, frames: Tensor, detections: Sequence[Sequence[Face]], cuts: Sequence[int] = ()) -> None:
        """Takes frames (n, 3, H, W), the first of which has this index, their faces, and cuts detected by now.

        Raises:
            ValueError: if frames are skipped or repeated, change size, or do not match the detections; or a cut lies beyond them.
        """
        if index != self.seen:
            raise ValueError(f"frame {self.seen} comes next, got frames from {index} on; push every frame once and in order")
        if tuple(frames.shape[-2:]) != self.frame_size:
            raise ValueError(f"frames of (H, W) = {self.frame_size} are tracked, got {tuple(frames.shape[-2:])}; all frames must have one size")
        if len(detections) != len(frames):
            raise ValueError(
                f"{len(frames)} frames came with detections for {len(detections)}; give one list per frame, empty where there is no face"
            )
        for offset, (frame, faces) in enumerate(zip(frames, detections, strict=True)):
            self.before = [self.measure(index + offset, frame, face) for face in suppress(list(faces))]
            self.detections.append(self.before)
        self.cut(cuts)

    def cut(self, cuts: Sequence[int]) -> None:
        """Ends the current shot at each of the cuts."""
        for cut in sorted(set(cuts)):
            if cut > self.seen:
                raise ValueError(f"a cut at frame {cut} was told after {self.seen} frames; tell it with or after its frame")
            if cut > self.shot:
                self.close(cut)

    def measure(self, index: int, frame: Tensor, face: Face) -> Detection:
        """Measures a face: descriptor, sharpness, mesh colours and outline, and at times an embedding crop."""
        frame, aspect, mesh = frame.float().cpu(), self.options.aspect, face.mesh
        image = chip(frame, face.landmarks, aspect)
        look = descriptor(image)
        face = replace(face, box=face.box.float().cpu(), landmarks=face.landmarks.float().cpu(), score=float(face.score), mesh=None)
        due = self.embed is not None and (index % CROP_EVERY == 0 or not any(continues(old, face, look) for old in self.before))
        kept = encode_crop(embedding_crop(frame, face.landmarks, aspect)) if due else None
        seen = None if mesh is None else colours(frame, face.landmarks, mesh.cpu(), aspect)
        around = None if mesh is None else outline(mesh.cpu(), similarity(face.landmarks, aspect))
        return Detection(index, face, look, sharpness(image), kept, seen, around)

    def close(self, stop: int) -> None:
        """Ends the shot before frame `stop` and creates its tracks."""
        frames, self.detections = self.detections[: stop - self.shot], self.detections[stop - self.shot :]
        bounds = (self.shot, stop)
        tracklets = [tracklet for tracklet in associate(frames, self.options.max_gap) if self.credible(tracklet, len(frames))]
        alone = [part for tracklet in tracklets for part in self.split_at_cuts(tracklet)]
        tracks = [track_of(part, bounds, self.frame_size, self.options, look) for whole in alone for part, look in self.embed_tracklet(whole)]
        self.tracks += map(self.keep, mark_occluded(drop_duplicates(tracks)))
        self.shot = stop

    def credible(self, tracklet: Tracklet, shot_length: int) -> bool:
        """False for tracklets that are too short, too sparse, or of too low a score."""
        options, count = self.options, len(tracklet.detections)
        length = tracklet.last.frame - tracklet.detections[0].frame + 1
        if count < min(options.min_length, (shot_length + 1) // 2) or count < options.density * length:
            return False
        agreed = sum(s.face.agreed for s in tracklet.detections)
        return max(s.face.score for s in tracklet.detections) >= options.sure or agreed > count / 2

    def split_at_cuts(self, tracklet: Tracklet) -> list[Tracklet]:
        """Splits a tracklet at undetected cuts, such as between similar backgrounds, where the identity changes."""
        if self.embed is None or len(pieces := split_at_jumps(tracklet)) == 1:
            return [tracklet]
        samples = [embedding_samples(piece, SAMPLES // 2) for piece in pieces]
        if not all(samples):
            return [tracklet]
        parts: list[Tracklet] = []
        looks: list[Tensor] = []
        for piece, kept in zip(pieces, samples, strict=True):
            found = self.embed(embedding_crops(kept))
            apart = [float((median_embedding(look) - median_embedding(found)).norm()) for look in looks]
            if not parts or difference(looks[-1], found) > OTHER_PERSON_DISTANCE or min(apart) < apart[-1]:
                parts.append(piece)
                looks.append(found)
            else:
                parts[-1].detections += piece.detections
                looks[-1] = torch.cat([looks[-1], found])
        return parts

    def embed_tracklet(self, tracklet: Tracklet) -> list[tuple[Tracklet, Identity | None]]:
        """A tracklet with the identity of its sharper faces; two where one person dissolves into another."""
        kept = embedding_samples(tracklet)
        if self.embed is None or not kept:
            return [(tracklet, None)]
        size = float(side(torch.stack([s.face.box for s in tracklet.detections])).median())
        faces = embedding_crops(kept)
        embeddings = self.embed(faces)
        where = change_point(embeddings)
        if where is not None:
            frame = transition_frame(tracklet, kept[where - 1], kept[where])
            parts = [Tracklet([s for s in tracklet.detections if (s.frame >= frame) == later]) for later in (False, True)]
            if all(len(part.detections) >= BRIEF for part in parts):
                return [
                    (part, identity_of(faces[of], embeddings[of], size)) for part, of in zip(parts, (slice(where), slice(where, None)), strict=True)
                ]
        order = sorted(range(len(kept)), key=lambda k: (-kept[k].sharpness, k))[: max(3, (len(kept) + 1) // 2)]
        return [(tracklet, identity_of(faces[sorted(order)], embeddings[sorted(order)], size))]

    def finish(self, cuts: Sequence[int] = ()) -> list[FaceTrack]:
        """All tracks, ordered by person and time; `cuts` are the remaining ones."""
        if cuts:
            self.cut(cuts)
        if self.detections:
            self.close(self.seen)
        self.tracks = sorted(assign_people(self.tracks), key=lambda t: (t.person, t.start))
        return list(self.tracks)


CROP_EVERY = 4
"""Interval in frames at which embedding crops are stored, to choose from at the end of the shot; new faces are stored at once."""
BRIEF = 2 * CROP_EVERY
"""Least length of a part when a tracklet is split: faces that reappear from behind others resemble both at first."""


JUMP, OUTSTANDING = 0.06, 3.0
"""Least cosine distance of successive chips at a cut, and its least ratio to the median over REACH steps on either side; measured: 0.1 to 0.5 for
different people, nearly always below 0.05 for faces that turn, talk or are occluded."""
REACH = 4


def continues(old: Detection, face: Face, look: Tensor) -> bool:
    """Whether a face with descriptor `look` continues a detection of the previous frame."""
    return float(iou(old.face.box[None], face.box[None])) > 0.3 and float(cosine_distance(old.descriptor[None], look[None])) < ALIKE


def split_at_jumps(tracklet: Tracklet) -> list[Tracklet]:
    """A tracklet split at abrupt changes of its descriptors, into parts of at least BRIEF detections."""
    looks = torch.stack([s.descriptor for s in tracklet.detections])
    steps = cosine_distance(looks[1:, None], looks[:-1, None]).flatten()
    starts = [0]
    for k in (steps > JUMP).nonzero()[:, 0].tolist():
        around = torch.cat([steps[max(k - REACH, 0) : k], steps[k + 1 : k + 1 + REACH]])
        if k + 1 - starts[-1] >= BRIEF and len(looks) - k > BRIEF and float(steps[k]) > OUTSTANDING * float(around.median()):
            starts.append(k + 1)
    return [Tracklet(tracklet.detections[a:b]) for a, b in pairwise([*starts, len(looks)])]


def embedding_crops(kept: Sequence[Detection]) -> Tensor:
    """The stored crops (n, 3, 150, 150) of detections."""
    return torch.stack([face for s in kept if (face := decode_image(s.embedding_crop or b"")) is not None])


def embedding_samples(tracklet: Tracklet, most: int = SAMPLES) -> list[Detection]:
    """Up to `most` detections with a stored crop, in order: the sharpest of each equal part of the tracklet, frontal ones preferred."""
    kept = [s for s in tracklet.detections if s.embedding_crop is not None]
    parts = np.array_split(np.arange(len(kept)), min(most, len(kept))) if kept else []
    return [max((kept[k] for k in part), key=lambda s: (s.face.pose is None or abs(s.face.pose[0]) < 40, s.sharpness, -s.frame)) for part in parts]


def transition_frame(tracklet: Tracklet, before: Detection, later: Detection) -> int:
    """The first frame between two detections of different people whose descriptor is nearer to the later one's."""
    between = [s for s in tracklet.detections if before.frame < s.frame <= later.frame]
    looks = torch.stack([s.descriptor for s in between])
    nearer = looks @ later.descriptor > looks @ before.descriptor
    return between[int(nearer.int().argmax())].frame


SLACK = 0.0125
"""Largest deviation of a smoothed track from its detections, relative to the face's side and per frame of sigma: three times the landmark noise at
the default sigma."""


def track_of(
    tracklet: Tracklet, shot: tuple[int, int], frame_size: tuple[int, int], options: TrackOptions, look: Identity | None = None
) -> FaceTrack:
    """A track from a tracklet: linear interpolation of gaps, temporal smoothing of boxes and landmarks, then alignment."""
    seen = np.array([s.frame for s in tracklet.detections])
    frames = np.arange(seen[0], seen[-1] + 1)

    def fill(values: Tensor) -> Tensor:
        flat = values.reshape(len(values), -1).double().numpy()
        lines = [np.interp(frames, seen, column) for column in flat.T]
        return torch.from_numpy(np.stack(lines, 1)).reshape(len(frames), *values.shape[1:])

    detected = torch.zeros(len(frames), dtype=torch.bool)
    detected[torch.from_numpy(seen - seen[0])] = True
    scores = torch.zeros(len(frames))
    scores[detected] = torch.tensor([s.face.score for s in tracklet.detections])
    boxes, points = (fill(torch.stack([getattr(s.face, name) for s in tracklet.detections])) for name in ("box", "landmarks"))
    middle = points.mean(1)
    path = smooth_path(middle, options.sigma, SLACK * options.sigma * side(boxes))
    landmarks = smooth(points - middle[:, None], options.sigma) + path[:, None]
    poses = [s.face.pose for s in tracklet.detections if s.face.pose is not None]
    looks = [s.colours for s in tracklet.detections if s.colours is not None]
    edges = [s.outline for s in tracklet.detections if s.outline is not None]
    return FaceTrack(
        person=0,
        start=int(seen[0]),
        boxes=(smooth(boxes - middle.repeat(1, 2), options.sigma) + path.repeat(1, 2)).float(),
        landmarks=landmarks.float(),
        matrices=steady(torch.stack([similarity(five, options.aspect) for five in landmarks]), options.sigma / 2, path),
        scores=scores,
        detected=detected,
        sharpness=fill(torch.tensor([s.sharpness for s in tracklet.detections])).float(),
        frame_size=frame_size,
        shot=shot,
        embedding=None if look is None else look.embedding,
        clarity=1.0 if look is None else look.clarity,
        pose=smooth(fill(torch.tensor(poses)), 1.0).float() if len(poses) == len(seen) else None,
        covered=fill(covered(torch.stack(looks))).float() if len(looks) == len(seen) else None,
        outline=smooth(fill(torch.stack(edges)), options.sigma).float() if len(edges) == len(seen) else None,
    )


def overlaps(a: FaceTrack, b: FaceTrack) -> tuple[slice, slice, Tensor]:
    """Rows of a and b for their common frames, and the IoU (n,) of their boxes there."""
    first, stop = max(a.start, b.start), max(min(a.stop, b.stop), max(a.start, b.start))
    rows = slice(first - a.start, stop - a.start), slice(first - b.start, stop - b.start)
    return *rows, iou(a.boxes[rows[0]], b.boxes[rows[1]]).diagonal()


def drop_duplicates(tracks: list[FaceTrack]) -> list[FaceTrack]:
    """Tracks without those that overlap a better one (more detections, then score) in more than half of their frames."""
    kept: list[FaceTrack] = []
    for track in sorted(tracks, key=lambda t: (-int(t.detected.sum()), -float(t.scores.sum()), t.start)):
        if all(int((overlaps(track, better)[2] > 0.5).sum()) <= len(track) / 2 for better in kept):
            kept.append(track)
    return kept


def mark_occluded(tracks: list[FaceTrack]) -> list[FaceTrack]:
    """Sets sharpness to 0 where an interpolated face is hidden by another person's detection."""
    hidden = []
    for track in tracks:
        level = track.sharpness.clone()
        for other in tracks:
            mine, theirs, overlap = overlaps(track, other)
            behind = (overlap > 0.2) & ~track.detected[mine] & other.detected[theirs]
            level[mine] = torch.where(behind, 0.0, level[mine])
        hidden.append(replace(track, sharpness=level))
    return hidden


def find_tracks(
    chunks: Iterable[tuple[int, Tensor]],
    detector: Detector | ExternalDetections,
    cuts: Sequence[int] | CutDetector = (),
    *,
    on_frame: Callable[[int], None] = lambda done: None,
    keep: Keep = lambda track: track,
    resume: Callable[[Tracker, Any], object] = lambda tracker, find: None,
    **changes: float,
) -> list[FaceTrack]:
    """Tracks of all people in a clip. `changes` are `TrackOptions` by name, such as `sigma` or `max_gap`.

    Args:
        chunks: (index, frames (n, 3, H, W) in [0, 1]) from 0 on, each frame once; one chunk is in memory at a time.
        cuts: indices of the first frames of new shots, or a detector that gets the same frames.
        on_frame: called with the number of frames just processed.
        keep: see `Tracker`.
        resume: called with the tracker and the detector before the first chunk; may restore their saved state, from which `chunks` continue.
    """
    tracker: Tracker | None = None
    find: Any = detector
    lookup: Any = getattr(detector, "at", None)  # external detections need no least score
    if lookup:
        changes = {"sure": 0.0, **changes}
    finder = None if isinstance(cuts, Sequence) else cuts
    known = tuple(cuts) if isinstance(cuts, Sequence) else ()
    for index, frames in chunks:
        if tracker is None:
            tracker = Tracker((frames.shape[-2], frames.shape[-1]), keep=keep, **changes)
            if not lookup:
                find = following(AnisotropicPixels(find, tracker.options.aspect) if tracker.options.aspect != 1 else find)
            resume(tracker, find)
        found = finder.push(frames) if finder else [c for c in known if index <= c < index + len(frames)]
        tracker.push(index, frames, lookup(index, len(frames)) if lookup else find(frames), found)
        on_frame(len(frames))
    return tracker.finish(finder.finish() if finder else ()) if tracker is not None else []


def aligned_track(count: int) -> FaceTrack:
    """A track for `count` frames that are aligned crops of one person: the template's landmarks in every frame."""
    return FaceTrack(
        person=0,
        start=0,
        boxes=torch.tensor(FACE_BOX).repeat(count, 1),
        landmarks=TEMPLATE.float().repeat(count, 1, 1),
        matrices=torch.eye(2, 3).repeat(count, 1, 1),
        scores=torch.ones(count),
        detected=torch.ones(count, dtype=torch.bool),
        sharpness=torch.ones(count),
        frame_size=(CROP, CROP),
        shot=(0, count),
    )
