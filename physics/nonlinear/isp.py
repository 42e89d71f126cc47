"""A camera's processing of sensor values into a picture, its inverse, and the noise of its sensor.

Sensor values (raw) to picture: colours of the mosaic filled in, white balance, colour matrix, clip to [0, 1], gamma, tone curve. The picture back
to sensor values ("unprocessing", Brooks et al. 2019): each step undone, the last first. On pictures in [0, 1] without a mosaic both are exact
inverses; a mosaic keeps one colour a site, and is undone at the sites that it kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..numerics import cached

Mosaic = Literal["none", "rggb", "grbg", "gbrg", "bggr"]
"""Which colours the top left 2 x 2 sites of the sensor have, row by row; "none" has all three everywhere."""
Colour = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]

GAMMA = 2.2
WHITE_BALANCE = (2.0, 1.0, 1.6)
"""Gains of a daylight scene, from sensor to balanced values, green = 1."""
COLOUR: Colour = ((1.65, -0.5, -0.15), (-0.25, 1.6, -0.35), (0.0, -0.55, 1.55))
"""Balanced sensor colours to linear sRGB; rows sum to 1, so grey stays grey."""
PEDESTAL = 64 / 959
"""Black level of a 10-bit sensor over its range: how far below black it still counts, so that noise in the shadows is not cut in half."""

NOISE = {
    800: ((3.82e-3, 3.28e-3, 3.84e-3), (4.5e-5, 2.8e-5, 4.1e-5)),
    1600: ((7.10e-3, 5.91e-3, 7.10e-3), (1.4e-4, 1.2e-4, 1.4e-4)),
    3200: ((1.45e-2, 1.24e-2, 1.42e-2), (4.9e-4, 4.8e-4, 4.8e-4)),
}
"""ISO: (shot, read) of red, green, blue, for the variance shot v + read of a sensor value v in [0, 1]; a calibrated phone sensor."""


@dataclass(frozen=True)
class Isp:
    """One camera's processing. Frames are (..., 3, H, W), any size.

    Attributes:
        gains: white balance of red, green, blue, each from 0.1 to 10.
        colour: the matrix from balanced sensor colours to linear sRGB, invertible; rows that sum to 1 leave grey as it is.
        gamma: the picture is linear ** (1 / gamma), 1 to 4.
        tone: whether the curve 3 v^2 - 2 v^3 follows, as cameras' contrast does.
        mosaic: the sensor's colour filter.

    Raises:
        ValueError: for a value out of range, or a matrix without an inverse.
    """

    gains: tuple[float, float, float] = WHITE_BALANCE
    colour: Colour = COLOUR
    gamma: float = GAMMA
    tone: bool = True
    mosaic: Mosaic = "none"

    def __post_init__(self) -> None:
        if len(self.gains) != 3 or not all(0.1 <= gain <= 10 for gain in self.gains):
            raise ValueError(f"white balance gains are three numbers from 0.1 to 10, got {self.gains}")
        matrix = torch.tensor(self.colour, dtype=torch.float64)
        if matrix.shape != (3, 3) or not matrix.isfinite().all() or abs(float(torch.linalg.det(matrix))) < 1e-3:
            raise ValueError(f"a camera's colour matrix is 3 x 3 with an inverse, got {self.colour}")
        if not 1 <= self.gamma <= 4:
            raise ValueError(f"a camera's gamma is from 1 to 4, got {self.gamma}")
        if self.mosaic not in get_args(Mosaic):
            raise ValueError(f"a sensor's mosaic is one of {', '.join(get_args(Mosaic))}, got {self.mosaic!r}")

    def process(self, raw: Tensor) -> Tensor:
        """Sensor values of all three colours to a picture in [0, 1]."""
        gains, colour, _ = _tensors(self, raw.dtype, raw.device)
        linear = torch.einsum("dc,...chw->...dhw", colour, raw.clamp(0, 1) * gains).clamp(0, 1)
        encoded = linear.clamp(min=1e-8) ** (1 / self.gamma)
        return tone_curve(encoded) if self.tone else encoded

    def unprocess(self, x: Tensor) -> Tensor:
        """A picture, clamped to [0, 1], to sensor values of all three colours: the inverse of `process`."""
        gains, _, inverse = _tensors(self, x.dtype, x.device)
        encoded = inverse_tone_curve(x.clamp(0, 1)) if self.tone else x.clamp(0, 1)
        return torch.einsum("dc,...chw->...dhw", inverse, encoded.clamp(0, 1) ** self.gamma) / gains

    def through_mosaic(self, raw: Tensor) -> Tensor:
        """What is left of sensor values of all three colours where a site has one of them, the others filled in again."""
        return raw if self.mosaic == "none" else demosaic(mosaic_raw(raw, self.mosaic), self.mosaic)


def tone_curve(v: Tensor) -> Tensor:
    """3 v^2 - 2 v^3, [0, 1] onto [0, 1]."""
    return 3 * v**2 - 2 * v**3


def inverse_tone_curve(v: Tensor) -> Tensor:
    """The root of 3 u^2 - 2 u^3 = v in [0, 1]: 1/2 - sin(arcsin(1 - 2 v) / 3)."""
    return 0.5 - torch.sin(torch.asin(1 - 2 * v) / 3)


def noise_std(raw: Tensor, iso: int) -> Tensor:
    """sqrt(shot v + read) for sensor values v in [0, 1], (..., 3, H, W)."""
    shot, read = raw.new_tensor(NOISE[iso])[..., None, None]
    return (shot * raw.clamp(0, 1) + read).sqrt()


def mosaic_raw(raw: Tensor, mosaic: Mosaic) -> Tensor:
    """(..., 3, H, W) to (..., 1, H, W): of each site the colour that its filter lets through."""
    return (raw * _bayer_masks(mosaic, raw)).sum(-3, keepdim=True)


def demosaic(values: Tensor, mosaic: Mosaic) -> Tensor:
    """(..., 1, H, W) to (..., 3, H, W): green by its neighbours' mean, red and blue by the mean of their differences from green around.

    What a site measured stays as it is: mosaic_raw(demosaic(z)) = z.
    """
    sites = _bayer_masks(mosaic, values)
    z = values.reshape(-1, 1, *values.shape[-2:])
    red, green, blue = (site[None, None] for site in sites)
    g = _normalised_convolution(z * green, green, _CROSS)
    planes = [g + _normalised_convolution((z - g) * site, site, _BOX) for site in (red, blue)]
    return torch.cat([planes[0], g, planes[1]], 1).reshape(*values.shape[:-3], 3, *values.shape[-2:])


_CROSS = ((0.0, 1.0, 0.0), (1.0, 4.0, 1.0), (0.0, 1.0, 0.0))
_BOX = ((1.0, 2.0, 1.0), (2.0, 4.0, 2.0), (1.0, 2.0, 1.0))


def _normalised_convolution(known: Tensor, sites: Tensor, kernel: tuple[tuple[float, ...], ...]) -> Tensor:
    """Values known at `sites` spread over their neighbourhood, weights adding up to 1 at borders too."""
    weights = known.new_tensor(kernel)[None, None]
    share = F.conv2d(sites.to(known), weights, padding=1)
    return torch.where(sites > 0, known, F.conv2d(known, weights, padding=1) / share.clamp(min=1e-12))


def _bayer_masks(mosaic: Mosaic, like: Tensor) -> Tensor:
    """(3, H, W) of 0 and 1: where red, green and blue are measured."""
    height, width = like.shape[-2:]
    cell = torch.tensor([[float(letter == colour) for letter in mosaic] for colour in "rgb"], dtype=like.dtype, device=like.device)
    return cell.view(3, 2, 2).repeat(1, (height + 1) // 2, (width + 1) // 2)[:, :height, :width]


@cached(32)
def _tensors(isp: Isp, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    colour = torch.tensor(isp.colour, dtype=torch.float64)
    gains = torch.tensor(isp.gains, dtype=torch.float64)[:, None, None]
    return gains.to(device, dtype), colour.to(device, dtype), torch.linalg.inv(colour).to(device, dtype)
