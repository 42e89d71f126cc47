"""A prior without weights: empirical-Wiener shrinkage of lapped DCT coefficients, made a diffusion prior by Tweedie's formula."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..box_filter import box_filter
from ..diffusion.schedule import Schedule, linear_schedule
from .base import Prior
from .lapped_dct import BANDS, BLOCK, analyse, double, from_opponent, halve, synthesise, to_opponent

SCALES = 3
NOISE_BANDS = [BLOCK * i + j for i in range(BLOCK) for j in range(BLOCK) if 6 <= i + j <= 9]
"""High-frequency bands of a block: clean faces have little energy there, so the median absolute deviation measures the noise."""
VARIANCE_PER_ENERGY = 8.0
"""Prior variance of a coefficient, as a multiple of the condition's energy around it; large because the condition may be blurred."""
VARIANCE_FLOOR = 1e-6
"""Least prior variance, in squared units of the [-1, 1] range."""
NOISE_WEIGHT = 4.0
"""Factor on the variance of the noise in x_t; above 1 the estimate stays closer to the condition and shows less grain."""
PILOT_NOISE_WEIGHT = 1.9
"""Factor on the estimated noise of the condition; above 1 more of it is removed."""


class GaussianPrior(Prior):
    """x_0 = D(x_t / sqrt(alpha_bar_t); sigma_t), sigma_t^2 = (1 - alpha_bar_t) / alpha_bar_t: Tweedie's formula for a Gaussian denoiser D.

    D splits frames into luma and chroma, into scales (Laplacian pyramid), and into lapped 8 x 8 DCT blocks, and gives each coefficient d
    its posterior mean under N(m, v) and noise s: m + v / (v + s^2) (d - m). The condition is the pilot (as in the second step of BM3D,
    Dabov et al. 2007): m is the condition freed of its own noise, v follows its local energy. Without a condition m is 0 and v is what
    the energy of d exceeds the noise by. The finest chroma is shrunk pixel by pixel. Differentiable in x_t and the condition (the
    estimate of the condition's noise counts as constant); frames do not influence each other; any frame size.
    """

    def __init__(self, schedule: Schedule | None = None) -> None:
        self.schedule = schedule or linear_schedule()

    def predict_x0(self, x_t: Tensor, t: int, condition: Tensor | None = None) -> Tensor:
        noisy = x_t / self.schedule.alpha_bar(t) ** 0.5
        return denoise(noisy, self.schedule.sigma(t), condition)


def denoise(noisy: Tensor, sigma: float, pilot: Tensor | None = None, scales: int = SCALES) -> Tensor:
    """E[x | noisy, pilot] for noisy = x + sigma n: GaussianPrior's D. Frames (N, 3, H, W) of one shape in [-1, 1] range.

    Args:
        scales: how many of the finest scales are denoised; coarser ones are taken from the pilot, or from `noisy` without one.

    >>> import torch
    >>> noise = 0.3 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> denoise(noise, 0.3).std().item() < 0.1  # a flat frame shows through
    True
    """
    guide = None if pilot is None else to_opponent(pilot)
    return from_opponent(_denoise_from(0, to_opponent(noisy), sigma, guide, scales))


def _denoise_from(scale: int, x: Tensor, sigma: float, pilot: Tensor | None, scales: int) -> Tensor:
    """Denoises a frame whose finest scale is number `scale` of the pyramid."""
    if scale == scales:
        return x if pilot is None else pilot
    if scale == SCALES - 1:
        return _shrink_blocks(scale, x, sigma, pilot)
    size = (x.shape[-2], x.shape[-1])
    low = halve(x)
    detail = x - double(low, size)
    low_pilot = None if pilot is None else halve(pilot)
    detail_pilot = None if pilot is None or low_pilot is None else pilot - double(low_pilot, size)
    low = _denoise_from(scale + 1, low, sigma, low_pilot, scales)
    if scale > 0:
        return double(low, size) + _shrink_blocks(scale, detail, sigma, detail_pilot)
    luma = _shrink_blocks(scale, detail[:, :1], sigma, None if detail_pilot is None else detail_pilot[:, :1])
    chroma = _shrink_pixels(scale, detail[:, 1:], sigma, None if detail_pilot is None else detail_pilot[:, 1:])
    return double(low, size) + torch.cat([luma, chroma], 1)


def _hop(scale: int) -> int:
    return 2 if scale == SCALES - 1 else 4


def _shrink_blocks(scale: int, x: Tensor, sigma: float, pilot: Tensor | None) -> Tensor:
    hop = _hop(scale)
    gain = noise_gain(scale)[0].to(x)
    c = None if pilot is None else analyse(pilot, hop)
    own = None if c is None else gain * _mad_deviation(c[:, NOISE_BANDS, ::2, ::2] / gain[:, NOISE_BANDS])
    return synthesise(_posterior(analyse(x, hop), sigma * gain, c, own), x.shape, hop)


def _shrink_pixels(scale: int, x: Tensor, sigma: float, pilot: Tensor | None) -> Tensor:
    own = None if pilot is None else _mad_deviation(pilot[..., ::4, ::4])
    return _posterior(x, sigma * noise_gain(scale)[1].to(x), pilot, own)


def _posterior(d: Tensor, noise: Tensor, c: Tensor | None, own: Tensor | None) -> Tensor:
    """Empirical Wiener shrinkage m + v / (v + noise^2) (d - m); c are the pilot's coefficients, `own` the standard deviation of their noise."""
    variance = noise.square()
    if c is None or own is None:
        v = (_local_energy(d) - variance).clamp_min(VARIANCE_FLOOR)
        return d * (v / (v + NOISE_WEIGHT * variance))
    blur = (PILOT_NOISE_WEIGHT * own).square()
    signal = (_local_energy(c) - blur).clamp_min(0)
    m = c * (signal / (signal + (blur + 1e-12)))
    least, least_noisy = (part / VARIANCE_PER_ENERGY for part in (VARIANCE_FLOOR, VARIANCE_FLOOR + NOISE_WEIGHT * variance))
    return torch.lerp(m, d, (signal + least) / (signal + least_noisy))  # v / (v + noise^2), v = VARIANCE_PER_ENERGY signal + VARIANCE_FLOOR


def _local_energy(z: Tensor) -> Tensor:
    """Mean energy in the 3 x 3 neighbourhood."""
    return F.avg_pool2d(z.square(), 3, 1, 1, count_include_pad=False) if z.shape[1] == BANDS else box_filter(z.square(), 3)


def _mad_deviation(z: Tensor) -> Tensor:
    """Robust standard deviation per frame and channel, (n, channels or 1, 1, 1): median(|z|) / 0.6745."""
    axis = 1 if z.shape[1] == len(NOISE_BANDS) else 2
    values = z.detach().abs().flatten(axis)
    middle = (values.shape[axis] - 1) // 2
    if values.device.type == "cpu":  # where NumPy takes a tenth of the time
        median = torch.from_numpy(np.partition(values.float().numpy(), middle, axis)[..., middle])
    else:
        median = values.median(axis).values
    return (median.to(values) / 0.6745).view(z.shape[0], -1, 1, 1)


@lru_cache(maxsize=SCALES)
@torch.inference_mode(False)
def noise_gain(scale: int) -> tuple[Tensor, Tensor]:
    """Standard deviations that unit white noise has at a scale: of each DCT band, (1, 64, 1, 1), and of the pixels, ().

    Made outside inference mode, in which ComfyUI runs nodes: what is kept must serve gradients later.
    """
    side = 256 << scale
    noise = torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(0))
    for _ in range(scale):
        noise = halve(noise)
    if scale < SCALES - 1:
        noise = noise - double(halve(noise), (noise.shape[-2], noise.shape[-1]))
    bands = analyse(noise, _hop(scale))[..., 2:-2, 2:-2].square().mean((0, 2, 3)).sqrt()
    return bands.view(1, BANDS, 1, 1), noise.std()
