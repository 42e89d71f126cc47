"""Estimation of blur and noise from the spectrum of footage, and whether they explain it well enough to be inverted.

The power spectrum of a photograph falls off as a power of frequency (Field, 1987; for faces with an exponent near 3); a Gaussian blur multiplies
it by exp(-(2 pi sigma f)^2), and white noise adds a floor. So three numbers are fitted to the mean spectrum of blocks. Codecs and enlargement do not
fit that model: a codec drops high frequencies where they are small and keeps them where they are large, so that the floor differs from place to
place, and the spectrum of enlarged footage ends too steeply. An estimate is trusted only where neither is seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from ..colour import luma
from .base import Degradation
from .compose import compose
from .crops import crop_operator, observation
from .fit import block_rms
from .identity import GaussianNoise, Identity
from .linear.blur import Blur
from .traces import Traces

BLOCK = 64
"""Side in pixels of the blocks whose spectra are averaged; they overlap by half."""
MIN_SAMPLES = 20
"""Least number of blocks, and of frequencies, for a fit."""
BORDER = 64
"""Pixels of a crop's border that are ignored: they are mostly background."""
CLIPPED_MARGIN = 4 / 255
"""Blocks with values this near to black or white are left out."""
MIN_FREQUENCY = 0.04
"""Least frequency of the fit, in cycles per pixel; lower ones show lighting and shape."""
NOISE_BAND = 0.75
"""Share of the highest frequency above which the spectrum is taken as the noise floor."""
MAX_NOISE_SPREAD = 1.2
"""Largest ratio of the 95th percentile of the blocks' floors to their median that counts as noise of one strength. White noise gives 1.07 to
1.12 whatever lies under it, web video 1.8 and more, clean footage 1.9 and more."""
FIT_SNR = math.e**2
"""Least ratio of power to floor at which the spectrum is fitted."""
MAX_MISFIT = 0.25
"""Largest RMS misfit of the logarithm of power over octave-like bands: blurred portraits give 0.06 to 0.25, enlarged ones 0.31 and more."""
EXPONENTS = tuple(2 + step / 10 for step in range(17))
"""Exponents of the power spectrum that are tried."""
TYPICAL_EXPONENT, EXPONENT_PENALTY = 2.9, 0.03
"""The preferred exponent, and the misfit that a distance of 1 from it costs."""
MIN_BLUR = 0.8
"""Least blur that is inverted, in pixels of the crop; below it the risk is larger than the gain. The blur of cameras themselves is 0.4 to 0.8."""
BLUR_SHRINKAGE = 0.95
"""Share of the estimated width that is inverted: a tenth too little costs half of the gain, a fifth too much all of it."""
MAX_HELD_OUT = 1.1
"""Largest `unexplained` of frames that were not fitted to: right widths give 0.6 to 1, widths half as large again 0.9 to 1.5."""
CONTRADICTION_RATIO = 3.0
"""Factor between footage and description from which the user is warned."""
MIN_DESCRIBED_NOISE = 3.0 / 255
"""Up to this described noise there is no warning that the footage has less."""
MAX_NOISE = 2.0 / 255
"""Noise in luma up to which an estimate is trusted; under more noise a trained restorer does better."""
ROUNDING_NOISE = 0.5 / 255
"""Standard deviation per channel of the error by 4:2:0 subsampling and rounding to 8 bits."""
LUMA_SHARE = 0.67
"""Standard deviation in luma of noise with a standard deviation of 1 in each channel, independent between channels."""


@dataclass(frozen=True)
class Estimate:
    """The estimated damage of one person's crops.

    Attributes:
        sigma: of the Gaussian blur that fits best, in pixels of the frame; 0 for none.
        noise: standard deviation of the floor in luma, in units of [0, 1].
        spread: 95th percentile of the blocks' floors over their median.
        misfit: RMS error of the fit, in the logarithm of power.
        reach: the highest frequency above the floor, as a share of the highest possible.
        held_out: `unexplained` of the frames that were held out; infinite where nothing was fitted.
        scale: crop pixels per frame pixel.
        traces: enlargement and block coding of the frames.
    """

    sigma: float
    noise: float
    spread: float
    misfit: float
    reach: float
    held_out: float = math.inf
    scale: float = 1.0
    traces: Traces = Traces()

    @property
    def fits(self) -> bool:
        """Whether blur and noise alone explain the fitted frames, and the blur is worth inverting."""
        explained = self.spread <= MAX_NOISE_SPREAD and self.misfit <= MAX_MISFIT and self.noise <= MAX_NOISE
        return explained and not self.traces.any and self.sigma * self.scale >= MIN_BLUR

    @property
    def trusted(self) -> bool:
        """Whether `operator` explains the footage well enough for data consistency."""
        return self.fits and self.held_out <= MAX_HELD_OUT

    @property
    def operator(self) -> Degradation:
        """The operator from clean frames to the footage: a slightly smaller blur than estimated, and noise, at least that of rounding.

        Without noise the inverted blur flickers, and gains half a dB less.
        """
        blur = Blur.gaussian(BLUR_SHRINKAGE * self.sigma) if self.sigma else Identity()
        return compose([GaussianNoise(round(max(self.noise / LUMA_SHARE, ROUNDING_NOISE), 4)), blur])

    def describe(self) -> str:
        """One line for people."""
        traces = self.traces.describe()
        if not math.isfinite(self.misfit):
            return f"{traces}, and too little to see to tell more" if traces else "too little to see to tell what damaged it"
        reach = min(self.reach, 1 / (self.traces.enlargement * min(self.scale, 1.0)))  # what is above is the same picture again
        noise, ends = f"noise of {255 * self.noise:.1f} grey levels", f"detail up to {reach:.0%} of the finest"
        if traces:
            return f"{traces}, {ends}, {noise}{' that is not the same everywhere' if self.spread > MAX_NOISE_SPREAD else ''}"
        if self.spread > MAX_NOISE_SPREAD:
            return f"{ends}, {noise} that is not the same everywhere: coded or sharp"
        if self.misfit > MAX_MISFIT:
            return f"{ends}, which ends too steeply for a blur, {noise}: enlarged or coded"
        return f"a blur of {self.sigma:.1f} pixels, {noise}" if self.sigma * self.scale >= MIN_BLUR else f"no blur, {noise}"


NOTHING = Estimate(0.0, 0.0, math.inf, math.inf, 0.0)
"""The estimate for crops with too little detail."""


def estimate_degradation(crops: Tensor, scale: float = 1.0, traces: Traces = Traces()) -> Estimate:
    """The damage of crops (N, 3, S, S) in [0, 1], N >= 1, of one person in one shot; nothing is estimated of crops below 256 pixels.

    It is fitted to every other crop; the others are held out to check it.

    Args:
        scale: crop pixels per frame pixel; 1 for footage that came in aligned.
        traces: what shows in the frames' own pixels.
    """
    nothing = replace(NOTHING, traces=traces)
    if min(crops.shape[-2:]) < 4 * BORDER:
        return nothing
    spectra = _spectra(luma(crops[::2].double())[:, 0, BORDER:-BORDER, BORDER:-BORDER])
    if len(spectra) < MIN_SAMPLES:
        return nothing
    frequency = _frequencies()
    highest = 0.98 * min(0.5, 0.5 / scale)
    floors = spectra[:, (frequency >= NOISE_BAND * highest) & (frequency < highest)].mean(1).sqrt()
    noise, top = (max(float(floors.quantile(share)), 1e-6) for share in (0.5, 0.95))
    found = _fit(spectra.mean(0), frequency, highest, noise**2)
    if found is None:
        return replace(nothing, noise=noise, spread=top / noise)
    sigma, misfit, end = found
    estimate = Estimate(sigma / scale, noise, top / noise, misfit, end / highest, scale=scale, traces=traces)
    if not estimate.fits:
        return estimate
    return replace(estimate, held_out=unexplained(crops[1::2] if len(crops) > 1 else crops, crop_operator(estimate.operator, scale), noise))


def _fit(power: Tensor, frequency: Tensor, highest: float, floor: float) -> tuple[float, float, float] | None:
    """Blur (pixels), misfit and the highest frequency above the floor, of a mean spectrum; None where there is nothing to fit."""
    seen = (frequency >= MIN_FREQUENCY) & (frequency < highest)
    f, p = frequency[seen], power[seen]
    edges = torch.logspace(math.log10(MIN_FREQUENCY), math.log10(highest), 24, dtype=f.dtype)
    bands = [p[(f >= low) & (f < high)].mean() for low, high in pairwise(edges)]
    end = next((float((low * high).sqrt()) for (low, high), band in zip(pairwise(edges), bands, strict=True) if band < FIT_SNR * floor), highest)
    f, p = f[f < end], p[f < end]
    if len(f) < MIN_SAMPLES:
        return None
    weights = f**-2 / (f**-2).sum()  # as many bins as there are at each radius, all octaves count alike
    signal = (p - floor).clamp_min(1e-12).log()
    x = (2 * math.pi * f) ** 2
    mean_x = (weights * x).sum()
    limits = torch.logspace(math.log10(float(f.min())), math.log10(float(f.max()) * 1.001), 10, dtype=f.dtype)
    parts = [part for low, high in pairwise(limits) if bool((part := (f >= low) & (f < high)).any())]
    fits = []
    for exponent in EXPONENTS:
        t = signal + exponent * f.log()
        mean_t = (weights * t).sum()
        square = max(-float((weights * (x - mean_x) * (t - mean_t)).sum() / (weights * (x - mean_x) ** 2).sum()), 0.0)
        error = t - (mean_t - square * (x - mean_x))
        means = torch.stack([(weights[part] * error[part]).sum() / weights[part].sum() for part in parts])
        misfit = float(means.square().mean().sqrt())
        fits.append((misfit + EXPONENT_PENALTY * abs(exponent - TYPICAL_EXPONENT), misfit, math.sqrt(square)))
    _, misfit, sigma = min(fits, key=lambda fit: fit[0])
    return sigma, misfit, end


def _spectra(y: Tensor) -> Tensor:
    """Power spectra (B, 64, 33) of the blocks of luma (N, H, W) that are neither black nor white."""
    blocks = F.unfold(y[:, None], BLOCK, stride=BLOCK // 2).transpose(1, 2).reshape(-1, BLOCK, BLOCK)
    blocks = blocks[(blocks.amin((1, 2)) > CLIPPED_MARGIN) & (blocks.amax((1, 2)) < 1 - CLIPPED_MARGIN)]
    if not len(blocks):
        return blocks
    window = torch.blackman_window(BLOCK, periodic=False, dtype=y.dtype)
    window = window[:, None] * window
    centred = (blocks - blocks.mean((1, 2), keepdim=True)) * (window / window.square().mean().sqrt())
    return torch.fft.rfft2(centred).abs().square() / BLOCK**2


@lru_cache(1)
def _frequencies() -> Tensor:
    """(64, 33), cycles per pixel."""
    return torch.hypot(torch.fft.fftfreq(BLOCK, dtype=torch.float64)[:, None], torch.fft.rfftfreq(BLOCK, dtype=torch.float64)[None])


def unexplained(crops: Tensor, operator: Degradation, noise: float) -> float:
    """|y - A A+ y| of crops y (N, 3, S, S) in [0, 1], in luma, relative to that of noise alone: the 90th percentile over blocks.

    It is about 1 or less where `operator` could have produced the crops. `noise` is a standard deviation in luma, in units of [0, 1]; A+ is damped
    by it. See FLAIR, supplement C.2.
    """
    y = luma(observation(crops.double(), operator))
    detail = y - y.mean((-2, -1), keepdim=True)
    damping = (noise / float(detail.std().clamp_min(1e-6))) ** 2
    white = noise * torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=y.dtype)
    left, least = (block_rms(part - operator.forward(operator.pinv(part, damping=damping)), 0.9, BORDER) for part in (detail, white))
    return left / max(least, noise / 2)


def contradiction(crops: Tensor, operator: Degradation) -> str:
    """A clause for the user on how crops (N, 3, S, S) in [0, 1] contradict the described damage; "" where they do not.

    Args:
        operator: as the crops see it; see crop_operator.
    """
    seen = estimate_degradation(crops)
    described = LUMA_SHARE * math.hypot(operator.noise_level, operator.distortion)
    if not math.isfinite(seen.misfit):
        return ""
    if described > MIN_DESCRIBED_NOISE and seen.noise < described / CONTRADICTION_RATIO:
        return f"noise of {255 * described:.0f} grey levels in luma is described, and the footage has {255 * seen.noise:.1f}"
    blurs = [part for part in operator.chain if part.blurs]
    if not blurs:
        return ""
    rest = unexplained(crops, compose(blurs), max(seen.noise, described))
    return f"the footage has detail that {compose(blurs).describe()} would have taken away" if rest > CONTRADICTION_RATIO else ""
