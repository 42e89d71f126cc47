"""Faces where pixels are not square, as in PAL and anamorphic clips: looked for in the picture as it is displayed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..types import Face
from .detectors import Detector, following, rescale_points

MAX_ASPECT = 4.0
"""Pixels more oblong than 4 : 1, either way, are taken for a slip in the file, and as square."""


class AnisotropicPixels:
    """A detector that is shown frames with square pixels; boxes and landmarks are those of the frames as they are stored.

    aspect: width / height of one stored pixel. The axis along which pixels are too few is stretched, so that nothing is lost.
    """

    def __init__(self, detector: Detector, aspect: float) -> None:
        self.detector: Any = detector
        self.aspect, self.name = aspect, detector.name

    def __call__(self, frames: Tensor) -> list[list[Face]]:
        height, width = frames.shape[-2:]
        size = (height, round(width * self.aspect)) if self.aspect > 1 else (round(height / self.aspect), width)
        x, y = width / size[1], height / size[0]
        found = self.detector(F.interpolate(frames.float(), size=size, mode="bilinear", align_corners=False))
        return [[to_stored_pixels(face, x, y) for face in faces] for faces in found]

    def follow(self) -> Detector:
        """See `following`."""
        return AnisotropicPixels(following(self.detector), self.aspect)

    @property
    def memory(self) -> Any:
        """That of its detector, if it remembers."""
        return getattr(self.detector, "memory", None)

    @memory.setter
    def memory(self, known: Any) -> None:
        self.detector.memory = known


def to_stored_pixels(face: Face, x: float, y: float) -> Face:
    """A face of the picture as it is displayed in the pixels of the frame as it is stored, which are x and y times as many."""
    mesh = None if face.mesh is None else rescale_points(face.mesh[:, :2], x, y)
    return replace(face, box=rescale_points(face.box.reshape(2, 2), x, y).reshape(4), landmarks=rescale_points(face.landmarks, x, y), mesh=mesh)


def plausible(aspect: float) -> float:
    """`aspect`, or 1 where it is beyond `MAX_ASPECT`."""
    return aspect if 1 / MAX_ASPECT <= aspect <= MAX_ASPECT else 1.0
