"""Unsharp masking by an amount that is predicted from the face: a network trained for small squared errors draws uncertain detail too faintly.

The amount is a linear function of what the face still shows and of how the network corrected it. Blurred faces whose coarser octaves are strong
for their fine ones get the most; where the correction removes noise, and on clean faces, there is none.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from ...colour import luma
from ..base import resized
from .self_ensemble import FACE_PIXELS, EnsembleStatistics, mean_pyramid

OCTAVE_SHARES = 0.5, 1.0
"""Shares of the amount by which the first and second octave are amplified; the first has more of the errors."""
CONSTANT, RESTORED_WEIGHTS, CROP_WEIGHTS, SHARPENING_WEIGHT, DECORRELATION_WEIGHT = -1.92, (-0.99, -2.06), (0.82, 0.0, 2.38), 1.93, 2.03
"""Of the amount: a constant; weights of the logarithms of the standard deviations, in levels, of the restored face's first two octaves and of the
crop's first three; and of two of `EnsembleStatistics`. Fitted to 51 kinds of damage to 26 held-out people and three clips: PSNR, with losses counted
five times, plus 2 dB per unit of the detail's energy relative to the truth's, up to 0.85."""
MAX_AMOUNT = 1.5
FULL_SCALE, NO_SCALE = 1.5, 2.0
"""Crop pixels per frame pixel up to which the amount holds and from which on it is 0: crops of small faces show no fine octaves, whatever happened
to the frame, and sharpening took 0.1 to 0.2 dB of hardly damaged faces of 100 pixels."""


def unsharp_amount(crop: Tensor, restored: Tensor, statistics: EnsembleStatistics, scale: float = 1.0) -> Tensor:
    """The amount for each face, (n, 1, 1, 1) in [0, `MAX_AMOUNT`].

    Args:
        crop, restored: (n, 3, 512, 512) in [0, 1].
        statistics: of the correction between the two.
        scale: crop pixels per frame pixel, at least 1.
    """
    amount: Tensor = CONSTANT + SHARPENING_WEIGHT * statistics.sharpening + DECORRELATION_WEIGHT * statistics.decorrelation[:, :1]
    for images, weights in ((restored, RESTORED_WEIGHTS), (crop, CROP_WEIGHTS)):
        for octave, weight in zip(luma_octaves(images, len(weights)), weights, strict=True):
            deviation = octave[FACE_PIXELS].std((2, 3), keepdim=True)
            amount = amount + weight * (255 * deviation).clamp_min(1e-3).log()
    faded = (scale - FULL_SCALE) / (NO_SCALE - FULL_SCALE)
    return amount.clamp(0, MAX_AMOUNT) * (1 - min(max(faded, 0.0), 1.0))


def unsharp_mask(images: Tensor, amount: Tensor) -> Tensor:
    """Images (n, 3, H, W) in [0, 1] with their finest two octaves of luma amplified, see `OCTAVE_SHARES`.

    Args:
        amount: (n, 1, H, W); 0 leaves the images as they are.
    """
    first, second = (share * octave for share, octave in zip(OCTAVE_SHARES, luma_octaves(images, len(OCTAVE_SHARES)), strict=True))
    return (images + amount * (first + second)).clamp(0, 1)


def luma_octaves(images: Tensor, number: int) -> list[Tensor]:
    """The finest octaves of the luma of (n, 3, H, W), (n, 1, H, W) each: differences of successive levels of `mean_pyramid`, enlarged."""
    levels = mean_pyramid(luma(images))[: number + 1]
    return [resized(fine - resized(coarse, fine.shape[-1], "bilinear"), images.shape[-1], "bilinear") for fine, coarse in pairwise(levels)]
