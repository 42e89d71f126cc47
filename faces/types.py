"""What the rooms pass to each other about faces."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from typing_extensions import Self

CROP = 512
"""Side of an aligned crop, in pixels."""


@dataclass(frozen=True)
class Face:
    """One detection: box (x0, y0, x1, y1) and five landmarks (5, 2) in frame pixels, score in [0, 1].

    Landmark order: left eye, right eye, nose, left and right mouth corner, left as seen when the face is upright. pose is (yaw, pitch) in
    degrees and mesh (468, 2 or more) FaceMesh's points in frame pixels, where the detector knows them. agreed: whether another network saw the
    face too that the detector is in doubt of.
    """

    box: Tensor
    landmarks: Tensor
    score: float
    pose: tuple[float, float] | None = None
    mesh: Tensor | None = None
    agreed: bool = False


@dataclass(frozen=True, eq=False)
class FaceTrack:
    """One appearance of a person inside one shot, from its first to its last detection.

    Attributes:
        person: id, the same for all tracks of a person in the clip; 0 is who is seen in most frames.
        start: index of the first frame, counted from the first decoded frame.
        boxes: (N, 4) float32, x0, y0, x1, y1 in frame pixels.
        landmarks: (N, 5, 2) float32 in frame pixels, smoothed.
        matrices: (N, 2, 3) float32, from frame pixels to the 512 template: a similarity of the picture as it is displayed.
        scores: (N,) detector score, 0 where filled in.
        detected: (N,) bool, False where the face was interpolated between two detections.
        sharpness: (N,) float32 in [0, 1], how much detail the face shows for its size; 1 if unknown.
        frame_size: (H, W) of the frames.
        shot: first frame of the track's shot and the index after its last; None if unknown.
        embedding: (D,) what the face looks like, see faces/tracking/people.py; None if unknown.
        clarity: how much of their detail the faces show that were embedded, in [0, 1], see faces/tracking/people.py; 1 if unknown.
        unsure: whether another person of the clip may be the same one.
        pose: (N, 2) yaw and pitch in degrees, smoothed; None if unknown.
        covered: (N,) in [0, 1], the share of the face that something lies before; None if unknown.
        outline: (N, SPOKES) where the mesh ends on the template, see `mesh_points.outline`; None if unknown.
        context: how many times as much as the template the crops show to each side; `matrices` are scaled by it, see `with_context`.
        repainted: whether a network drew its restored crops anew, maybe over what lay before the face.
        difference: whether its restored crops count by how they differ from those before, and the frame keeps all else.
        output_scale: how many times as large the frames are that its restored crops are pasted into, as far as that is known.
    """

    person: int
    start: int
    boxes: Tensor
    landmarks: Tensor
    matrices: Tensor
    scores: Tensor
    detected: Tensor
    sharpness: Tensor
    frame_size: tuple[int, int]
    shot: tuple[int, int] | None = None
    embedding: Tensor | None = None
    clarity: float = 1.0
    unsure: bool = False
    pose: Tensor | None = None
    covered: Tensor | None = None
    outline: Tensor | None = None
    context: float = 1.0
    repainted: bool = False
    difference: bool = False
    output_scale: int = 1

    def __len__(self) -> int:
        return len(self.boxes)

    def known_as(self, person: int, *, unsure: bool) -> Self:
        """The same track, of this person."""
        return replace(self, person=person, unsure=unsure)

    @property
    def stop(self) -> int:
        """Index after the last frame."""
        return self.start + len(self)

    @property
    def scale(self) -> float:
        """Crop pixels per frame pixel, the median over the track: above 1 the face is smaller than its crop."""
        return float(torch.linalg.det(self.matrices[:, :, :2].double()).abs().sqrt().median())


@dataclass(frozen=True, eq=False)
class FaceClip:
    """A track and its aligned crops, (N, 3, 512, 512) float32 RGB in [0, 1].

    Attributes:
        note: what a restorer found in them and did, for people.
        around: (n, 3, h, w) float32 RGB in [0, 1], what lies about the face in the track's first frames, in the pixels in which they were stored:
            crops are turned and scaled, which hides how those came about; None if unknown.
    """

    track: FaceTrack
    crops: Tensor
    note: str = ""
    around: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.crops) != len(self.track):
            raise ValueError(f"person {self.track.person}: {len(self.crops)} crops for a track of {len(self.track)} frames")
