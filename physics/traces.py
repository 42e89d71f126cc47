"""Detects that frames were enlarged, and that they were coded in blocks: both leave periodic traces in the pixels.

Enlarging by r interpolates every pixel from a few old ones, by weights that repeat every r pixels. So the spectrum repeats: frequencies f and
1/r - f, in cycles per pixel, carry the same picture and agree in phase from line to line (cyclostationarity). Gallagher (2005) detects it in the
variance of second derivatives, Popescu and Farid (2005) in how well neighbours predict a pixel. In other pictures they do not, whatever these
show. Pairs of frequencies around 1 / (2 r) are compared, where old and new frequencies are about equally strong; this also tells 1.5 from 3, whose
variances have the same period. Later coding hides the traces gradually.

Block codecs (JPEG, MPEG-1, 2 and 4) leave steps at every eighth pixel, or every 8 r-th after an enlargement by r (blockiness; Wang, Bovik and Evans,
2000). H.264 and later codecs smooth their block edges and are not detected.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..colour import luma

SIDE, MIN_SIDE = 320, 96
"""Largest and smallest side, in pixels, of the centre of a frame that is analysed."""
MAX_LENGTH = 256
"""Largest length, in pixels, of the lines whose spectra are taken."""
CONTRAST_WINDOW = 33
"""Pixels over which the contrast of lines is equalised, so that no single edge dominates."""
FACTOR_RANGE = (1.2, 4.6)
"""Enlargements that can be found."""
CONTRAST_FLOOR = 8 / 255
"""Contrast (mean difference of neighbours) below which lines are weighted less, since codecs remove more detail from flat places."""
PAIR_SPAN = 0.1
"""Distance of pairs of frequencies f, a - f from their middle, as a share of a, up to which an enlarged picture has power at both."""
MIN_BIN_DISTANCE = 3
"""Least such distance in bins: nearer ones overlap, whatever the picture."""
MIN_COHERENCE = 0.2
"""Least coherence of an enlarged picture. Uncoded ones have 0.7 to 1, others up to 0.15."""
MIN_COHERENCE_ON_GRID = 0.35
"""MIN_COHERENCE where 16 / r is whole: H.264's own blocks repeat there, with a coherence up to 0.28."""
CERTAIN_COHERENCE = 0.6
"""Coherence from which an enlargement is certain. Below it, it must not lie on the grid of visible blocks, and power must fall as below."""
MIN_POWER_FALL = 9.7
"""Least fall of power in dB from 1/3 to 2/3 of the way to 1/r: 12 to 18 under smooth filters; pixels that were repeated now once, now twice (1.5 by
nearest neighbours) look like 3, but fall by 8 to 11."""
MAX_HARMONIC = 0.4
"""Share of the coherence again at 2 / r: 0.4 to 1 of repeated pixels, 0.06 to 0.35 of pictures enlarged 3 times by smooth filters, and coded."""
HARMONIC_FACTOR = 2.2
"""Enlargement from which both are asked."""
HELD_OUT_SHARE = 0.7
"""Share of the least coherence and strength that the held-out frames must reach."""
MIN_PROMINENCE = 2.0
"""Least ratio of the coherence to that of all other factors, but multiples."""
PEAK_WIDTH = 0.045
"""Frequencies within this distance of a peak belong to it."""

BLOCK = 8
"""Side of a codec's blocks, in its own pixels."""
MIN_CONTRAST = 0.5 / 255
"""Added to the contrast that steps are divided by."""
ENLARGEMENTS_AFTER_CODING = (1.0, 1.25, 4 / 3, 1.5, 1.6, 5 / 3, 1.8, 1.875, 2.0, 2.25, 2.5, 8 / 3, 3.0, 3.75, 4.0)
"""Enlargements after coding that are tried where none was detected."""
MIN_STRENGTH = 0.1
"""Least strength of a grid, down and across: clean footage has up to 0.08, H.264 0.11."""
MIN_CERTAINTY, SUSPECTED_CERTAINTY = 7.0, 5.0
"""Least multiple of its standard error (clean footage and H.264 have up to 5), and the one from which, across or down, the blocks' lines are not
taken for an enlargement."""
MAX_RIVAL = 0.5
"""Largest strength of other phases, as a share of the strongest's; of 8 pixels only the opposite one's, which other periods have too: blocks of
earlier frames move on."""
MAX_STEP_WIDTH = 4
"""Pixels over which a step has spread, at most, that was enlarged with its picture."""


@dataclass(frozen=True)
class Traces:
    """The traces that were found.

    Attributes:
        enlargement: the factor, the same across and down; 1 where none was detected.
        blocks: side of the codec's blocks in pixels, the same across and down; None where none were detected.
    """

    enlargement: float = 1.0
    blocks: float | None = None

    @property
    def any(self) -> bool:
        return self.enlargement > 1 or self.blocks is not None

    def describe(self) -> str:
        """For people; "" where there is nothing."""
        parts = [f"enlarged {self.enlargement:.1f} times"] if self.enlargement > 1 else []
        return ", ".join([*parts, *([f"blocks of {self.blocks:.3g} pixels"] if self.blocks else [])])


def find_traces(frames: Tensor) -> Traces:
    """The traces in frames (N, 3, H, W) in [0, 1], N >= 1, of one shot, at the size in which they were stored.

    They are searched in every other frame; the others are held out to check the result.
    """
    top, left = (max(side - SIDE, 0) // 2 for side in frames.shape[-2:])
    y = luma(frames[..., top : top + SIDE, left : left + SIDE].float())[:, 0]
    if min(y.shape[-2:]) < MIN_SIDE:
        return Traces()
    seen, held_out = (y[::2], y[1::2]) if len(y) > 1 else (y, y)
    steps = [_steps(lines) for lines in (seen, seen.mT)]
    period = block_period(steps, ENLARGEMENTS_AFTER_CODING)
    if period is not None and period > BLOCK:
        if not _is_coherent(seen, BLOCK / period):
            return Traces()
        factor = period / BLOCK
    else:
        folded = [_fold(profile, BLOCK) for profile in steps]
        factor = enlargement(seen, held_out, blocks=any(f.strength >= MIN_STRENGTH and f.certainty >= SUSPECTED_CERTAINTY for f in folded))
        period = block_period(steps, (1.0, factor)) if factor > 1 else period
    if period is not None and min(_fold(_steps(lines), period).strength for lines in (held_out, held_out.mT)) < HELD_OUT_SHARE * MIN_STRENGTH:
        period = None
    return Traces(factor, period)


def enlargement(seen: Tensor, held_out: Tensor, blocks: bool = False) -> float:
    """The factor by which luma `seen` (N, H, W) was enlarged, if `held_out`, other frames of it, confirms it; 1 where none is found.

    Args:
        blocks: whether blocks of 8 pixels may show.
    """
    length = _length(seen)
    frequency = torch.arange(length + 1) / length
    coherence, power = _coherence(seen, length)
    inside = (frequency >= 1 / FACTOR_RANGE[1]) & (frequency <= 1 / FACTOR_RANGE[0])
    least = max(MIN_COHERENCE, 0.8 * float(coherence[inside].max()))
    at = int((inside & (coherence >= least)).int().argmax())  # the lowest: what repeats does so at multiples as well
    at += int(coherence[at : at + round(PEAK_WIDTH * length)].argmax())
    peak, found = float(coherence[at]), float(frequency[at])
    on_grid = abs(16 * found - round(16 * found)) * length / 16 < 1.5
    required = CERTAIN_COHERENCE if on_grid and blocks else MIN_COHERENCE_ON_GRID if on_grid else MIN_COHERENCE
    multiples = torch.stack([(frequency - k * found).abs() for k in (0.5, 1, 1.5, 2, 3, 4)]).amin(0)
    apart = (frequency >= 1 / FACTOR_RANGE[1]) & (frequency < 0.95) & (multiples > PEAK_WIDTH)
    if not on_grid:  # blocks that were enlarged have lines of their own
        eighths = BLOCK * frequency / max(found, 0.1)
        apart &= (eighths - eighths.round()).abs() * found / BLOCK * length > 1.5
    if peak < required or peak < MIN_PROMINENCE * float(coherence[apart].max()):
        return 1.0
    if peak < CERTAIN_COHERENCE and found < 1 / HARMONIC_FACTOR:
        low, high = (power[round((k - 0.06) * at) : round((k + 0.06) * at) + 1].mean() for k in (0.32, 0.68))
        if -10 * math.log10(float(high / low)) < MIN_POWER_FALL or float(coherence[2 * at - 2 : 2 * at + 3].max()) > MAX_HARMONIC * peak:
            return 1.0
    if float(_coherence(held_out, length)[0][at - 1 : at + 2].max()) < HELD_OUT_SHARE * required:
        return 1.0
    weights = coherence[at - 1 : at + 2] ** 2
    return float(weights.sum() / (weights * frequency[at - 1 : at + 2]).sum())


def _is_coherent(y: Tensor, frequency: float) -> bool:
    """Whether luma (N, H, W) may have been enlarged by 1 / `frequency`."""
    length = _length(y)
    at = round(frequency * length)
    return float(_coherence(y, length)[0][at - 1 : at + 2].max()) >= MIN_COHERENCE


def _length(y: Tensor) -> int:
    return min(MAX_LENGTH, *(side - 1 for side in y.shape[-2:])) // 2 * 2


def _coherence(y: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Of luma (N, H, W), across and down, the geometric means of: how far frequencies f and a - f agree, (length + 1,) in [0, 1], by a from 0 to 1;
    and the power of f, (length / 2 + 1,), from 0 to 1/2."""
    first, second, sums, counts = _pairs(length)
    coherence, power = torch.ones(length + 1), torch.ones(length // 2 + 1)
    for lines in (y[:, ::2], y.mT[:, ::2]):
        differences = lines.diff(dim=-1)
        even = differences / (_contrast(differences) + CONTRAST_FLOOR)
        start = (even.shape[-1] - length) // 2
        spectra = torch.fft.rfft(even[..., start : start + length] * torch.hann_window(length)).flatten(0, 1)
        rms = spectra.abs().square().sum(0).sqrt().clamp_min(1e-6)
        products = (spectra.mT @ spectra)[first, second] / (rms[first] * rms[second])
        coherence *= torch.zeros(length + 1, dtype=products.dtype).index_add_(0, sums, products).abs() / counts
        power *= rms / torch.sin(math.pi * torch.arange(length // 2 + 1) / length).clamp_min(1e-3)
    return coherence.sqrt(), power


@lru_cache(4)
def _pairs(length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bins f > g of pairs around the middle of f + g; that sum; and (length + 1,) how many pairs each sum has."""
    bins = torch.arange(length // 2 + 1)
    f, g = (part.flatten() for part in torch.meshgrid(bins, bins, indexing="ij"))
    half = (f - g) / 2
    taken = (g > MIN_BIN_DISTANCE) & (half >= MIN_BIN_DISTANCE) & (half <= (PAIR_SPAN * (f + g)).clamp_min(MIN_BIN_DISTANCE + 2))
    f, g = f[taken], g[taken]
    return f, g, f + g, torch.bincount(f + g, minlength=length + 1).clamp_min(1)


def _contrast(differences: Tensor) -> Tensor:
    """What differences of neighbours along the last axis are near by, on average."""
    sums = F.pad(differences.abs(), (CONTRAST_WINDOW // 2 + 1, CONTRAST_WINDOW // 2), mode="reflect").cumsum(-1)
    return (sums[..., CONTRAST_WINDOW:] - sums[..., :-CONTRAST_WINDOW]) / CONTRAST_WINDOW


def block_period(steps: list[Tensor], factors: tuple[float, ...]) -> float | None:
    """The most certain period of blocks in what `_steps` gives across and down; None where none is certain.

    Args:
        factors: by which blocks may have been enlarged.
    """
    best, period = 0.0, None
    for times in factors:
        x, y = (_fold(profile, BLOCK * times) for profile in steps)
        certainty = min(x.certainty, y.certainty)
        if min(x.strength, y.strength) >= MIN_STRENGTH and certainty >= MIN_CERTAINTY and certainty > best:
            best, period = certainty, BLOCK * times
    return period


def _steps(lines: Tensor) -> Tensor:
    """(MAX_STEP_WIDTH, n): by how much differences over 1, 2, ... pixels along the last axis of (N, H, W) exceed those beside them, as shares.

    The first is that between pixels 0 and 1; NaN where there is nothing beside.
    """
    lines = lines[:, ::2]
    contrast = _contrast(lines.diff(dim=-1)) + MIN_CONTRAST
    found = torch.full((MAX_STEP_WIDTH, contrast.shape[-1]), math.nan)
    for step in range(1, MAX_STEP_WIDTH + 1):
        profile = ((lines[..., step:] - lines[..., :-step]).abs() / contrast[..., step - 1 :]).mean((0, 1))
        beside = torch.stack([profile.roll(k * step) for k in (-2, -1, 1, 2)]).sort(0).values[1:3].mean(0)
        found[step - 1, 2 * step : len(profile) - 2 * step] = ((profile - beside) / profile.median().clamp_min(1e-3))[2 * step : -2 * step]
    return found


class _Folded(NamedTuple):
    """Lines at one period: by what share differences over the strongest phase's exceed those beside (about 1 in JPEG of quality 30, 0.25 of 85), and
    how many standard errors that is."""

    strength: float = 0.0
    certainty: float = 0.0


def _fold(steps: Tensor, period: float) -> _Folded:
    """The strongest phase of a period in what `_steps` gives; of its lines the middling one counts, and other phases may not be as strong."""
    step = min(max(round(period / BLOCK), 1), MAX_STEP_WIDTH)
    excess = torch.cat([steps[step - 1], torch.tensor([math.nan])])
    bins = _bins(len(excess) - 1, period)
    levels = excess[bins].nanmedian(1).values.nan_to_num(0.0)
    at = int(levels.argmax())
    apart = (torch.arange(len(levels)) - at).abs()
    apart = torch.minimum(apart, len(levels) - apart)
    others = levels[apart == BLOCK // 2 if period == BLOCK else apart > step]
    strength = float(levels[at])
    if not strength > 0 or float(others.max()) > MAX_RIVAL * strength:
        return _Folded()
    spread = 1.4826 * float((excess - excess.nanmedian()).abs().nanmedian())
    count = int(excess[bins[at]].isfinite().sum())
    return _Folded(strength, strength * math.sqrt(count) / (1.25 * max(spread, 1e-6)))


@lru_cache(64)
def _bins(length: int, period: float) -> Tensor:
    """(phases, lines) positions of each phase of a period within `length`; `length` where there are no more."""
    count = round(period)
    phase = ((torch.arange(length) % period) * count / period).long() % count
    places = [torch.nonzero(phase == k)[:, 0] for k in range(count)]
    return torch.nn.utils.rnn.pad_sequence(places, batch_first=True, padding_value=length)
