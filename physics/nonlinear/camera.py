"""Sensor noise as it looks after a camera's processing."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..identity import Transparent
from ..numerics import cached, gaussian_sample, upcast
from .dct import NEIGHBOUR_CORRELATION, PICTURE_STD
from .isp import NOISE, PEDESTAL, Isp, noise_std, tone_curve

GREY = 0.18
"""Reflectance of the grey that noise levels refer to."""
SHARED = 0.9
"""Share of an ordinary picture's variance that its three colours have in common."""


@dataclass(frozen=True)
class CameraNoise(Transparent):
    """y = P(r + n), r = P^-1(x), n ~ N(0, shot r + read): shot and read noise of a sensor at `iso`, for frames (..., 3, H, W) in [0, 1].

    P is the camera's processing. Without a mosaic `forward` is P(P^-1(x)), which is x on [0, 1] up to rounding; with one it is what filling in the
    colours leaves of x, noise spreads into its neighbours, and `distortion` says how much is lost on an ordinary picture. `observe` adds the
    noise. Since the noise depends on the picture, `noise_level` is its standard deviation on grey of 18 % reflectance; adjoint and pinv see
    the identity.

    Raises:
        ValueError: for an iso other than 800, 1600 or 3200, or (on use) frames without three channels.
    """

    iso: int = 1600
    isp: Isp = field(default_factory=Isp)

    linear = False

    def __post_init__(self) -> None:
        if self.iso not in NOISE:
            raise ValueError(f"camera noise is known at ISO {', '.join(map(str, NOISE))}, got {self.iso}")
        object.__setattr__(self, "noise_level", _level_on_grey(self.iso, self.isp))
        object.__setattr__(self, "distortion", _lost_on_a_picture(self.isp))

    def forward(self, x: Tensor) -> Tensor:
        raw = self.isp.unprocess(_rgb(x))
        return self.isp.process(self.isp.through_mosaic(raw)).to(x.dtype)

    def observe(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        raw = self.isp.unprocess(_rgb(x))
        noisy = (raw + noise_std(raw, self.iso) * gaussian_sample(raw, generator)).clamp(-PEDESTAL, 1)
        return self.isp.process(self.isp.through_mosaic(noisy)).to(x.dtype)

    def describe(self) -> str:
        seen = "" if self.isp.mosaic == "none" else f" through a {self.isp.mosaic.upper()} mosaic"
        return f"Camera noise at ISO {self.iso}{seen}"


def _rgb(x: Tensor) -> Tensor:
    if x.ndim < 3 or x.shape[-3] != 3:
        raise ValueError(f"camera noise needs RGB frames (..., 3, H, W), got {tuple(x.shape)}")
    return upcast(x)


@cached(32)
def _level_on_grey(iso: int, isp: Isp) -> float:
    """Standard deviation after processing, averaged over the channels: to first order, or of a sample where a mosaic spreads it."""
    encoded = torch.full((3, 1, 1), GREY ** (1 / isp.gamma), dtype=torch.float64)
    grey = tone_curve(encoded) if isp.tone else encoded
    raw = isp.unprocess(grey)
    if isp.mosaic != "none":
        patch = raw.expand(3, 64, 64)
        noisy = patch + noise_std(patch, iso) * gaussian_sample(patch, torch.Generator().manual_seed(0))
        return (isp.process(isp.through_mosaic(noisy)) - grey).square().mean().sqrt().item()
    std, step = noise_std(raw, iso), 1e-5
    nudges = step * torch.eye(3, dtype=torch.float64)[:, :, None, None]
    slopes = (isp.process(raw + nudges) - isp.process(raw - nudges)) / (2 * step)
    return (slopes * std[:, None]).square().sum(0).mean().sqrt().item()


@cached(32)
def _lost_on_a_picture(isp: Isp) -> float:
    """Standard deviation of what the mosaic loses on a first-order Markov picture, as codec_loss has it for codecs."""
    if isp.mosaic == "none":
        return 0.0
    side = 64
    distance = torch.arange(side, dtype=torch.float64)
    root = torch.linalg.cholesky(NEIGHBOUR_CORRELATION ** (distance[:, None] - distance).abs())
    noise = torch.randn(4, side, side, generator=torch.Generator().manual_seed(0)).double()
    correlated = SHARED**0.5 * noise[:1] + (1 - SHARED) ** 0.5 * noise[1:]
    picture = (0.5 + PICTURE_STD * root @ correlated @ root.mT).clamp(0, 1)
    return (isp.process(isp.through_mosaic(isp.unprocess(picture))) - picture).square().mean().sqrt().item()
