"""Faces, face tracks and aligned face clips, as passed between packages."""

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

    Landmark order: left eye, right eye, nose, left and right mouth corner, where left is the viewer's left on an upright face. pose is (yaw, pitch)
    in degrees and mesh (468, 2 or more) the FaceMesh vertices in frame pixels; both None if the detector does not give them. agreed: a second
    network confirmed a detection of low confidence.
    """

    box: Tensor
    landmarks: Tensor
    score: float
    pose: tuple[float, float] | None = None
    mesh: Tensor | None = None
    agreed: bool = False


@dataclass(frozen=True, eq=False)
class FaceTrack:
    """One person's consecutive frames within a shot, from the first to the last detection.

    Attributes:
        person: id shared by all tracks of a person in the clip; 0 is the person visible in most frames.
        start: index of the first frame, relative to the first decoded frame.
        boxes: (N, 4) float32, x0, y0, x1, y1 in frame pixels.
        landmarks: (N, 5, 2) float32 in frame pixels, smoothed.
        matrices: (N, 2, 3) float32, similarity transforms (in display space) from frame pixels to the 512 template.
        scores: (N,) detector scores, 0 where interpolated.
        detected: (N,) bool, False where the face was interpolated between two detections.
        sharpness: (N,) float32 in [0, 1], detail relative to the size of the face; 1 if unknown.
        frame_size: (H, W) of the frames.
        shot: first frame of the track's shot and the index after its last; None if unknown.
        embedding: (D,) identity embedding, see faces/tracking/people.py; None if unknown.
        clarity: detail in the embedded faces, in [0, 1], see faces/tracking/people.py; 1 if unknown.
        unsure: whether this may be the same person as another id of the clip.
        pose: (N, 2) yaw and pitch in degrees, smoothed; None if unknown.
        covered: (N,) in [0, 1], fraction of the face that is occluded; None if unknown.
        outline: (N, SPOKES) radii of the mesh outline on the template, see `mesh_points.outline`; None if unknown.
        context: field of view of the crops relative to the template; `matrices` are scaled by it, see `with_context`.
        repainted: whether a generative network drew the restored crops, possibly over occluders.
        difference: whether only the difference between restored and original crops is added to the frame.
        output_scale: upscale factor of the frames that the restored crops are pasted into, if known.
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

    def with_person(self, person: int, *, unsure: bool) -> Self:
        """A copy with this person id."""
        return replace(self, person=person, unsure=unsure)

    @property
    def stop(self) -> int:
        """Index after the last frame."""
        return self.start + len(self)

    @property
    def scale(self) -> float:
        """Median crop pixels per frame pixel: above 1 the crop upsamples the face."""
        return float(torch.linalg.det(self.matrices[:, :, :2].double()).abs().sqrt().median())


@dataclass(frozen=True, eq=False)
class FaceClip:
    """A track and its aligned crops, (N, 3, 512, 512) float32 RGB in [0, 1].

    Attributes:
        note: a restorer's readable summary of what it found and did.
        around: (n, 3, h, w) float32 RGB in [0, 1], unresampled pixels around the face in the track's first frames, for estimating degradations that
            the resampled crops hide; None if unknown.
    """

    track: FaceTrack
    crops: Tensor
    note: str = ""
    around: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.crops) != len(self.track):
            raise ValueError(f"person {self.track.person}: {len(self.crops)} crops for a track of {len(self.track)} frames")
