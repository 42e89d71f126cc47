"""Detections from other tools: boxes or landmarks from ComfyUI's own detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..geometry import landmarks_in_box
from ..types import Face
from .mesh_points import five_points

MESH_POINTS = 468


@dataclass(frozen=True)
class ExternalDetections:
    """Known faces, one list per frame of the clip; takes the place of a Detector in `find_tracks`."""

    faces: Sequence[list[Face]]
    name: str = "given"

    def at(self, index: int, count: int) -> list[list[Face]]:
        """Faces of frames index .. index + count - 1. Raises ValueError if the faces do not reach that far."""
        if index + count > len(self.faces):
            raise ValueError(f"faces were given for {len(self.faces)} frames, got a clip of at least {index + count}; detect on the same frames")
        return list(self.faces[index : index + count])


def faces_from_boxes(boxes: Any, frame_count: int) -> list[list[Face]]:
    """ComfyUI's BOUNDING_BOX: per frame a list of {x, y, width, height, score?}, in pixels; landmarks are the template's, placed in the box.

    A flat list has one box per frame; a single box applies to every frame. Empty boxes are dropped.

    Raises:
        ValueError: if the number of entries is not `frame_count`, or an entry is not a box.
    """
    if isinstance(boxes, Mapping):
        per_frame: list[Any] = [[boxes]] * frame_count
    else:
        per_frame = [[entry] if isinstance(entry, Mapping) else list(entry or ()) for entry in boxes]
        if frame_count == 1 and len(per_frame) > 1 and all(isinstance(entry, Mapping) for entry in boxes):
            per_frame = [list(boxes)]
    if len(per_frame) != frame_count:
        raise ValueError(f"bounding boxes for {len(per_frame)} frames do not fit {frame_count} frames; connect boxes found on the same frames")
    return [[face for box in frame if (face := _face_from_box(box)) is not None] for frame in per_frame]


def _face_from_box(box: Any) -> Face | None:
    if not isinstance(box, Mapping) or not {"x", "y", "width", "height"} <= box.keys():
        raise ValueError(f"a bounding box is a dict with x, y, width and height, got {box!r}")
    x, y, width, height = (float(box[key]) for key in ("x", "y", "width", "height"))
    if not (width > 0 and height > 0):
        return None
    corners = torch.tensor([x, y, x + width, y + height])
    return Face(corners, landmarks_in_box(corners), float(box.get("score", 1.0)))


def faces_from_landmarks(landmarks: Mapping[str, Any], frame_count: int, frame_size: tuple[int, int] | None = None) -> list[list[Face]]:
    """ComfyUI's FACE_LANDMARKS: {"frames": per frame a list of face dicts with landmarks_xy (478, 2), bbox_xyxy and score; "image_size": (H, W)}.

    The mesh is reduced to the template's five points, see `five_points`.

    Raises:
        ValueError: if the number of entries is not `frame_count`, a face has fewer than 468 points, or the landmarks were found in
            frames of another size than `frame_size`, where that is given.
    """
    if len(landmarks["frames"]) != frame_count:
        raise ValueError(f"landmarks for {len(landmarks['frames'])} frames do not fit {frame_count} frames; connect landmarks of the same frames")
    size = landmarks.get("image_size")
    if frame_size is not None and size is not None and tuple(size) != tuple(frame_size):
        raise ValueError(f"landmarks were found in frames of (H, W) = {tuple(size)}, got frames of {tuple(frame_size)}; detect on the same frames")
    return [[_face_from_mesh(face) for face in frame] for frame in landmarks["frames"]]


def _face_from_mesh(face: Mapping[str, Any]) -> Face:
    mesh = torch.as_tensor(face["landmarks_xy"], dtype=torch.float32)
    if mesh.ndim != 2 or len(mesh) < MESH_POINTS or mesh.shape[1] < 2:
        raise ValueError(f"face landmarks must be a mesh of at least {MESH_POINTS} points (N, 2), got {tuple(mesh.shape)}")
    mesh = mesh[:, :2]
    five = five_points(mesh)
    box = torch.as_tensor(face["bbox_xyxy"], dtype=torch.float32) if "bbox_xyxy" in face else torch.cat([mesh.amin(0), mesh.amax(0)])
    return Face(box, five, float(face.get("score", 1.0)), mesh=mesh)
