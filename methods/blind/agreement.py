"""How far two looks at a face agree, the second of them mirrored and shifted, and the share of their correction that is right by it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from ...faces.compositing.strength import rise
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
DOUBT = (0.5, 3.0, 8.0, 10.0)
"""How many times what they differ by is taken for wrong in the finest octave, the next two and all below, of a crop as large as the face in its frame
and growing with the enlarging: what is fine differs from look to look, what is coarse is the same in both and may be wrong all the same. Chosen on
six kinds of damage to three clips and to 78 held-out faces."""
NOISY = 0.7 / 255
"""Deviation of what each look differs by from which on every frame is looked at twice, for the mean of two is less noisy: of web video and television
it is 0.4 to 0.8 levels, of low light and grain 0.7 to 1.2."""
REMEMBERED = 3
"""Looks that what is known rests on: what one frame's say changes from frame to frame, and what is made of it would flicker."""


@dataclass(frozen=True)
class Agreement:
    """What two looks' corrections say of each other, the mean over some frames.

    Attributes:
        lacking: (n, 1, 1, 1), what their correlation over the face lacks of 1.
        energy: (n, 4, 64, 64), of their mean's octaves from the finest on, around each cell.
        difference: of that shape, the energy of what each differs from the mean.
        frames: how many.
    """

    lacking: Tensor
    energy: Tensor
    difference: Tensor
    frames: int = 1

    @classmethod
    def of(cls, mean: Tensor, apart: Tensor, carried: bool = False) -> Agreement:
        """Of one frame, from the mean of two corrections (n, 3, 512, 512) and what the first differs from it.

        Args:
            carried: whether both looks saw what was restored before.
        """
        usual = CARRIED if carried else 1.0
        m, d = mean[FACE], apart[FACE]
        same, other, cross = ((a * b).mean((1, 2, 3), keepdim=True) for a, b in ((m, m), (d, d), (m, d)))
        correlation = (same - other) / ((same + other).square() - 4 * cross.square()).clamp_min(1e-24).sqrt()
        return cls((1 - correlation) / usual, energies(mean), energies(apart) / usual)

    def then(self, now: Agreement) -> Agreement:
        """With one more frame."""
        frames = min(self.frames + 1, REMEMBERED)
        pairs = (self.lacking, now.lacking), (self.energy, now.energy), (self.difference, now.difference)
        lacking, energy, difference = (torch.lerp(before, after, 1 / frames) for before, after in pairs)
        return Agreement(lacking, energy, difference, frames)

    @property
    def noisy(self) -> Tensor:
        """Whether the looks themselves are noisy, ()."""
        return self.difference[FACE_CELLS].sum(1).mean() > NOISY**2

    def shares(self, enlarged: float = 1.0) -> Tensor:
        """Of the octaves of a correction, (n, 4, 64, 64) in [0, 1], what is right.

        A network is never quite the identity where nothing is wrong, and errs where damage is not what it knows; then what it answers to a face and
        to its mirror image differs. Around each place an octave's share is the Wiener gain max(e - d, 0) / e, with the mean's energy e and d that of
        what each differs from it, times `DOUBT`; all of it fades where the corrections of the whole face correlate too little for what they are.

        Args:
            enlarged: crop pixels per pixel of the frame, from 1 on.
        """
        noise = self._removed_noise()
        agreed = torch.lerp(rise(self.lacking, UNSURE, SURE), rise(self.lacking, NOISE_UNSURE, NOISE_SURE), noise)
        doubted = enlarged * (1 - (1 - NOISE_DOUBT) * noise)
        wrong = doubted * torch.cat([doubt * octave for doubt, octave in zip(DOUBT, self.difference.split(1, 1), strict=True)], 1)
        return agreed * (self.energy - wrong).clamp_min(0) / self.energy.clamp_min(1e-12)

    def _removed_noise(self) -> Tensor:
        """How far the correction is that of noise, (n, 1, 1, 1) in [0, 1]."""
        first, _, third, coarse = self.energy[FACE_CELLS].mean((2, 3), keepdim=True).clamp_min(0).sqrt().split(1, 1)
        return rise((first * third).sqrt(), LITTLE_NOISE, MUCH_NOISE) * rise(first / coarse.clamp_min(1e-6), COARSE, FINE)

    def share(self, shares: Tensor) -> Tensor:
        """Of the whole correction, (n, 1, 512, 512): the mean of its octaves' shares, by their energies."""
        whole = (shares * self.energy).sum(1, keepdim=True) / self.energy.sum(1, keepdim=True).clamp_min(1e-12)
        return resized(whole, CELL * whole.shape[-1], "bilinear")


def kept(correction: Tensor, shares: Tensor) -> Tensor:
    """The shares (n, 4, 64, 64) of the octaves of a correction (n, 3, 512, 512), put together.

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
