"""Fits enlargement, blur and JPEG to footage with unknown degradation, by the criterion A A+ y = y.

FLAIR (supplement C.2) tunes the forward model of a web clip until A A+ y is about y. Every operator weaker than the true one passes that
test as well, so the strongest one that passes is taken: the widest blur, the largest enlargement, the coarsest JPEG. An operator passes
if |A A+ y - y| nowhere exceeds the footage's own noise, which is measured in the finest frequencies, where the picture has hardly any detail.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from ..colour import luma
from .base import Degradation
from .compose import compose
from .identity import GaussianNoise
from .linear.bicubic import BicubicDownsample
from .linear.blur import Blur
from .nonlinear.jpeg import Jpeg
from .numerics import cached

FRAMES, CANDIDATES = 3, 12
"""Frames that are used, and candidates spread over the clip that they are chosen from; frames without contrast (fades, black) are left out."""
MAX_SIDE, MARGIN = 320, 16
"""Side in pixels of the centre of a frame that is used, and the border of the crop that is ignored."""
BLOCK = 32
"""Side in pixels of the blocks whose residuals are measured. For blur the worst block decides, since the sharpest place limits the blur: over the
whole centre, a face in front of a soft wall passed with blurs twice as wide. Blocks of 16 reject true blurs under noise."""
BLOCK_QUANTILE = 0.9
"""Quantile of the blocks that decides for enlargement: those with overshoots clipped at black or white lie above it."""

SIGMAS = tuple(round(0.3 * 1.06**i, 2) for i in range(64))
"""Blur widths that can be found, in pixels of the stored frame: 0.3 to 11.8 in steps of 6 %."""
ENLARGEMENTS = (2, 3, 4, 5, 6, 8)
QUALITIES = tuple(range(10, 99))

ROUNDING_NOISE = 0.2 / 255
"""Standard deviation of the luma of frames rounded to 8 bits: the least noise there is."""
DAMPING = 0.25
"""A+ is damped so that damping alone leaves a residual of this share of the noise. Tried 0.02 to 1.5 on blurred clips: with less, blurs that are
too wide pass; with more, the true one is rejected."""
MAX_RESIDUAL = 1.25
"""A blur or enlargement passes with a residual up to this multiple of the noise."""
JPEG_MAX_CHANGE = 0.55 / 255
"""Largest change of luma by recompression that rounding to 8 bits explains."""
JPEG_DIP = 0.5
"""Largest ratio of the change by recompression at a quality to that at slightly finer ones, both without rounding. Only at the quality of the last
coding, whose quantised coefficients the frames still hold, does a coarser quality change less than finer ones."""
JPEG_MIN_CHANGE = 0.05 / 255
"""Least change by recompression at those finer qualities."""
VISIBLE_NOISE = 1.0 / 255
"""Noise below this is left out of the operator."""
WHITE_NOISE_BIAS = 0.84
"""`estimate_noise` of pure white noise over its true deviation: the flattest blocks are also those with the least noise."""
MIN_CONTRAST = 2.0 / 255
"""Least standard deviation of luma, without noise, at which a frame can show a blur."""
CLIPPING = 2.0 / 255
"""Blocks this near to black or white have lost their noise and are ignored."""


@dataclass(frozen=True)
class Fit:
    """The fitted degradation.

    Attributes:
        operator: from clean frames to the small footage: blur and decimation by `enlargement`, then JPEG or noise.
        enlargement: factor by which the frames were enlarged after the damage; 1 if they were not.
        sigma: standard deviation of the Gaussian blur, in pixels of the frames; 0 when none is needed.
        quality: of the last JPEG coding, or None.
        noise: standard deviation of the noise in luma, in units of [0, 1]; the operator's is that of each channel.
        residuals: RMS of A A+ y - y in luma, in the worst block, for every blur tried, by its width, in units of [0, 1].
    """

    operator: Degradation
    enlargement: int
    sigma: float
    quality: int | None
    noise: float
    residuals: dict[float, float] = field(repr=False)

    def describe(self) -> str:
        """One line for logs and reports."""
        parts = [f"blur of {self.sigma:.1f} pixels" if self.sigma else "no blur"]
        if self.enlargement > 1:
            parts.insert(0, f"enlarged x{self.enlargement}")
        parts.append(f"JPEG quality {self.quality}" if self.quality else "no JPEG grid")
        return f"{', '.join(parts)}, noise of {self.noise * 255:.1f} grey levels in luma: {self.operator.describe()}"


def fit_degradation(frames: Tensor, *, enlarged: bool = True) -> Fit:
    """The strongest operator that explains frames (N, 3, H, W) in [0, 1].

    Args:
        enlarged: whether to look for an enlargement after the damage; `shrink` then brings frames to their original size.

    Raises:
        ValueError: for frames smaller than 64 pixels, and where no frame has any contrast.
    """
    if frames.ndim != 4 or frames.shape[1] != 3 or min(frames.shape[-2:]) < 64:
        raise ValueError(f"fitting a degradation needs RGB frames (N, 3, H, W) of at least 64 pixels a side, got {tuple(frames.shape)}")
    chosen = _frames_with_contrast(frames)
    quality = fit_quality(chosen)
    noise = _median_noise(luma(_centre_crop(chosen)))
    factor = fit_enlargement(luma(chosen)) if enlarged else 1
    y = shrink(luma(_centre_crop(chosen, factor)), factor)
    sigma, residuals = fit_blur(y, factor, math.hypot(noise, coding_loss(chosen, quality) if quality else 0.0))
    chain: list[Degradation] = []
    if quality and factor == 1:
        chain.append(Jpeg(quality))
    elif noise > VISIBLE_NOISE:
        chain.append(GaussianNoise(round(_channel_noise(_centre_crop(chosen)), 4)))
    if sigma:
        chain.append(Blur.gaussian(sigma, factor=factor))
    elif factor > 1:
        chain.append(BicubicDownsample(factor))
    return Fit(compose(chain), factor, sigma, quality, noise, residuals)


def fit_blur(y: Tensor, factor: int, noise: float) -> tuple[float, dict[float, float]]:
    """The widest Gaussian, followed by decimation, that explains luma (N, 1, h, w), 0 if none does; and |A A+ y - y| of those tried.

    The residual grows with the width, so the widest that passes is found by bisection.
    """
    tried: dict[float, float] = {}
    low, high = -1, len(SIGMAS)
    while high - low > 1:
        middle = (low + high) // 2
        sigma = SIGMAS[middle]
        tried[sigma] = blur_residual(y, sigma, factor, noise)
        low, high = (middle, high) if tried[sigma] <= MAX_RESIDUAL * noise else (low, middle)
    return (SIGMAS[low] if low >= 0 else 0.0), dict(sorted(tried.items()))


def fit_quality(frames: Tensor) -> int | None:
    """The JPEG quality that leaves the luma of frames (N, 3, H, W) unchanged, or None if they show no grid of 8 x 8 blocks.

    Only luma is compared, as encoders differ in how they subsample chroma.
    """
    part = _centre_crop(frames)
    height, width = ((side // 16) * 16 for side in part.shape[-2:])
    whole = part[..., :height, :width].float()
    changes = {quality: float((luma(Jpeg(quality).forward(whole)) - luma(whole)).square().mean().sqrt()) for quality in QUALITIES}
    rounding = changes[QUALITIES[-1]]
    excess = {quality: max(change**2 - rounding**2, 0.0) ** 0.5 for quality, change in changes.items()}
    dips = {}
    for quality in QUALITIES[:-6]:
        finer = sorted(excess[quality + more] for more in range(2, 7))[2]
        if finer > JPEG_MIN_CHANGE and changes[quality] <= JPEG_MAX_CHANGE:
            dips[quality] = excess[quality] / finer
    best = min(dips, key=lambda quality: dips[quality], default=None)
    return best if best is not None and dips[best] <= JPEG_DIP else None


def coding_loss(frames: Tensor, quality: int) -> float:
    """Estimated RMS loss by JPEG in the luma of frames (N, 3, H, W): the loss of coding once more on a grid shifted by half a block."""
    shifted = frames[..., 4:-4, 4:-4].float()
    return float((luma(Jpeg(quality).forward(shifted)) - luma(shifted)).square().mean().sqrt())


def fit_enlargement(y: Tensor) -> int:
    """The largest factor whose bicubic enlargement U explains luma (N, 1, H, W): |U U+ y - y| within rounding.

    Noise does not excuse a residual here: what was enlarged had its noise enlarged with it.
    """
    best = 1
    for factor in ENLARGEMENTS:
        if min(y.shape[-2:]) // factor < 32:
            break
        part = _centre_crop(y, factor)
        part = part[..., : part.shape[-2] // factor * factor, : part.shape[-1] // factor * factor]
        if block_rms(enlarge(shrink(part, factor), factor) - part, BLOCK_QUANTILE) <= MAX_RESIDUAL * ROUNDING_NOISE:
            best = factor
    return best


def blur_residual(y: Tensor, sigma: float, factor: int, noise: float) -> float:
    """RMS of A A+ y - y in the worst block, for a Gaussian of `sigma` pixels followed by decimation, A+ damped by the noise; y is (N, 1, h, w)."""
    operator = Blur.gaussian(sigma, factor=factor)
    detail = y - y.mean((-2, -1), keepdim=True)
    relative = DAMPING * max(noise, ROUNDING_NOISE) / float(detail.std())
    damping = relative / factor**2  # A A^T is 1 / factor^2 on a uniform frame
    return block_rms(operator.forward(operator.pinv(detail, damping=damping)) - detail)


def estimate_noise(y: Tensor) -> float:
    """Standard deviation of white noise in luma (N, 1, H, W), from the diagonal differences of neighbours, where images have least energy.

    The median is over the flattest quarter of 8 x 8 blocks, which excludes edges; blocks at black or white are left out too.
    """
    fine = (y[..., :-1, :-1] - y[..., 1:, :-1] - y[..., :-1, 1:] + y[..., 1:, 1:]) / 2
    energy, level = (F.avg_pool2d(part, 8).flatten() for part in (fine.square(), y[..., :-1, :-1]))
    inside = energy[(level > CLIPPING) & (level < 1 - CLIPPING)]
    energy = inside if len(inside) else energy
    flat = energy.sort().values[: max(len(energy) // 4, 1)]
    return max(float(flat.median().sqrt()), ROUNDING_NOISE)


def shrink(frames: Tensor, factor: int) -> Tensor:
    """U+ y: the small frames whose bicubic enlargement by `factor` is nearest to (..., H, W), which is cropped to multiples of it."""
    if factor == 1:
        return frames
    height, width = (side // factor for side in frames.shape[-2:])
    rows, cols = (torch.linalg.pinv(_upsampling_matrix(length, factor)).to(frames) for length in (height, width))
    return rows @ frames[..., : height * factor, : width * factor] @ cols.mT


def enlarge(frames: Tensor, factor: int) -> Tensor:
    """U x: bicubic enlargement of (..., h, w), as `shrink` inverts it."""
    rows, cols = (_upsampling_matrix(length, factor).to(frames) for length in frames.shape[-2:])
    return rows @ frames @ cols.mT


@cached(16)
def _upsampling_matrix(length: int, factor: int) -> Tensor:
    """(length factor, length) float64 matrix of bicubic interpolation (a = -3/4)."""
    basis = torch.eye(length, dtype=torch.float64)[None, None]
    return F.interpolate(basis, size=(length * factor, length), mode="bicubic", align_corners=False)[0, 0]


def _frames_with_contrast(frames: Tensor) -> Tensor:
    """Up to FRAMES of (N, 3, H, W), evenly spread over those with contrast, as float64."""
    spread = frames[torch.linspace(0, len(frames) - 1, min(CANDIDATES, len(frames))).round().long()].double()
    informative = []
    for frame in spread.split(1):
        y = luma(_centre_crop(frame))
        noise = estimate_noise(y) / WHITE_NOISE_BIAS
        if max(float(y.var()) - noise**2, 0.0) ** 0.5 > max(MIN_CONTRAST, noise / 2):
            informative.append(frame)
    if not informative:
        raise ValueError(
            f"none of the {len(spread)} frames looked at shows more than one tone and noise in its middle, so there is nothing to fit a degradation "
            "to; choose frames with detail, or use Describe Degradation"
        )
    return torch.cat([informative[i] for i in torch.linspace(0, len(informative) - 1, min(FRAMES, len(informative))).round().long().tolist()])


def _median_noise(y: Tensor) -> float:
    """The (lower) median of `estimate_noise` over the frames (N, 1, H, W)."""
    return sorted(estimate_noise(frame) for frame in y.split(1))[(len(y) - 1) // 2]


def _channel_noise(frames: Tensor) -> float:
    """Standard deviation of the noise of one channel of (N, 3, H, W), RMS over the three.

    Luma averages independent noise of the channels (0.67 of it is left), whereas operators add noise to each.
    """
    levels = [_median_noise(channel) for channel in frames.split(1, 1)]
    return math.sqrt(sum(level**2 for level in levels) / len(levels)) / WHITE_NOISE_BIAS


def _centre_crop(frames: Tensor, grid: int = 8) -> Tensor:
    """The centre of the frames, aligned to the grid of JPEG's blocks or of an enlargement."""
    starts = [max(side - MAX_SIDE, 0) // 2 // grid * grid for side in frames.shape[-2:]]
    return frames[..., starts[0] : starts[0] + MAX_SIDE, starts[1] : starts[1] + MAX_SIDE]


def block_rms(error: Tensor, share: float = 1.0, border: int = MARGIN) -> float:
    """Quantile `share` of the blocks' RMS, for (N, 1, H, W); blocks overlap by half, and `border` pixels at the edges are ignored."""
    margin = min(border, *(side // 8 for side in error.shape[-2:]))
    inner = error[..., margin:-margin, margin:-margin].square()
    block = min(BLOCK, *inner.shape[-2:])
    return float(F.avg_pool2d(inner, block, stride=max(block // 2, 1)).flatten().quantile(share).sqrt())
