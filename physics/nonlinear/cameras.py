"""White balances and colour matrices of many cameras under many lights, for noise as pictures from anywhere have it.

The pseudo-targets' official script draws both anew for every picture: a light from the Gaussian of a pool's lights, within their range, and the
colour matrix as the mean of its three nearest in the pool, each weighted by one over its squared distance. So here. Its pool holds measured
cameras under a licence that this package cannot take over; ours is computed: sensors with Gaussian sensitivities under black-body light, the
matrix being the least-squares way from balanced sensor values of smooth reflectances to linear sRGB, with rows that sum to 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..identity import Transparent
from .camera import CameraNoise
from .isp import Colour, Isp, Mosaic

SENSORS, LIGHTS = 12, tuple(range(2500, 8501, 500))
"""Cameras of the pool, and the temperatures in K that each is asked under."""
NEAREST = 3

WAVELENGTHS = np.arange(400.0, 701.0, 10.0)
"""Wavelengths in nm."""
PEAKS, WIDTHS, EFFICIENCIES = (602.0, 533.0, 462.0), (32.0, 40.0, 30.0), (0.62, 1.0, 0.72)
"""Of the red, green and blue sensitivities, in nm and relative: typical of mobile sensors; the pool's vary by 6 nm, 10 % and 12 %."""
TO_SRGB = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
"""CIE XYZ to linear sRGB (IEC 61966-2-1)."""


@dataclass(frozen=True)
class Pool:
    """What cameras do: lights (n, 2), the sensor's red and blue of white over its green; their colour matrices (n, 3, 3)."""

    lights: np.ndarray
    matrices: np.ndarray

    def draw(self, seed: int) -> tuple[tuple[float, float, float], Colour]:
        """Gains and colour matrix of one camera under one light."""
        random = np.random.default_rng(seed)
        mean, spread = self.lights.mean(0), np.cov(self.lights.T)
        low, high = self.lights.min(0), self.lights.max(0)
        light = mean
        for _ in range(1000):
            light = random.multivariate_normal(mean, spread)
            if np.all((low < light) & (light < high)):
                break
        distance = ((self.lights - light) ** 2).mean(1)
        nearest = np.argsort(distance)[:NEAREST]
        weights = 1 / np.maximum(distance[nearest], 1e-12)
        matrix = np.tensordot(weights / weights.sum(), self.matrices[nearest], 1)
        red, blue = (1 / light).tolist()
        rows: list[list[float]] = matrix.tolist()
        return (red, 1.0, blue), tuple(tuple(row) for row in rows)  # type: ignore[return-value]


@cache
def camera_pool() -> Pool:
    """The cameras, the same on every machine."""
    random = np.random.default_rng(0)
    reflectances = _reflectances(random)
    wanted = reflectances @ (TO_SRGB @ _colour_matching_functions() * _black_body(6500)).T
    wanted /= wanted[-1]
    lights, matrices = [], []
    for _ in range(SENSORS):
        peaks = np.array(PEAKS) + random.normal(0, 6, 3)
        widths = np.array(WIDTHS) * (1 + random.normal(0, 0.1, 3))
        efficiencies = np.array(EFFICIENCIES) * (1 + random.normal(0, 0.12, 3))
        sensor = efficiencies[:, None] * np.exp(-0.5 * ((WAVELENGTHS - peaks[:, None]) / widths[:, None]) ** 2)
        for temperature in LIGHTS:
            raw = reflectances @ (sensor * _black_body(temperature)).T
            lights.append(raw[-1, [0, 2]] / raw[-1, 1])
            matrices.append(_fit_colour_matrix(raw / raw[-1], wanted))
    return Pool(np.array(lights), np.array(matrices))


def sampled_isp(seed: int, *, mosaic: Mosaic = "grbg", tone: bool = True) -> Isp:
    """The processing of a camera drawn from the pool."""
    gains, colour = camera_pool().draw(seed)
    return Isp(gains=gains, colour=colour, tone=tone, mosaic=mosaic)


@dataclass(frozen=True)
class CameraPerFrame(Transparent):
    """`CameraNoise` in which every frame of (T, 3, H, W) comes from a camera of its own, drawn with `seed` + n: a folder of pictures, not a clip."""

    iso: int = 1600
    mosaic: Mosaic = "grbg"
    tone: bool = True
    seed: int = 0

    linear = False
    mixes_frames = True

    def __post_init__(self) -> None:
        first = self.of_frame(0)
        for name in ("noise_level", "distortion"):
            object.__setattr__(self, name, getattr(first, name))

    def of_frame(self, frame: int) -> CameraNoise:
        """The noise of one frame."""
        return CameraNoise(self.iso, sampled_isp(self.seed + frame, mosaic=self.mosaic, tone=self.tone))

    def at_frames(self, first: int, count: int) -> CameraPerFrame:
        return replace(self, seed=self.seed + first)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.of_frame(n).forward(frame) for n, frame in enumerate(_frames(x))], -4)

    def observe(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return torch.stack([self.of_frame(n).observe(frame, generator) for n, frame in enumerate(_frames(x))], -4)

    def describe(self) -> str:
        return f"{self.of_frame(0).describe()}, another camera for every frame"


def _frames(x: Tensor) -> tuple[Tensor, ...]:
    if x.ndim < 4:
        raise ValueError(f"a camera for every frame needs frames (T, 3, H, W), got {tuple(x.shape)}")
    return x.unbind(-4)


def _fit_colour_matrix(balanced: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The matrix M, rows summing to 1, with least |M b - w|^2 over the reflectances: of each row red and blue are free, green is the rest."""
    green = balanced[:, 1]
    from_green = np.stack([balanced[:, 0] - green, balanced[:, 2] - green], 1)
    red_blue = np.linalg.lstsq(from_green, wanted - green[:, None], rcond=None)[0].T
    return np.stack([red_blue[:, 0], 1 - red_blue.sum(1), red_blue[:, 1]], 1)


def _reflectances(random: np.random.Generator) -> np.ndarray:
    """(201, waves) in (0, 1): smooth random ones, white last."""
    place = np.linspace(0, np.pi, len(WAVELENGTHS))
    waves = sum(random.normal(0, 1.5 / (1 + n), (200, 1)) * np.cos(n * place + random.uniform(0, 2 * np.pi, (200, 1))) for n in range(5))
    return np.concatenate([1 / (1 + np.exp(-np.asarray(waves))), np.ones((1, len(WAVELENGTHS)))])


def _black_body(temperature: float) -> np.ndarray:
    """Planck's law over the waves, mean 1."""
    metres = WAVELENGTHS * 1e-9
    power = 1 / (metres**5 * np.expm1(1.4388e-2 / (metres * temperature)))
    return power / power.mean()


def _colour_matching_functions() -> np.ndarray:
    """(3, waves): the CIE 1931 colour matching functions as sums of Gaussians of two widths (Wyman, Sloan and Shirley, 2013)."""

    def lobe(height: float, peak: float, left: float, right: float) -> np.ndarray:
        return height * np.exp(-0.5 * ((WAVELENGTHS - peak) * np.where(peak > WAVELENGTHS, left, right)) ** 2)

    x = lobe(1.056, 599.8, 0.0264, 0.0323) + lobe(0.362, 442.0, 0.0624, 0.0374) + lobe(-0.065, 501.1, 0.0490, 0.0382)
    y = lobe(0.821, 568.8, 0.0213, 0.0247) + lobe(0.286, 530.9, 0.0613, 0.0322)
    z = lobe(1.217, 437.0, 0.0845, 0.0278) + lobe(0.681, 459.0, 0.0385, 0.0725)
    return np.stack([x, y, z])
