"""How far two looks at a face agree, the second of them mirrored and shifted, and the share of their correction that is right by it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from ...colour import luma
from ...faces.compositing.strength import smoothstep
from ..base import resized
from .window_means import around

SHIFT = 2
"""Pixels of the crop by which the second look is shifted along both axes: half of the cells of four pixels in which the network works."""
CELL, NEIGHBOURHOOD = 8, 7
"""Pixels of the crop in a cell, in which energies are taken, and the side of the window around each place in cells."""
FIRST, LAST = 96, 416
"""Rows and columns of the crop between which the two looks are compared: without what is behind."""
FACE, FACE_CELLS = ((..., slice(FIRST // size, LAST // size), slice(FIRST // size, LAST // size)) for size in (1, CELL))
UNSURE, SURE = 0.15, 0.095
"""Two looks at a face answer with corrections whose correlation lacks so much of 1 where none of them helps and
where all do: of clean and hardly damaged clips 0.12 to 0.29, of damaged ones 0.05 to 0.12. Chosen on 21 kinds of damage to three clips."""
COLOURS_UNSURE, COLOURS_SURE = 0.17, 0.1
"""The same of what the colours alone are corrected by, which codecs cost most: they lack 0.05 to 0.16 where coded, where 0.4 to 1.2 of it is right,
and 0.11 to 0.24 on softly blurred RGB, where hardly any is."""
NOISE_UNSURE, NOISE_SURE, NOISE_DOUBT = 0.35, 0.25, 0.4
"""The same where the correction takes much noise away, which it does differently at each look and rightly in both, and what is left there of `DOUBT`:
low light lacks 0.11 to 0.25 and gains 0.7 to 2.6 dB on people whose skin has much texture."""
LITTLE_NOISE, MUCH_NOISE = 1.6 / 255, 2.0 / 255
"""The strength of a correction, the geometric mean of its finest and its third octave's deviations, from which it is that of noise: 1.6 to 3.5 levels
in low light, up to 1.3 where two looks are wrong and disagree: texture has little of the third octave, what is misread little of the first."""
COARSE, FINE = 0.85, 1.05
"""The finest octave's deviation, of that of all that is coarse, from which it is so: 1.1 to 4 in low light, 0.8 in combed pictures, as strong as they
are. Chosen on 27 kinds of damage to three clips and seven to 28 held-out faces."""
CARRIED = 0.65
"""What they differ by where both have seen what was restored before, of what it is else."""
DOUBT, COLOURS_DOUBT = (0.5, 3.0, 8.0, 10.0), (1.2, 4.0, 11.0, 25.0)
"""How many times what they differ by is taken for wrong in the finest octave, the next two and all below, of a crop as large as the face in its frame
and growing with the enlarging: what is fine differs from look to look, what is coarse is the same in both and may be wrong all the same. Chosen on
six kinds of damage to three clips and to 78 held-out faces; that of the colours alone on 21 to three clips and seven to 56."""
OCTAVES = len(DOUBT)
NOISY = 0.7 / 255
"""Deviation of what each look differs by from which on every frame is looked at twice, for the mean of two is less noisy: of web video and television
it is 0.4 to 0.8 levels, of low light and grain 0.7 to 1.2."""
REMEMBERED = 3
"""Looks that what is known rests on: what one frame's say changes from frame to frame, and what is made of it would flicker."""


@dataclass(frozen=True)
class Agreement:
    """What two looks' corrections say of each other, the mean over some frames.

    Attributes:
        lacking: (n, 2, 1, 1), what their correlation over the face lacks of 1: of all, and of what the colours differ from luma by.
        energy: (n, 8, 64, 64), of their mean's octaves from the finest on, around each cell: of all, then of the colours alone.
        difference: of that shape, the energy of what each differs from the mean.
        frames: how many.
    """

    lacking: Tensor
    energy: Tensor
    difference: Tensor
    frames: int = 1

    @classmethod
    def of(cls, mean: Tensor, apart: Tensor, carried: float | Tensor = 0.0) -> Agreement:
        """Of one frame, from the mean of two corrections (n, 3, 512, 512) and what the first differs from it.

        Args:
            carried: of the crop, how much of what was restored before both looks saw, in [0, 1].
        """
        usual = 1 - (1 - CARRIED) * carried
        pairs = (mean, apart), (mean - luma(mean), apart - luma(apart))
        lacking = torch.cat([lack(m[FACE], d[FACE]) for m, d in pairs], 1)
        energy, difference = (torch.cat([energies(part) for part in parts], 1) for parts in zip(*pairs, strict=True))
        return cls(lacking / usual, energy, difference / usual)

    def then(self, now: Agreement) -> Agreement:
        """With one more frame."""
        frames = min(self.frames + 1, REMEMBERED)
        pairs = (self.lacking, now.lacking), (self.energy, now.energy), (self.difference, now.difference)
        lacking, energy, difference = (torch.lerp(before, after, 1 / frames) for before, after in pairs)
        return Agreement(lacking, energy, difference, frames)

    @property
    def noisy(self) -> Tensor:
        """Whether the looks themselves are noisy, ()."""
        return self.difference[FACE_CELLS][:, :OCTAVES].sum(1).mean() > NOISY**2

    def shares(self, enlarged: float = 1.0) -> Tensor:
        """What is right of the octaves of a correction, and what more of its colours, (n, 8, 64, 64) in [0, 1].

        A network is never quite the identity where nothing is wrong, and errs where damage is not what it knows; then what it answers to a face and
        to its mirror image differs. Around each place an octave's share is the Wiener gain max(e - d, 0) / e, with the mean's energy e and d that of
        what each differs from it, times `DOUBT`; all of it fades where the corrections of the whole face correlate too little for what they are. Of
        the colours it is what they show by themselves where that is more: codecs cost them most, and of luma the looks are less sure.

        Args:
            enlarged: crop pixels per pixel of the frame, from 1 on.
        """
        noise = self._removed_noise()
        limits = (UNSURE, SURE), (COLOURS_UNSURE, COLOURS_SURE)
        usual = torch.cat([smoothstep(lacking, *limit) for lacking, limit in zip(self.lacking.split(1, 1), limits, strict=True)], 1)
        noisy = smoothstep(self.lacking, NOISE_UNSURE, NOISE_SURE)
        agreed = torch.lerp(usual, noisy, noise)[:, :, None].expand(-1, -1, OCTAVES, -1, -1).flatten(1, 2)
        doubted = enlarged * (1 - (1 - NOISE_DOUBT) * noise)
        octaves = zip(DOUBT + COLOURS_DOUBT, self.difference.split(1, 1), strict=True)
        wrong = doubted * torch.cat([doubt * octave for doubt, octave in octaves], 1)
        whole, colours = (agreed * (self.energy - wrong).clamp_min(0) / self.energy.clamp_min(1e-12)).split(OCTAVES, 1)
        return torch.cat([whole, (colours - whole).clamp_min(0)], 1)

    def _removed_noise(self) -> Tensor:
        """How far the correction is that of noise, (n, 1, 1, 1) in [0, 1]."""
        octaves = self.energy[FACE_CELLS][:, :OCTAVES].mean((2, 3), keepdim=True)
        first, _, third, coarse = octaves.clamp_min(0).sqrt().split(1, 1)
        return smoothstep((first * third).sqrt(), LITTLE_NOISE, MUCH_NOISE) * smoothstep(first / coarse.clamp_min(1e-6), COARSE, FINE)

    def share(self, shares: Tensor) -> Tensor:
        """Of the whole correction, (n, 1, 512, 512): the mean of its octaves' shares, by their energies."""
        energy = self.energy[:, :OCTAVES]
        whole = (shares[:, :OCTAVES] * energy).sum(1, keepdim=True) / energy.sum(1, keepdim=True).clamp_min(1e-12)
        return resized(whole, CELL * whole.shape[-1], "bilinear")


def lack(mean: Tensor, apart: Tensor) -> Tensor:
    """What the correlation of m + d and m - d lacks of 1, (n, 1, 1, 1)."""
    same, other, cross = ((a * b).mean((1, 2, 3), keepdim=True) for a, b in ((mean, mean), (apart, apart), (mean, apart)))
    return 1 - (same - other) / ((same + other).square() - 4 * cross.square()).clamp_min(1e-24).sqrt()


def kept(correction: Tensor, shares: Tensor) -> Tensor:
    """The shares (n, 8, 64, 64) of the octaves of a correction (n, 3, 512, 512), and more of its colours', put together."""
    whole, colours = shares.split(OCTAVES, 1)
    return kept_octaves(correction, whole) + kept_octaves(correction - luma(correction), colours)


def kept_octaves(correction: Tensor, shares: Tensor) -> Tensor:
    """The shares (n, 4, 64, 64) of the octaves of a correction (n, C, 512, 512), put together.

    That is the finest octave's share of all of it, and of its means over 2, 4 and 8 pixels by how much their octaves' shares are larger.
    """
    levels = means(correction)
    steps = shares.diff(dim=1, prepend=torch.zeros_like(shares[:, :1])).split(1, 1)
    result = torch.zeros_like(levels[-1])
    for level, step in zip(reversed(levels), reversed(steps), strict=True):
        side = level.shape[-1]
        result = resized(result, side, "bilinear") + level * resized(step, side, "bilinear")
    return result


def energies(images: Tensor) -> Tensor:
    """Mean squares of the octaves of (n, C, 512, 512) around each cell, (n, 4, 64, 64).

    An octave is what means over 2 x 2 lack of what they are means of; the last is all that is left. Their mean squares add up to that of the images.
    """
    cells = images.shape[-1] // CELL
    squares = [F.avg_pool2d(part.square().mean(1, keepdim=True), part.shape[-1] // cells) for part in means(images)]
    octaves = [fine - coarse for fine, coarse in pairwise(squares)]
    return around(torch.cat([*octaves, squares[-1]], 1), NEIGHBOURHOOD)


def means(images: Tensor) -> list[Tensor]:
    """(n, C, S, S), and its means over 2, 4 and 8 pixels."""
    levels = [images]
    for _ in DOUBT[1:]:
        levels.append(F.avg_pool2d(levels[-1], 2))
    return levels


def mirrored(images: Tensor) -> Tensor:
    """What the second look sees: left for right, and `SHIFT` pixels further along both axes; what is shifted out comes in on the other side."""
    return images.flip(-1).roll((SHIFT, SHIFT), (-2, -1))


def unmirrored(images: Tensor) -> Tensor:
    """The inverse of `mirrored`."""
    return images.roll((-SHIFT, -SHIFT), (-2, -1)).flip(-1)
