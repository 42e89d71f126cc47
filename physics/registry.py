"""The kinds of degradation and their parameters, in one table: what the nodes' widgets and the command line's strings are made from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, get_args

from .. import options
from .base import Degradation
from .blind_video import LEVELS, blind_video
from .identity import GaussianNoise
from .linalg.boundary import Boundary
from .linear.average_pool import AveragePool
from .linear.bicubic import BicubicDownsample
from .linear.blur import Blur, MotionBlurPerFrame
from .linear.grayscale import Grayscale
from .linear.inpaint import BrushStrokes, RandomInpaint
from .linear.temporal import TemporalBlur
from .nonlinear.camera import CameraNoise
from .nonlinear.cameras import CameraPerFrame, sampled_isp
from .nonlinear.h264 import H264, PRESETS
from .nonlinear.isp import NOISE, WHITE_BALANCE, Isp, Mosaic
from .nonlinear.jpeg import Jpeg

Value = int | float | str


@dataclass(frozen=True)
class Parameter(options.Parameter):
    """One input of a degradation: what is known of any parameter, its name, and where it starts; values are of the default's type."""

    name: str = ""
    default: Value = 0

    def read(self, kind: str, value: object) -> Value:
        """The value in the parameter's type. Raises ValueError if it has another type, is out of range or no choice."""
        given: Any = str(value) if self.choices else value
        if not self.choices and (isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)):
            raise ValueError(f"{kind}: {self.name} must be a number, got {value!r}")
        self.check(f"{kind}: {self.name}", given)
        return type(self.default)(given)


def number(name: str, default: float, low: float, high: float, unit: str, advice: str) -> Parameter:
    return Parameter(low, high, advice, unit, None if type(default) is int else 0.001, number=type(default), name=name, default=default)


def word(name: str, default: str, choices: Iterable[object], advice: str, unit: str = "") -> Parameter:
    return Parameter(advice=advice, unit=unit, choices=tuple(map(str, choices)), name=name, default=default)


@dataclass(frozen=True)
class Kind:
    """A kind of degradation: its parameters and what makes the operator of their values."""

    name: str
    title: str
    parameters: tuple[Parameter, ...]
    make: Callable[..., Degradation]


def _factor(default: int, least: int = 1) -> Parameter:
    keeps = "; 1 keeps the size" if least == 1 else ""
    return number("factor", default, least, 16, "", f"How many times smaller each side becomes{keeps}.")


_BOUNDARY = word("boundary", "replicate", get_args(Boundary), "What lies beyond the border; reflect does not repeat the end.")
_SEED = number("seed", 0, 0, 2**53, "", "Of the random draw; the same seed gives the same one.")
_ISO = word("iso", "1600", NOISE, "Sensitivity of the sensor; higher is noisier.", "ISO")
_MOSAIC = word(
    "mosaic",
    "grbg",
    get_args(Mosaic),
    "Colours of the sensor's 2 x 2 sites, row by row: filling in the others spreads noise into blotches; none measures all.",
)
_PRESET = word("preset", "medium", PRESETS, "Effort of the encoder; slower keeps a little more.")
_TONE = word("tone", "contrast", ("contrast", "plain"), "Whether the camera adds contrast after its gamma.")


def _next_odd(size: int) -> int:
    return size + 1 - size % 2


def _isp_noise(iso: str, mosaic: Mosaic, tone: str, red_gain: float, blue_gain: float) -> Degradation:
    return CameraNoise(int(iso), Isp(gains=(red_gain, 1.0, blue_gain), tone=tone == "contrast", mosaic=mosaic))


def _any_camera(iso: str, mosaic: Mosaic, tone: str, of: str, seed: int) -> Degradation:
    contrast = tone == "contrast"
    if of == "frame":
        return CameraPerFrame(int(iso), mosaic, contrast, seed)
    return CameraNoise(int(iso), sampled_isp(seed, mosaic=mosaic, tone=contrast))


SHAKE = (
    number("size", 33, 3, 129, "pixels of the sharp frame", "Side of the kernel that holds the path; even sizes count as the next odd."),
    number("strength", 0.5, 0, 1, "", "0 is a straight line, 1 a path with curls and reversals."),
    _SEED,
    _factor(1),
    _BOUNDARY,
)
"""Parameters of camera shake during the exposure."""

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("bicubic", "Bicubic downscaling", (_factor(4, 2),), BicubicDownsample),
        Kind(
            "gaussian_blur",
            "Gaussian blur",
            (
                number("sigma", 2.0, 0.1, 32, "pixels of the sharp frame", "Standard deviation of the blur."),
                number("stretch", 1.0, 0.1, 10, "", "How many times wider the blur is across `angle` than along it; 1 is round."),
                number("angle", 0.0, -180, 180, "degrees", "Direction in which sigma is measured, counter-clockwise from horizontal."),
                _factor(1),
                _BOUNDARY,
            ),
            lambda sigma, stretch, **rest: Blur.gaussian(sigma, sigma * stretch, **rest),
        ),
        Kind("motion_blur", "Motion blur", SHAKE, lambda size, **rest: Blur.motion(_next_odd(size), **rest)),
        Kind("motion_blur_per_frame", "Motion blur, another in every frame", SHAKE, lambda size, **rest: MotionBlurPerFrame(_next_odd(size), **rest)),
        Kind(
            "motion_line",
            "Straight motion blur",
            (
                number("length", 15.0, 0.5, 128, "pixels of the sharp frame", "How far things move during the exposure."),
                number("angle", 0.0, -180, 180, "degrees", "Direction of motion, counter-clockwise from horizontal."),
                _factor(1),
                _BOUNDARY,
            ),
            Blur.motion_line,
        ),
        Kind("average_pool", "Average downscaling", (_factor(4),), AveragePool),
        Kind(
            "inpaint",
            "Missing pixels",
            (number("keep", 0.5, 0, 1, "", "Share of the pixels that are known; the others read 0."), _SEED),
            RandomInpaint,
        ),
        Kind(
            "brush_strokes",
            "Brush strokes",
            (
                number("share", 0.2, 0, 0.9, "", "Share of the picture that strokes hide; they are white in what Degrade gives."),
                number("width", 0.06, 0.005, 0.5, "of the shorter side", "Width of the brush; strokes are 0.5 to 1.5 times as wide."),
                _SEED,
            ),
            BrushStrokes,
        ),
        Kind(
            "temporal_blur",
            "Temporal blur",
            (number("width", 7, 1, 31, "frames", "How many frames are averaged; even widths count as the next odd one."), _BOUNDARY),
            lambda width, boundary: TemporalBlur(_next_odd(width), boundary),
        ),
        Kind("jpeg", "JPEG", (number("quality", 60, 1, 100, "", "As libjpeg counts: 100 is nearly lossless, 10 is blocky."),), Jpeg),
        Kind(
            "noise",
            "Gaussian noise",
            (number("sigma", 0.03, 0, 1, "of the range from black to white", "Standard deviation; 0.03 is 7.65 of 255 levels."),),
            GaussianNoise,
        ),
        Kind("camera_noise", "Camera noise", (_ISO,), lambda iso: CameraNoise(int(iso))),
        Kind(
            "isp_noise",
            "Noise through a camera's processing",
            (
                _ISO,
                _MOSAIC,
                _TONE,
                number("red_gain", WHITE_BALANCE[0], 0.5, 4, "times green", "White balance of red: about 2 by daylight, less indoors."),
                number("blue_gain", WHITE_BALANCE[2], 0.5, 4, "times green", "White balance of blue: about 1.6 by daylight, more indoors."),
            ),
            _isp_noise,
        ),
        Kind(
            "any_camera",
            "Noise through a camera drawn at random",
            (_ISO, _MOSAIC, _TONE, word("of", "clip", ("clip", "frame"), "Whether all of the clip is one camera's, or each frame another's."), _SEED),
            _any_camera,
        ),
        Kind(
            "h264",
            "H.264 recompression",
            (number("crf", 32, 0, 51, "", "Constant rate factor: 0 is lossless, 23 ordinary, 40 and more blocky."), _PRESET),
            H264,
        ),
        Kind(
            "stream",
            "Streaming video",
            (
                number(
                    "bits", 0.1, 0.005, 4, "bits a pixel", "Bit rate over pixels a second: 0.1 is 2.3 Mbit/s at 1280 x 720 and 25 frames a second."
                ),
                _PRESET,
            ),
            lambda bits, preset: H264(preset=preset, bits=bits),
        ),
        Kind(
            "blind_video",
            "Blur, noise, x4 and a stream",
            (word("level", "medium", LEVELS, "How strong each part is, as KEEP's three test sets differ."), _SEED),
            blind_video,
        ),
        Kind("grayscale", "Grayscale", (), Grayscale),
    )
}
