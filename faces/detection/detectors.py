"""The detector interface, and choosing one by name."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ...models.checkpoints.catalogue import missing_message, named
from ...models.device import Placed
from ..types import Face

NAMES = ("auto", "blazeface", "retinaface", "mtcnn")


class Detector(Protocol):
    """Detects faces in frames (n, 3, H, W), RGB in [0, 1]: one list per frame, best score first. Frames are independent."""

    name: str

    def __call__(self, frames: Tensor) -> list[list[Face]]: ...


def load_detector(
    name: str = "auto",
    *,
    weights: Path | str | None = None,
    device: str | torch.device = "cpu",
    placed: Placed | None = None,
    rotate: str = "auto",
) -> Detector:
    """The detector `name`: "blazeface" (weights in this package), "retinaface" (needs `weights`, detection_Resnet50_Final.pth), "mtcnn" (needs
    the package facenet-pytorch, which has its weights) or "auto".

    "auto" is RetinaFace where `weights` names an existing file, else BlazeFace.

    Args:
        placed: decides where RetinaFace runs; the others are small and stay on `device`.
        rotate: for BlazeFace: "auto" also searches quarter turns of the frames for lying and upside-down faces, "off" does not.

    Raises:
        ValueError: for an unknown name, or RetinaFace without weights.
        FileNotFoundError: if `weights` does not exist and RetinaFace was asked for.
    """
    from .blazeface import BlazeFaceDetector
    from .mtcnn import MTCNNDetector
    from .retinaface import RetinaFaceDetector

    if name not in NAMES:
        raise ValueError(f"face detector must be one of {', '.join(NAMES)}, got {name!r}")
    path = Path(weights) if weights is not None else None
    if name == "retinaface" and path is None:
        raise ValueError(f"the retinaface detector needs its weights, got none; {missing_message(named('retinaface'), {})} Or choose blazeface.")
    if path is not None and (name == "retinaface" or (name == "auto" and path.is_file())):
        return RetinaFaceDetector(path, device=device, placed=placed)
    if name == "mtcnn":
        return MTCNNDetector(device=device)
    return BlazeFaceDetector(device=device, rotate=rotate)


def following(detector: Detector) -> Detector:
    """The detector's tracker for the consecutive frames of one clip, if it has one; else the detector itself."""
    follow = getattr(detector, "follow", None)
    return detector if follow is None else follow()


def downscale(frame: Tensor, detect_size: int) -> tuple[Tensor, float, float]:
    """A frame (3, H, W) downscaled to a short side of at most `detect_size`, and the factors (x, y) back to frame pixels."""
    height, width = frame.shape[-2:]
    short = min(height, width)
    if short <= detect_size:
        return frame, 1.0, 1.0
    small = (round(height * detect_size / short), round(width * detect_size / short))
    out = torch.nn.functional.interpolate(frame[None], size=small, mode="bilinear", antialias=True, align_corners=False)[0]
    return out, width / small[1], height / small[0]


def rescale_points(points: Tensor, x: float, y: float) -> Tensor:
    """Points (..., 2) scaled by (x, y), pixel centres at integers."""
    factor = torch.tensor([x, y], dtype=points.dtype)
    return (points + 0.5) * factor - 0.5


def suppress(faces: list[Face], overlap: float = 0.7) -> list[Face]:
    """Non-maximum suppression, best score first, by intersection over the smaller box."""
    kept: list[Face] = []
    boxes: list[list[float]] = []
    for face in sorted(faces, key=lambda f: (-f.score, *f.box.tolist())):
        box = face.box.tolist()
        if all(overlap_coefficient(box, better) <= overlap for better in boxes):
            kept.append(face)
            boxes.append(box)
    return kept


def overlap_coefficient(a: list[float], b: list[float]) -> float:
    """Intersection of two boxes (x0, y0, x1, y1) over the area of the smaller one."""
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    return shared / max(min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])), 1e-9)
