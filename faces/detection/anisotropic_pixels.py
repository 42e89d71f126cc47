"""Detection in clips with non-square pixels, such as PAL and anamorphic ones: on frames resampled to square pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..types import Face
from .detectors import Detector, following, rescale_points

MAX_ASPECT = 4.0
"""Pixel aspect ratios beyond 4:1 or 1:4 are treated as errors in the file, and as square."""


class AnisotropicPixels:
    """Runs a detector on frames stretched to square pixels, and returns faces in stored pixels.

    aspect: width / height of one stored pixel. The axis with fewer pixels is upsampled, so that no detail is lost.
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
        """State of the wrapped detector; None if it has none."""
        return getattr(self.detector, "memory", None)

    @memory.setter
    def memory(self, known: Any) -> None:
        self.detector.memory = known


def to_stored_pixels(face: Face, x: float, y: float) -> Face:
    """A face in display pixels, converted to stored pixels: coordinates scaled by x and y."""
    mesh = None if face.mesh is None else rescale_points(face.mesh[:, :2], x, y)
    return replace(face, box=rescale_points(face.box.reshape(2, 2), x, y).reshape(4), landmarks=rescale_points(face.landmarks, x, y), mesh=mesh)


def plausible(aspect: float) -> float:
    """`aspect`, or 1 where it is beyond `MAX_ASPECT`."""
    return aspect if 1 / MAX_ASPECT <= aspect <= MAX_ASPECT else 1.0
