"""Geometric self-ensemble with a confidence: how far two predictions agree, as Wiener gains of their correction.

The network restores a face twice, once mirrored and shifted (test-time augmentation; Timofte et al., "Seven ways to improve example-based single
image super resolution", CVPR 2016; "self-ensemble" in Lim et al., EDSR, CVPRW 2017). With the corrections c1 and c2, their mean m = (c1 + c2) / 2
and deviation d = c1 - m estimate signal and error. From their local energies in each octave follows a Wiener gain (Wiener, 1949), by which the
correction is scaled: a network is never quite the identity on clean faces and errs on damage it was not trained on, and there the two differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, pairwise

import torch
from torch import Tensor

from ...box_filter import box_filter
from ...colour import luma
from ...faces.compositing.strength import smoothstep
from ...resampling import pooled
from ..base import resized

AUGMENT_SHIFT = 2
"""Crop pixels by which the mirrored input is also shifted along both axes: half of the network's 4 x 4 unshuffled pixels."""
BLOCK, BLOCK_WINDOW = 8, 7
"""Side of the blocks over which energies are averaged, in crop pixels, and of the window of blocks over which they are smoothed."""
FACE_START, FACE_STOP = 96, 416
"""Rows and columns of the crop between which the face is measured, without the background."""
FACE_PIXELS, FACE_BLOCKS = ((..., slice(FACE_START // size, FACE_STOP // size), slice(FACE_START // size, FACE_STOP // size)) for size in (1, BLOCK))

BENEFIT_LOGITS = (
    (0.27, (1.94, 0.0), (-2.8, 0.0), (-6.63, 0.0), (0.0, -3.34, 3.34, 0.0), (-13.0, 13.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
    (2.39, (1.94, 0.73), (-2.8, 2.83), (-3.92, -6.01), (0.76, -2.47, 3.72, -0.3), (-12.96, 13.43, -1.14, 0.31), (-0.65, -0.71, -0.3)),
)
"""Logistic regressions of whether a correction is right, of which either may say so: a constant; weights of the two corrections' agreement over the
face by two gates, and of these times s, the correlation of the correction's first octave with the crop's; of s and of its square below 0; of the
logarithms of the deviations of the correction's octaves, in levels, and of these times s; of those of the crop's first three octaves. What damage
takes is mostly coarse; a fine correction is right where it removes what is there (noise: s below 0) and wrong where it sharpens it (texture, or the
noise itself); and a large one is right where the crop shows little fine detail, though the two agree less. The first is fitted to 39 kinds of
damage to 55 held-out faces and three clips, with losses counted eight times, the second as a change of it, held to be small, to 27 kinds of which
some are stronger."""
AGREEMENT_GATES = (0.13, 0.07), (0.3, 0.05)
"""Decorrelations (1 - correlation) of the two corrections at which their agreement is 0 and 1: 0.12 to 0.5 on clean and hardly damaged faces, 0.05 to
0.25 on damaged ones."""
DECORRELATION_GATE = 0.7, 0.5
"""Decorrelation of the two corrections over the face at which the gate is closed whatever the regression says, and open: at most 0.45 where a
correction was right."""
TEXTURE_GATE = 0.35, 0.2
"""The same for corrections that remove a little of the crop's finest octave: 0.2 to 0.6 where it was hair, pores or film grain that MPEG-4 had made
look like noise (up to 1.9 dB lost), 0.05 to 0.15 where it was noise."""
REMOVAL_GATE = -0.2, -0.45
"""Correlations of the finest octaves of correction and crop between which a correction counts as removing."""
STRONG_REMOVAL = 4.0 / 255, 3.1 / 255
"""Standard deviation of the correction's first octave between which it is too strong to be texture, and may be."""
BENEFIT_GATE = 0.02, 0.9
"""Probabilities of being right at which the gate is closed, so that clean faces stay as they are, and open."""
CHROMA_GATE = 0.17, 0.1
"""Decorrelation of the two corrections' chroma, which codecs damage most, at which its gate is closed and open: 0.05 to 0.16 on coded footage, where
0.4 to 1.2 of the chroma correction is right, and 0.11 to 0.24 on softly blurred RGB, where hardly any is."""
DENOISING_CHROMA_GATE = 0.35, 0.25
"""The same where the correction removes much noise: the predictions then differ and are still both right."""
DENOISING_ERROR_FACTOR = 0.4
"""Factor on the error factors below where the correction removes much noise."""
NOISE_LEVEL_GATE = 1.6 / 255, 2.0 / 255
"""Strength of the correction (geometric mean of the standard deviations of its first and third octave) between which it counts as denoising: 1.6 to
3.5 levels in low light, up to 1.3 where two predictions err and disagree. Texture has little of the third octave, errors little of the first."""
NOISE_SLOPE_GATE = 0.85, 1.05
"""Standard deviation of the first octave over that of the last, between which the correction counts as denoising: 1.1 to 4 in low light, 0.8 in
interlaced pictures, whose corrections are as strong. Chosen on 27 kinds of damage to three clips and 7 to 28 held-out faces."""
RECURRENT_DIFFERENCE = 0.65
"""Energy of the difference where both predictions saw the previous output, relative to where they did not: they share its errors."""
ERROR_FACTORS = 0.2, 1.0, 8.0, 10.0
"""Error energy over difference energy by octave, from the finest on, at a crop scale of 1. Fine errors differ between the predictions, coarse ones
are common to both. Chosen on six kinds of damage to three clips and 14 held-out faces, behind the gate above."""
ERROR_SCALE_POWERS = 2, 2, 1, 1
"""Powers of the crop scale with which these grow: what is finer than the frame's pixels is guessed."""
CHROMA_ERROR_FACTORS = 1.2, 4.0, 11.0, 25.0
"""The same for chroma, growing with the scale. Chosen on 21 kinds of damage to three clips and 7 to 56 held-out faces."""
OCTAVES, CROP_OCTAVES = len(ERROR_FACTORS), len(BENEFIT_LOGITS[0][-1])
NOISY_DIFFERENCE = 0.7 / 255
"""Standard deviation of the difference above which each frame gets two predictions, as their mean is less noisy: 0.4 to 0.8 levels on web video and
television, 0.7 to 1.2 in low light and grain."""
AVERAGED_FRAMES = 3
"""Frames of the running mean of the statistics: those of one frame vary from frame to frame, and gains from them would flicker."""


@dataclass(frozen=True)
class EnsembleStatistics:
    """Statistics of two corrections of n faces, averaged over frames. Channels are the octaves of RGB from the finest on, then those of chroma.

    Attributes:
        decorrelation: (n, 2, 1, 1), 1 - correlation of the two over the face: of RGB and of chroma.
        sharpening: (n, 1, 1, 1), correlation of their mean's finest octave with the crop's: above 0 it sharpens, below it removes noise.
        shown: (n, 3, 1, 1), mean square of the crop's octaves over the face, of its grey.
        energy: (n, 8, 64, 64), local energy of their mean, per octave and block.
        difference: (n, 8, 64, 64), the same of the difference of either from the mean.
        frames: how many are averaged.
    """

    decorrelation: Tensor
    sharpening: Tensor
    shown: Tensor
    energy: Tensor
    difference: Tensor
    frames: int = 1

    @classmethod
    def of(cls, crop: Tensor, mean: Tensor, deviation: Tensor, recurrent: float | Tensor = 0.0) -> EnsembleStatistics:
        """Of one frame.

        Args:
            crop: (n, 3, 512, 512), what is corrected.
            mean, deviation: (n, 3, 512, 512), the mean of the two corrections and the first minus that mean.
            recurrent: share of the crop, in [0, 1], where both predictions saw the previous output.
        """
        expected = 1 - (1 - RECURRENT_DIFFERENCE) * recurrent
        pairs = (mean, deviation), (mean - luma(mean), deviation - luma(deviation))
        measured = torch.cat([decorrelation(m[FACE_PIXELS], d[FACE_PIXELS]) for m, d in pairs], 1)
        energy, difference = (torch.cat([octave_energies(part) for part in parts], 1) for parts in zip(*pairs, strict=True))
        sharpening = finest_correlation(luma(mean[FACE_PIXELS]), luma(crop[FACE_PIXELS]))
        shown = octave_energies(crop.mean(1, keepdim=True))[FACE_BLOCKS][:, :CROP_OCTAVES].mean((2, 3), keepdim=True)
        return cls(measured / expected, sharpening, shown, energy, difference / expected)

    def updated(self, new: EnsembleStatistics) -> EnsembleStatistics:
        """The running mean with one more frame."""
        frames = min(self.frames + 1, AVERAGED_FRAMES)
        weight = 1 / frames
        pairs = ((getattr(self, name), getattr(new, name)) for name in ("decorrelation", "sharpening", "shown", "energy", "difference"))
        measured, sharpening, shown, energy, difference = (torch.lerp(old, latest, weight) for old, latest in pairs)
        return EnsembleStatistics(measured, sharpening, shown, energy, difference, frames)

    @property
    def noisy(self) -> Tensor:
        """Whether single predictions are noisy, a bool tensor ()."""
        return self.difference[FACE_BLOCKS][:, :OCTAVES].sum(1).mean() > NOISY_DIFFERENCE**2

    def gains(self, scale: float = 1.0) -> Tensor:
        """Wiener gains of the correction's octaves, then what is added to them for chroma, (n, 8, 64, 64) in [0, 1].

        Per octave and block max(e - k d, 0) / e, with the energies e of the mean and d of the difference and the error factor k, times a gate for
        the whole face, see `benefit`. Chroma has its own gain where that is larger: codecs damage it most, and luma is less certain.

        Args:
            scale: crop pixels per frame pixel, at least 1.
        """
        deviations = self.energy[FACE_BLOCKS][:, :OCTAVES].mean((2, 3), keepdim=True).clamp_min(0).sqrt()
        denoising = denoising_share(deviations)
        rgb_measured, chroma_measured = self.decorrelation.split(1, 1)
        right = benefit(rgb_measured, self.sharpening, deviations, self.shown.clamp_min(0).sqrt())
        chroma_right = torch.lerp(smoothstep(chroma_measured, *CHROMA_GATE), smoothstep(chroma_measured, *DENOISING_CHROMA_GATE), denoising)
        gate = torch.cat([right, chroma_right], 1)[:, :, None].expand(-1, -1, OCTAVES, -1, -1).flatten(1, 2)
        denoised = 1 - (1 - DENOISING_ERROR_FACTOR) * denoising
        factors = [factor * scale**power for factor, power in zip(ERROR_FACTORS, ERROR_SCALE_POWERS, strict=True)]
        factors += [factor * scale for factor in CHROMA_ERROR_FACTORS]
        error = denoised * torch.cat([factor * octave for factor, octave in zip(factors, self.difference.split(1, 1), strict=True)], 1)
        rgb, chroma = (gate * (self.energy - error).clamp_min(0) / self.energy.clamp_min(1e-12)).split(OCTAVES, 1)
        return torch.cat([rgb, (chroma - rgb).clamp_min(0)], 1)

    def mean_gain(self, gains: Tensor) -> Tensor:
        """Of the whole correction, (n, 1, 512, 512) in [0, 1]: the mean of its octaves' gains, weighted by their energies."""
        energy = self.energy[:, :OCTAVES]
        gain = (gains[:, :OCTAVES] * energy).sum(1, keepdim=True) / energy.sum(1, keepdim=True).clamp_min(1e-12)
        return resized(gain, BLOCK * gain.shape[-1], "bilinear")


def decorrelation(mean: Tensor, deviation: Tensor) -> Tensor:
    """1 - correlation of m + d and m - d, (n, 1, 1, 1)."""
    mm, dd, md = ((a * b).mean((1, 2, 3), keepdim=True) for a, b in ((mean, mean), (deviation, deviation), (mean, deviation)))
    return 1 - (mm - dd) / ((mm + dd).square() - 4 * md.square()).clamp_min(1e-24).sqrt()


def finest_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Correlation of the finest octaves of two images (n, 1, H, W), (n, 1, 1, 1)."""

    def product(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).mean((1, 2, 3), keepdim=True) - (pooled(a, 2) * pooled(b, 2)).mean((1, 2, 3), keepdim=True)

    return product(first, second) / (product(first, first).clamp_min(1e-10) * product(second, second).clamp_min(1e-10)).sqrt()


def benefit(measured: Tensor, sharpening: Tensor, deviations: Tensor, shown: Tensor) -> Tensor:
    """How far a correction is right, (n, 1, 1, 1) in [0, 1], see `BENEFIT_LOGITS`, `DECORRELATION_GATE` and `TEXTURE_GATE`.

    Args:
        measured, sharpening: (n, 1, 1, 1), see `EnsembleStatistics`.
        deviations: (n, 4, 1, 1), standard deviations of the correction's octaves over the face, from the finest on.
        shown: (n, 3, 1, 1), those of the crop's octaves.
    """
    agreement = torch.cat([((measured - apart) / (together - apart)).clamp(0, 1) for apart, together in AGREEMENT_GATES], 1)
    correction, crop = ((255 * values).clamp_min(1e-3).log() for values in (deviations, shown))
    removing = sharpening.clamp_max(0).square()
    groups = agreement, agreement * sharpening, sharpening, removing, correction, correction * sharpening, crop
    features = torch.cat(groups, 1).split(1, 1)
    logits = [
        constant + sum(weight * feature for weight, feature in zip(chain.from_iterable(weights), features, strict=True))
        for constant, *weights in BENEFIT_LOGITS
    ]
    logit = torch.cat(logits, 1).amax(1, keepdim=True)
    closed, opened = BENEFIT_GATE
    texture = smoothstep(sharpening, *REMOVAL_GATE) * smoothstep(deviations[:, :1], *STRONG_REMOVAL)
    agreeing = torch.lerp(smoothstep(measured, *DECORRELATION_GATE), smoothstep(measured, *TEXTURE_GATE), texture)
    return ((logit.sigmoid() - closed) / (opened - closed)).clamp(0, 1) * agreeing


def denoising_share(deviations: Tensor) -> Tensor:
    """How far a correction removes noise, (n, 1, 1, 1) in [0, 1], by the deviations of its octaves as `benefit` takes them."""
    first, _, third, last = deviations.split(1, 1)
    return smoothstep((first * third).sqrt(), *NOISE_LEVEL_GATE) * smoothstep(first / last.clamp_min(1e-6), *NOISE_SLOPE_GATE)


def apply_gains(correction: Tensor, gains: Tensor) -> Tensor:
    """A correction (n, 3, 512, 512) with its octaves scaled by `EnsembleStatistics.gains` (n, 8, 64, 64)."""
    rgb, chroma = gains.split(OCTAVES, 1)
    return apply_octave_gains(correction, rgb) + apply_octave_gains(correction - luma(correction), chroma)


def apply_octave_gains(images: Tensor, gains: Tensor) -> Tensor:
    """Images (n, C, 512, 512) with their octaves scaled by gains (n, 4, 64, 64) and summed up again.

    The sum is collected by pyramid level: the finest gain times the images, plus each mean times the difference of its octave's gain from the finer
    one's.
    """
    levels = mean_pyramid(images)
    steps = gains.diff(dim=1, prepend=torch.zeros_like(gains[:, :1])).split(1, 1)
    result = torch.zeros_like(levels[-1])
    for level, step in zip(reversed(levels), reversed(steps), strict=True):
        side = level.shape[-1]
        result = resized(result, side, "bilinear") + level * resized(step, side, "bilinear")
    return result


def octave_energies(images: Tensor) -> Tensor:
    """Local mean squares of the octaves of (n, C, 512, 512), per block, (n, 4, 64, 64).

    An octave is the difference of successive levels of `mean_pyramid`, the last one what is left; their energies add up to that of the images.
    """
    blocks = images.shape[-1] // BLOCK
    squares = [pooled(level.square().mean(1, keepdim=True), level.shape[-1] // blocks) for level in mean_pyramid(images)]
    octaves = [fine - coarse for fine, coarse in pairwise(squares)]
    return box_filter(torch.cat([*octaves, squares[-1]], 1), BLOCK_WINDOW)


def mean_pyramid(images: Tensor) -> list[Tensor]:
    """(n, C, S, S) and its means over 2 x 2, 4 x 4 and 8 x 8 pixels."""
    levels = [images]
    for _ in range(OCTAVES - 1):
        levels.append(pooled(levels[-1], 2))
    return levels


def augment(images: Tensor) -> Tensor:
    """Images mirrored left to right, then shifted by `AUGMENT_SHIFT` pixels along both axes, cyclically."""
    return images.flip(-1).roll((AUGMENT_SHIFT, AUGMENT_SHIFT), (-2, -1))


def deaugment(images: Tensor) -> Tensor:
    """The inverse of `augment`."""
    return images.roll((-AUGMENT_SHIFT, -AUGMENT_SHIFT), (-2, -1)).flip(-1)
