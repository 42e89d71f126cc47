"""A prior without weights: empirical-Wiener shrinkage of lapped DCT coefficients, made a diffusion prior by Tweedie's formula."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from .prior import Prior
from .schedule import Schedule, linear_schedule

BLOCK = 8
HOP = 4


@dataclass(frozen=True)
class Shrinkage:
    """How evidence is weighed, all relative to local energy.

    Attributes:
        spread: variance that the prior leaves a coefficient, as a share of the condition's energy around it.
        floor: variance left everywhere, in the range's units squared.
        caution: factor on the noise variance; above 1 the estimate stays nearer the condition, with less grain.
        clean: threshold on the condition's own noise, in its standard deviations.
    """

    spread: float = 0.5
    floor: float = 1e-6
    caution: float = 2.0
    clean: float = 1.75


class GaussianPrior(Prior):
    """x_0 = D(x_t / sqrt(abar_t); sigma_t), sigma_t^2 = (1 - abar_t) / abar_t: Tweedie's formula for a Gaussian denoiser D.

    D splits luma and chroma, then scales (Laplacian pyramid), then 8 x 8 lapped DCT blocks, and gives each coefficient its posterior
    mean under N(m, v): m + v / (v + sigma^2) (d - m). The condition is the pilot: m is the condition freed of its own noise, v follows
    its local energy; without a condition m is 0 and v is estimated from x_t. Differentiable in x_t; frames do not influence each other.
    """

    def __init__(self, schedule: Schedule | None = None, shrinkage: Shrinkage | None = None, levels: int = 3) -> None:
        self.schedule = schedule or linear_schedule()
        self.shrinkage = shrinkage or Shrinkage()
        self.levels = levels

    def predict_x0(self, x_t: Tensor, t: int, condition: Tensor | None = None) -> Tensor:
        sigma = self.schedule.sigma(t)
        noisy = x_t / self.schedule.abar(t) ** 0.5
        return denoise(noisy, sigma, condition, self.shrinkage, self.levels)


def denoise(noisy: Tensor, sigma: float, pilot: Tensor | None, how: Shrinkage, levels: int) -> Tensor:
    frames = _opponent(noisy, inverse=False)
    pilots = None if pilot is None else _opponent(pilot, inverse=False)
    return _opponent(_denoise_scale(frames, sigma, pilots, how, levels, 0), inverse=True)


def _denoise_scale(x: Tensor, sigma: float, pilot: Tensor | None, how: Shrinkage, levels: int, level: int) -> Tensor:
    if level == levels - 1:
        return _denoise_blocks(x, sigma, pilot, how, level, levels)
    low = _down(x)
    detail = x - _up(low, x.shape[-2:])
    plow = pdetail = None
    if pilot is not None:
        plow = _down(pilot)
        pdetail = pilot - _up(plow, x.shape[-2:])
    low = _denoise_scale(low, sigma, plow, how, levels, level + 1)
    return _up(low, x.shape[-2:]) + _denoise_blocks(detail, sigma, pdetail, how, level, levels)


def _denoise_blocks(x: Tensor, sigma: float, pilot: Tensor | None, how: Shrinkage, level: int, levels: int) -> Tensor:
    hop = HOP if level < 2 else 2
    gain = _noise_gain(level, levels).to(x)
    variance = how.caution * (sigma * gain) ** 2
    d = _analyse(x, hop)
    if pilot is None:
        v = (_pool(d * d) - (sigma * gain) ** 2).clamp_min(how.floor)
        return _synthesise(d * (v / (v + variance)), x.shape[-2:], hop)
    c = _analyse(pilot, hop)
    energy = _pool(c * c)
    noise = how.clean * _own_noise(c, gain)
    signal = (energy - noise**2).clamp_min(0)
    m = c * (signal / (signal + noise**2 + 1e-12))
    v = how.spread * signal + how.floor
    return _synthesise(m + (d - m) * (v / (v + variance)), x.shape[-2:], hop)


def _own_noise(c: Tensor, gain: Tensor) -> Tensor:
    """Standard deviation (N * 3, 64, 1, 1) of the noise in the condition, by the median of its finest bands, taken as white at this scale."""
    corner = CORNER.to(c.device)
    sample = (c.detach()[:, corner, ::2, ::2].abs() / gain[:, corner]).flatten(1)
    return gain * (sample.median(1).values / 0.6745).view(-1, 1, 1, 1)


CORNER = torch.tensor([8 * i + j for i in range(8) for j in range(8) if 6 <= i + j <= 9])


def _pool(e: Tensor) -> Tensor:
    return F.avg_pool2d(e, 3, 1, 1, count_include_pad=False)


@lru_cache(maxsize=8)
def _basis(hop: int) -> Tensor:
    n = torch.arange(BLOCK, dtype=torch.float64)
    dct = torch.cos(math.pi / BLOCK * (n[None] + 0.5) * n[:, None]) * (2 / BLOCK) ** 0.5
    dct[0] /= 2**0.5
    window = torch.sin(math.pi / BLOCK * (n + 0.5))
    rows = dct * window * (2 * hop / BLOCK) ** 0.5 / 1.0
    return torch.einsum("ki,lj->klij", rows, rows).reshape(BLOCK * BLOCK, 1, BLOCK, BLOCK).float()


def _analyse(x: Tensor, hop: int) -> Tensor:
    n, c, h, w = x.shape
    bottom, right = -h % hop, -w % hop
    x = F.pad(x, (BLOCK - hop, BLOCK - hop + right, BLOCK - hop, BLOCK - hop + bottom), mode="reflect")
    return F.conv2d(x.reshape(n * c, 1, *x.shape[-2:]), _basis(hop).to(x), stride=hop)


def _synthesise(z: Tensor, size, hop: int) -> Tensor:
    x = F.conv_transpose2d(z, _basis(hop).to(z), stride=hop)
    pad = BLOCK - hop
    x = x[..., pad : pad + size[0], pad : pad + size[1]]
    return x.reshape(-1, 3, *x.shape[-2:])


_TAPS = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
_TAPS4 = torch.tensor([-1.0, 3.0, 3.0, -1.0]) / 4
TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8


def _down(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    k = TAPS.to(x)
    x = F.pad(x.reshape(n * c, 1, h, w), (1, 1 + w % 2, 1, 1 + h % 2), mode="replicate")
    x = F.conv2d(x, k.view(1, 1, 1, -1), stride=(1, 2))
    x = F.conv2d(x, k.view(1, 1, -1, 1), stride=(2, 1))
    return x.reshape(n, c, *x.shape[-2:])


def _up(x: Tensor, size) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


@lru_cache(maxsize=16)
def _noise_gain(level: int, levels: int) -> Tensor:
    """Standard deviation of each DCT band at this level for unit white noise."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, 256, 256, generator=g)
    for _ in range(level):
        x = _down(x)
    if level < levels - 1:
        x = x - _up(_down(x), x.shape[-2:])
    hop = HOP if level < 2 else 2
    z = _analyse(x, hop)
    return z.square().mean((0, 2, 3)).sqrt().view(1, -1, 1, 1)


_OPP = torch.tensor([[1 / 3**0.5] * 3, [1 / 2**0.5, 0, -1 / 2**0.5], [1 / 6**0.5, -2 / 6**0.5, 1 / 6**0.5]])


def _opponent(x: Tensor, inverse: bool) -> Tensor:
    m = _OPP.to(x)
    return torch.einsum("ij,njhw->nihw", m.T if inverse else m, x)
