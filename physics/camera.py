"""Sensor noise as it looks after a camera's processing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .identity import Transparent
from .numerics import cached, gaussian_sample, working

GAMMA = 2.2
WHITE_BALANCE = (2.0, 1.0, 1.6)
"""Gains of a daylight scene, from sensor to balanced values, green = 1."""
COLOUR = ((1.65, -0.5, -0.15), (-0.25, 1.6, -0.35), (0.0, -0.55, 1.55))
"""Balanced sensor colours to linear sRGB; rows sum to 1, so grey stays grey."""

NOISE = {
    800: ((3.82e-3, 3.28e-3, 3.84e-3), (4.5e-5, 2.8e-5, 4.1e-5)),
    1600: ((7.10e-3, 5.91e-3, 7.10e-3), (1.4e-4, 1.2e-4, 1.4e-4)),
    3200: ((1.45e-2, 1.24e-2, 1.42e-2), (4.9e-4, 4.8e-4, 4.8e-4)),
}
"""ISO: (shot, read) of red, green, blue, for the variance shot v + read of a sensor value v in [0, 1]; a calibrated phone sensor."""


@dataclass(frozen=True)
class CameraNoise(Transparent):
    """y = P(r + n), r = P^-1(x), n ~ N(0, shot r + read): shot and read noise of a sensor at `iso`, for frames (..., 3, H, W) in [0, 1].

    P, the processing from sensor to picture: clip to [0, 1], white balance, colour matrix, gamma 1/2.2, tone curve 3 v^2 - 2 v^3. There
    is no mosaic. `forward` is P(P^-1(x)), which is x on [0, 1] up to rounding; `observe` adds the noise. Since the noise depends on
    the picture, `noise_level` is its standard deviation on grey of 18 % reflectance, and adjoint and pinv see the identity.

    Raises:
        ValueError: for an iso other than 800, 1600 or 3200, or (on use) frames without three channels.
    """

    iso: int = 1600

    linear = False

    def __post_init__(self) -> None:
        if self.iso not in NOISE:
            raise ValueError(f"camera noise is known at ISO {', '.join(map(str, NOISE))}, got {self.iso}")
        object.__setattr__(self, "noise_level", _level_on_grey(self.iso))

    def forward(self, x: Tensor) -> Tensor:
        return process(unprocess(_rgb(x))).to(x.dtype)

    def observe(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        raw = unprocess(_rgb(x))
        return process(raw + noise_std(raw, self.iso) * gaussian_sample(raw, generator)).to(x.dtype)

    def describe(self) -> str:
        return f"Camera noise at ISO {self.iso}"


def noise_std(raw: Tensor, iso: int) -> Tensor:
    """sqrt(shot v + read) for sensor values v in [0, 1], (..., 3, H, W)."""
    shot, read = raw.new_tensor(NOISE[iso])[..., None, None]
    return (shot * raw.clamp(0, 1) + read).sqrt()


def process(raw: Tensor) -> Tensor:
    """Sensor values (..., 3, H, W) to a picture in [0, 1]."""
    gains, colour, _ = _pipeline(raw.dtype, raw.device)
    linear = torch.einsum("dc,...chw->...dhw", colour, raw.clamp(0, 1) * gains).clamp(0, 1)
    curved = linear.clamp(min=1e-8) ** (1 / GAMMA)
    return 3 * curved**2 - 2 * curved**3


def unprocess(x: Tensor) -> Tensor:
    """A picture (..., 3, H, W), clamped to [0, 1], to sensor values: the inverse of `process`."""
    gains, _, inverse = _pipeline(x.dtype, x.device)
    curved = 0.5 - torch.sin(torch.asin(1 - 2 * x.clamp(0, 1)) / 3)
    return torch.einsum("dc,...chw->...dhw", inverse, curved.clamp(0, 1) ** GAMMA) / gains


def _rgb(x: Tensor) -> Tensor:
    if x.ndim < 3 or x.shape[-3] != 3:
        raise ValueError(f"camera noise needs RGB frames (..., 3, H, W), got {tuple(x.shape)}")
    return working(x)


@cached(16)
def _pipeline(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    colour = torch.tensor(COLOUR, dtype=torch.float64)
    gains = torch.tensor(WHITE_BALANCE, dtype=torch.float64)[:, None, None]
    return gains.to(device, dtype), colour.to(device, dtype), torch.linalg.inv(colour).to(device, dtype)


@cached(8)
def _level_on_grey(iso: int) -> float:
    """Standard deviation after processing, to first order, averaged over the channels."""
    grey = torch.full((3, 1, 1), 3 * 0.18 ** (2 / GAMMA) - 2 * 0.18 ** (3 / GAMMA), dtype=torch.float64)
    raw = unprocess(grey)
    std, step = noise_std(raw, iso), 1e-5
    nudges = step * torch.eye(3, dtype=torch.float64)[:, :, None, None]
    slopes = (process(raw + nudges) - process(raw - nudges)) / (2 * step)
    return (slopes * std[:, None]).square().sum(0).mean().sqrt().item()
