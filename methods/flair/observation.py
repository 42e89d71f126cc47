"""What FLAIR's sampler knows of a clip: the operator A from clean crops to the observation, the observation y, and the condition c."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from ...faces.types import CROP, FaceTrack
from ...physics.base import Degradation
from ...physics.crops import crop_operator, observation
from ...physics.identity import Identity


@dataclass(frozen=True)
class TrackObservation:
    """Turns crops into (y, c) for one clip.

    Attributes:
        operator: A, from a clean (N, 3, 512, 512) crop in [0, 1] to y.
        raw: whether crops of the size of y are the observation itself (aligned footage).
    """

    operator: Degradation
    raw: bool

    @property
    def noise(self) -> float:
        """Standard deviation of y - A x for the clean x: noise, and what codecs lose; in units of [0, 1]."""
        return math.hypot(self.operator.noise_level, self.operator.distortion)

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of y."""
        return self.operator.output_size((CROP, CROP))

    def check(self, crops: Tensor) -> None:
        """Raises ValueError for crops that are neither 512 x 512 nor, if `raw`, of the size of y."""
        size = tuple(crops.shape[-2:])
        if crops.ndim == 4 and crops.shape[1] == 3 and (size == (CROP, CROP) or (self.raw and size == self.size)):
            return
        left = f", or the {self.size[1]} x {self.size[0]} that the degradation leaves of them" if self.raw and self.size != (CROP, CROP) else ""
        got = f"{size[1]} x {size[0]} (width x height)" if crops.ndim == 4 and crops.shape[1] == 3 else f"a batch of the shape {tuple(crops.shape)}"
        small = "" if left or not self.raw else ", or say which degradation made them small"
        raise ValueError(f"the FLAIR sampler takes RGB crops of {CROP} x {CROP}{left}, got {got}; align or resize them first{small}")

    def __call__(self, crops: Tensor, upsampling: str = "bicubic") -> tuple[Tensor, Tensor]:
        """y (N, 3, h, w) in [0, 1] and c (N, 3, 512, 512) in [-1, 1] of crops in [0, 1]; see `condition`."""
        if tuple(crops.shape[-2:]) == self.size:
            return crops, condition(crops, upsampling)
        return observation(crops, self.operator), condition(crops, upsampling)


def condition(frames: Tensor, upsampling: str = "bicubic", size: tuple[int, int] = (CROP, CROP)) -> Tensor:
    """c: frames in [0, 1] brought to `size`, in [-1, 1].

    upsampling: "bicubic" (a = -3/4, no antialiasing) or "area" (whole factors repeat pixels): as the prior's network saw it in training.
    """
    if tuple(frames.shape[-2:]) != size:
        frames = F.interpolate(frames, size=size, mode=upsampling)
    return (frames * 2 - 1).clamp(-1, 1)


def observation_model(degradation: Degradation | None, track: FaceTrack | None) -> TrackObservation:
    """The operator from clean crops to the observation.

    For aligned footage (no track) it is `degradation` itself. The crops of a track were resampled from frames that `degradation` describes, so
    there it is physics.crops.crop_operator at the track's scale. With `degradation` None it is the identity.
    """
    known = Identity() if degradation is None else degradation
    if track is None:
        return TrackObservation(known, raw=True)
    return TrackObservation(crop_operator(known, track.scale, side=CROP), raw=False)
