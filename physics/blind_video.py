"""The damage that KEEP learns from and is tested on (Feng et al., section 4): blur, noise, a smaller size, noise again, and a stream at some bitrate.

The order is that of its released data set. Its sets VFHQ-mild, medium and heavy "differ in the degree of noise, blur, and compression"; how much is
in a supplement that this package has not seen, so the three levels divide the ranges of VFHQ's training set in thirds, and bits a pixel are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .base import Degradation
from .identity import GaussianNoise
from .linear.bicubic import BicubicDownsample
from .linear.blur import Blur
from .nonlinear.h264 import H264

Range = tuple[float, float]
FACTOR = 4


@dataclass(frozen=True)
class Level:
    """How strong the damage is.

    Attributes:
        sigma: standard deviation of the Gaussian blur along either axis, in pixels of a 512 crop.
        noise: that of the noise, before and after the smaller size, in 1/255.
        bits: of a pixel of the stream.
    """

    sigma: Range
    noise: Range
    bits: Range


LEVELS = {
    "mild": Level((0.1, 3.4), (0.0, 3.3), (0.3, 0.6)),
    "medium": Level((3.4, 6.7), (3.3, 6.7), (0.15, 0.3)),
    "heavy": Level((6.7, 10.0), (6.7, 10.0), (0.075, 0.15)),
}
WHOLE = Level((0.1, 10.0), (0.0, 10.0), (0.075, 0.6))
"""The whole range, for training."""


def blind_video(level: str, seed: int) -> Degradation:
    """One member of a level's family.

    Raises:
        ValueError: for a level that is none of `LEVELS`.
    """
    if level not in LEVELS:
        raise ValueError(f"a level of damage is one of {', '.join(LEVELS)}, got {level!r}")
    return draw_chain(LEVELS[level], torch.Generator().manual_seed(seed))


def draw_chain(level: Level, generator: torch.Generator) -> Degradation:
    """The chain with parameters drawn evenly from the level's ranges, bits evenly in the logarithm; half of the blurs are round."""
    u = torch.rand(7, generator=generator, dtype=torch.float64).tolist()
    first, second = (between(level.sigma, share) for share in u[:2])
    blur = Blur.gaussian(first, first if u[2] < 0.5 else second, 180 * u[3] - 90)
    before, after = (GaussianNoise(between(level.noise, share) / 255) for share in u[4:6])
    bits = level.bits[0] * (level.bits[1] / level.bits[0]) ** u[6]
    return H264(bits=round(bits, 4)) @ after @ BicubicDownsample(FACTOR) @ before @ blur


def between(limits: Range, share: float) -> float:
    """The value at a share of the way from the low limit to the high one."""
    return limits[0] + (limits[1] - limits[0]) * share
