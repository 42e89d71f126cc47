"""Degradations of faces for training: the papers' blind, known and video degradations; and the three fixed ones of the benchmark."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ...physics.base import Degradation
from ...physics.blind_video import WHOLE, Level, Range, between, draw_chain
from ...physics.identity import GaussianNoise
from ...physics.linear.blur import Blur
from ...physics.nonlinear.camera import CameraNoise
from ...physics.nonlinear.h264 import H264
from ...physics.nonlinear.jpeg import Jpeg
from ...physics.parser import parse

BENCHMARK = {
    "x4 blur, noise 0.03": "gaussian_blur(sigma=2, factor=4) + noise(sigma=0.03)",
    "x8 bicubic": "bicubic(factor=8)",
    "blur, noise, JPEG 60": "gaussian_blur(sigma=2) + noise(sigma=0.03) + jpeg(quality=60)",
}
"""The benchmark degradations: known operators on faces at a network's native size."""


@dataclass(frozen=True)
class Blind:
    """y = up(JPEG(down(x * k) + n)): the blind degradation of face restoration (CodeFormer, section 4.1; KEEP, section 4), for faces of `side`.

    Attributes:
        side: the side of the faces that the pixel units below refer to.
        sigma: of the Gaussian blur along either axis, in pixels.
        round: share of the kernels that are round; the others have two sigmas and an angle.
        factor: of the downsampling, a real number.
        noise: standard deviation in 1/255.
        quality: of JPEG.
        skip: probability that any one of blur, downsampling, noise and JPEG is left out.
        camera: probability that the noise is a camera's instead.
        ends: interpolations back to full size, one of which is drawn per face.
    """

    side: int = 512
    sigma: Range = (1.0, 15.0)
    round: float = 0.5
    factor: Range = (4.0, 30.0)
    noise: Range = (0.0, 20.0)
    quality: tuple[int, int] = (30, 80)
    skip: float = 0.0
    camera: float = 0.0
    ends: tuple[str, ...] = ("bilinear",)

    @property
    def text(self) -> str:
        """Empty: model cards have a standard sentence for it."""
        return ""

    def at(self, side: int) -> Blind:
        """The same degradation for faces of another side: blur and downsampling are scaled, noise and JPEG are unchanged."""
        scale = side / self.side
        sigma = (max(0.01, self.sigma[0] * scale), max(0.01, self.sigma[1] * scale))
        return replace(self, side=side, sigma=sigma, factor=(max(1.0, self.factor[0] * scale), max(1.0, self.factor[1] * scale)))

    def draw(self, generator: torch.Generator) -> Draw:
        """One member of the family."""
        u = torch.rand(13, generator=generator, dtype=torch.float64).tolist()
        first, second = (between(self.sigma, value) for value in u[:2])
        return Draw(
            sigmas=None if u[2] < self.skip else (first, first if u[3] < self.round else second),
            angle=180 * u[4] - 90,
            factor=1.0 if u[12] < self.skip else between(self.factor, u[5]),
            noise=None if u[6] < self.skip else between(self.noise, u[7]) / 255,
            iso=int((800, 1600, 3200)[int(3 * u[8])]) if u[9] < self.camera else None,
            quality=None if u[10] < self.skip else round(between(self.quality, u[11])),
            end=self.ends[int(torch.randint(len(self.ends), (), generator=generator))],
        )


# CodeFormer's options files, degradations of stage II, and the two of stage III; all for 512 x 512 faces.
HEAVY = Blind()
MILD = Blind(sigma=(0.1, 10.0), factor=(1.0, 12.0), noise=(0.0, 15.0), quality=(60, 100))
# Ours, for 128 x 128 faces: the papers' two ranges in one, a little beyond their downsampling so that x8 is inside, with every
# part left out now and then (a clean face must stay clean), and either interpolation back, as crops come from any player or warp.
NATIVE_128 = Blind(128, (0.1, 3.0), 0.6, (1.0, 9.0), (0.0, 15.0), (40, 100), skip=0.25, camera=0.1, ends=("bilinear", "bicubic", "bicubic"))


@dataclass(frozen=True)
class Draw:
    """One blind degradation with its parameters; None for a part that is left out."""

    sigmas: tuple[float, float] | None
    angle: float
    factor: float
    noise: float | None
    iso: int | None
    quality: int | None
    end: str

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Faces (..., 3, S, S) in [0, 1] to their degraded versions, same shape and range; the noise differs from face to face."""
        side = x.shape[-1]
        y = x.reshape(-1, 3, side, side)
        if self.sigmas is not None and max(self.sigmas) > 0.15:
            y = Blur.gaussian(self.sigmas[0], self.sigmas[1], self.angle).forward(y)
        small = max(8, math.floor(side / self.factor + 0.5))
        if small < side:
            # antialiased, as by a camera or a scaler; the blur above is not always wide enough for this factor
            y = F.interpolate(y, (small, small), mode="bilinear", antialias=True)
        y = y.clamp(0, 1)
        if self.iso is not None:
            y = CameraNoise(self.iso).observe(y, generator)
        elif self.noise is not None:
            y = GaussianNoise(self.noise).observe(y, generator).clamp(0, 1)
        if self.quality is not None:
            y = Jpeg(self.quality).forward(y).clamp(0, 1)
        if small < side:
            y = F.interpolate(y, (side, side), mode=self.end, align_corners=False)
        return y.clamp(0, 1).reshape(x.shape)


@dataclass(frozen=True)
class KnownDegradation:
    """A single degradation for all faces, for networks of one known operator; enlarged back by bicubic interpolation.

    Attributes:
        side: of the faces.
        text: the operator, as `physics.parse` reads it.
    """

    side: int
    text: str

    def draw(self, generator: torch.Generator) -> Callable[[Tensor, torch.Generator], Tensor]:
        """Faces (..., 3, S, S) in [0, 1] and a generator for the noise to the degraded faces, same shape and range; nothing is drawn here."""
        return _enlarged_back(parse(self.text), "bicubic")


@dataclass(frozen=True)
class Deblurring:
    """y = JPEG((k * x) down by 4 + n), k in 25 x 25: the training degradation of FLAIR's deblurring and JPEG networks (section 5.1);
    enlarged back by nearest neighbour.

    Attributes:
        side: of the faces.
        motion: share of hand-shake kernels; the others are Gaussians with two deviations and an angle.
        noise: standard deviation in 1/255.
        quality: of JPEG; None leaves it out.
        sigma: of a Gaussian along either axis, in pixels; the paper gives none, 3 is the widest that 25 x 25 holds.
    """

    side: int = 512
    motion: float = 0.5
    noise: Range = (0.0, 25.0)
    quality: tuple[int, int] | None = None
    sigma: Range = (0.7, 3.0)

    @property
    def text(self) -> str:
        """In a few words."""
        coded = "" if self.quality is None else f", JPEG {self.quality[0]} to {self.quality[1]}"
        return f"x4 after motion blur ({self.motion:.0%}) or Gaussian blur, noise of {self.noise[0]:g} to {self.noise[1]:g} levels{coded}"

    def draw(self, generator: torch.Generator) -> Callable[[Tensor, torch.Generator], Tensor]:
        """One member of the family: faces (..., 3, S, S) in [0, 1] and a generator for the noise to the degraded faces, same shape and range."""
        u = torch.rand(7, generator=generator, dtype=torch.float64).tolist()
        if u[0] < self.motion:
            blur = Blur.motion(25, u[1], int(u[2] * 2**31), factor=4)
        else:
            blur = Blur.gaussian(between(self.sigma, u[1]), between(self.sigma, u[2]), 180 * u[3] - 90, factor=4)
        operator: Degradation = GaussianNoise(between(self.noise, u[4]) / 255) @ blur
        if self.quality is not None:
            operator = Jpeg(round(between(self.quality, u[5]))) @ operator
        return _enlarged_back(operator, "nearest")


@dataclass(frozen=True)
class Streamed:
    """Blur, noise, x4, noise and a stream at some bitrate (`physics.blind_video`): KEEP's training degradation; enlarged back bilinearly.

    Attributes:
        side: of the faces; blur shrinks with it from 512.
        level: the ranges.
    """

    side: int = 512
    level: Level = WHOLE

    @property
    def text(self) -> str:
        """In a few words."""
        low, high = self.level.bits
        return f"blur, noise, x4, noise and H.264 at {low:g} to {high:g} bits a pixel"

    def draw(self, generator: torch.Generator) -> Callable[[Tensor, torch.Generator], Tensor]:
        """One member of the family: clips (T, 3, S, S) in [0, 1] and a generator for the noise to the degraded clips, same shape and range."""
        scale = self.side / 512
        low, high = (max(0.1, sigma * scale) for sigma in self.level.sigma)
        return _enlarged_back(draw_chain(replace(self.level, sigma=(low, high)), generator), "bilinear")


@dataclass(frozen=True)
class Coded:
    """y = H.264(down(x * k) + n): DicFace's training degradation (its released data set); enlarged back by the interpolation used to shrink it.

    A clip has one kernel, one interpolation and one rate; the noise's strength is drawn for every frame, and half of the frames have grey noise.

    Attributes:
        side: of the faces; `sigma` is in pixels of it.
        sigma: of the Gaussian blur along either axis.
        round: share of the kernels that are round; the others have two sigmas and an angle.
        factor: of the downsampling.
        noise: standard deviation in 1/255.
        rate: constant rate factor, both ends included.
        modes: interpolations, none of them antialiased but "area", and how often each is drawn.
    """

    side: int = 512
    sigma: Range = (0.1, 10.0)
    round: float = 0.7
    factor: int = 4
    noise: Range = (0.0, 10.0)
    rate: tuple[int, int] = (18, 24)
    modes: tuple[tuple[str, float], ...] = (("area", 0.2), ("bilinear", 0.4), ("bicubic", 0.4))

    @property
    def text(self) -> str:
        """In a few words."""
        return f"blur, x{self.factor}, noise of {self.noise[0]:g} to {self.noise[1]:g} levels and H.264 at a crf of {self.rate[0]} to {self.rate[1]}"

    def draw(self, generator: torch.Generator) -> Callable[[Tensor, torch.Generator], Tensor]:
        """One member of the family: clips (T, 3, S, S) in [0, 1] and a generator for the noise to the degraded clips, same shape and range."""
        u = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
        first, second = (between(self.sigma, value) for value in u[:2])
        blur = Blur.gaussian(first, first if u[2] < self.round else second, 180 * u[3] - 90)
        codec = H264(self.rate[0] + int(u[4] * (self.rate[1] + 1 - self.rate[0])))
        chances = torch.tensor([chance for _, chance in self.modes])
        mode = self.modes[int(torch.multinomial(chances, 1, generator=generator))][0]

        def degraded(x: Tensor, generator: torch.Generator) -> Tensor:
            small = x.shape[-1] // self.factor // 2 * 2
            y = F.interpolate(blur.forward(x), (small, small), mode=mode)
            strength, grey = torch.rand(2, len(y), 1, 1, 1, generator=generator)
            noise = torch.randn(y.shape, generator=generator)
            noise = torch.where(grey < 0.5, noise[:, :1], noise)
            low, high = self.noise
            y = codec.forward((y + (low + (high - low) * strength) / 255 * noise).clamp(0, 1))
            return F.interpolate(y, x.shape[-2:], mode=mode).clamp(0, 1)

        return degraded


def benchmark_input(name: str, x: Tensor, seed: int) -> Tensor:
    """Faces (N, 3, S, S) under one of the `BENCHMARK` degradations, enlarged back to S x S by bicubic interpolation; also the baseline."""
    generator = torch.Generator().manual_seed(seed)
    return KnownDegradation(x.shape[-1], BENCHMARK[name]).draw(generator)(x, generator)


def _enlarged_back(operator: Degradation, mode: str) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Faces (..., 3, S, S) to what `operator` makes of them, clamped to [0, 1], and interpolated to S x S where that is smaller."""

    def degraded(x: Tensor, generator: torch.Generator) -> Tensor:
        faces = x.reshape(-1, *x.shape[-3:])
        y = operator.observe(faces, generator)
        if y.shape != faces.shape:
            y = F.interpolate(y, faces.shape[-2:], mode=mode)
        return y.clamp(0, 1).reshape(x.shape)

    return degraded
