"""Faces for the metrics: landmarks in both clips, and face masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from .faces import CROP, Detector, Face, FaceClip, FaceTrack, aligned_track, find_tracks
from .faces.compositing.enlarge import in_larger_frame
from .faces.geometry import FACE_BOX, inverse, iou, scales
from .metrics.evaluate import Clip, FaceLandmarks
from .video import ShotCutDetector

SAME_PERSON_IOU = 0.3
"""IoU of a detection with a track's box from which it is the same person."""


@dataclass(frozen=True, eq=False)
class MeasuredFaces:
    """The faces that are measured.

    Attributes:
        people: landmarks in the restored clip and in the reference; empty without a reference.
        tracks: face tracks, in pixels of the measured frames.
        cuts: frames that do not continue the previous one: first frames of shots or of another person's crops.
    """

    people: list[FaceLandmarks]
    tracks: list[FaceTrack]
    cuts: list[int]

    def region(self, t: int) -> Tensor | None:
        """Binary face mask (H, W) of frame t: the ellipse inscribed in each face box; None without a face."""
        here = [track for track in self.tracks if track.start <= t < track.stop]
        if not here:
            return None
        mask = np.zeros(here[0].frame_size, np.uint8)
        for track in here:
            matrix = track.matrices[t - track.start].double()
            x0, y0, x1, y1 = FACE_BOX
            back, zoom = inverse(matrix), float(scales(matrix))
            centre = back @ torch.tensor([(x0 + x1) / 2, (y0 + y1) / 2, 1.0], dtype=torch.float64)
            turn = float(torch.rad2deg(torch.atan2(back[1, 0], back[0, 0])))
            axes = ((x1 - x0) / zoom, (y1 - y0) / zoom)
            cv2.ellipse(mask, ((float(centre[0]), float(centre[1])), axes, turn), 1, -1)
        return torch.from_numpy(mask).float()

    def column(self, t: int, width: int) -> int:
        """x of the first person's left eye near frame t; the centre without faces."""
        if not self.tracks:
            return width // 2
        track = min(self.tracks, key=lambda track: track.person)
        row = min(max(t - track.start, 0), len(track) - 1)
        return min(max(round(float(track.landmarks[row, 0, 0])), 0), width - 1)


def tracks_in(faces: Sequence[FaceClip], count: int, size: tuple[int, int]) -> tuple[list[FaceTrack], list[int]]:
    """The tracks of faces in `count` frames of (H, W) = size, and where one person's crops end and the next one's begin.

    The frames are those that the faces were cut out of, or the crops themselves, person after person, or those frames at another size; what
    could be two of these is taken for the first.

    Raises:
        ValueError: if they are none of these.
    """
    tracks = [clip.track for clip in faces]
    inside = all(track.stop <= count for track in tracks)
    if inside and all(track.frame_size == size for track in tracks):
        return tracks, []
    if size == (CROP, CROP) and sum(map(len, tracks)) == count:
        starts = np.cumsum([0, *map(len, tracks)]).tolist()
        crops = [replace(aligned_track(len(track)), person=track.person, start=start) for track, start in zip(tracks, starts, strict=False)]
        return crops, starts[1:-1]
    if inside and all(_same_aspect(track.frame_size, size) for track in tracks):
        return [_resized_track(track, size) for track in tracks], []
    height, width = tracks[0].frame_size
    raise ValueError(
        f"the faces were cut from {width} x {height} frames up to frame {max(track.stop for track in tracks) - 1}, but the restored clip has {count} "
        f"frames of {size[1]} x {size[0]}; wire the faces of the same clip, or all restored crops of these people"
    )


def cuts_in(clip: Clip, on_frame: Callable[[int], None] = lambda done: None) -> list[int]:
    """First frames of new shots."""
    detector = ShotCutDetector()
    found: list[int] = []
    for t in range(len(clip)):
        found += detector.push(clip[t][None])
        on_frame(1)
    return [*found, *detector.finish()]


def measured_faces(
    restored: Clip,
    reference: Clip | None,
    faces: Sequence[FaceClip] | None,
    detector: Detector | None,
    *,
    every: int = 1,
    on_frame: Callable[[int], None] = lambda done: None,
) -> MeasuredFaces:
    """Who is where, from faces that were found before, or by a detector in the reference (the restored clip without one).

    With a detector, landmarks are those that it finds in each of the two clips, frame by frame and unsmoothed, in each `every`-th frame and the
    one before it; without one, both clips have the tracks' landmarks, which serves to align the faces but not to compare them.

    Raises:
        ValueError: if the faces do not fit the clip.
    """
    count, size = len(restored), (restored[0].shape[-2], restored[0].shape[-1])
    clips = {"restored": restored} if reference is None else {"reference": reference, "restored": restored}
    searched, base = next(iter(clips.items()))
    cuts = cuts_in(base, on_frame)
    found: dict[str, dict[int, list[Face]]] = {}
    tracks: list[FaceTrack] = []
    if faces:
        tracks, boundaries = tracks_in(faces, count, size)
        cuts = sorted({*cuts, *boundaries})
    elif faces is None and detector is not None:
        recorder = _RecordingDetector(detector)
        tracks = find_tracks(((t, base[t][None]) for t in range(count)), recorder, cuts, on_frame=on_frame)
        found[searched] = recorder.found
    if reference is None or not tracks:
        return MeasuredFaces([], tracks, cuts)
    if detector is None:
        people = []
        for track in tracks:
            landmarks = torch.full((count, 5, 2), torch.nan)
            landmarks[track.start : track.stop] = track.landmarks
            people.append(FaceLandmarks(landmarks, landmarks, found=False, scale=track.scale))
        return MeasuredFaces(people, tracks, cuts)
    shown = {t for track in tracks for t in range(track.start, track.stop)}
    wanted = sorted(shown & {t for s in range(0, count, every) for t in (s - 1, s)})
    for name, clip in clips.items():
        if name not in found:
            found[name] = {}
            for t in wanted:
                found[name][t] = detector(clip[t][None])[0]
                on_frame(1)
    people = []
    for track in tracks:
        in_restored, in_reference = (_detected_landmarks(track, found[name], wanted, count) for name in ("restored", "reference"))
        people.append(FaceLandmarks(in_restored, in_reference, scale=track.scale))
    return MeasuredFaces(people, tracks, cuts)


@dataclass
class _RecordingDetector:
    """A detector that keeps what it finds, by frame number."""

    detector: Detector
    found: dict[int, list[Face]] = field(default_factory=dict)
    name: str = "recorder"

    def __call__(self, frames: Tensor) -> list[list[Face]]:
        seen = self.detector(frames)
        self.found.update(enumerate(seen, len(self.found)))
        return seen


def _detected_landmarks(track: FaceTrack, found: dict[int, list[Face]], wanted: Sequence[int], count: int) -> Tensor:
    """(count, 5, 2) landmarks of the detection with the largest IoU with the track, NaN below SAME_PERSON_IOU."""
    landmarks = torch.full((count, 5, 2), torch.nan)
    for t in wanted:
        if not track.start <= t < track.stop or not found.get(t):
            continue
        overlap = iou(track.boxes[t - track.start][None], torch.stack([face.box for face in found[t]]).float())[0]
        if float(overlap.max()) >= SAME_PERSON_IOU:
            landmarks[t] = found[t][int(overlap.argmax())].landmarks
    return landmarks


def _same_aspect(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes (H, W) have the same aspect ratio, within a pixel of the other's width."""
    return abs(size[1] * (other[0] / size[0]) - other[1]) <= 1


def _resized_track(track: FaceTrack, size: tuple[int, int]) -> FaceTrack:
    """The track in frames resized to (H, W); pixel centres at integers."""
    scale = size[0] / track.frame_size[0]
    return replace(
        track,
        boxes=(track.boxes + 0.5) * scale - 0.5,
        landmarks=(track.landmarks + 0.5) * scale - 0.5,
        matrices=in_larger_frame(track.matrices.double(), scale).float(),
        frame_size=size,
    )
