"""The operators every law is checked on."""

from __future__ import annotations

import pytest
import torch
from helpers.flair_gaussian import flair_gaussian
from torch import Tensor

from fvr.physics import (
    H264,
    AveragePool,
    BicubicDownsample,
    Blur,
    BrushStrokes,
    CameraNoise,
    Degradation,
    GaussianNoise,
    Grayscale,
    Identity,
    Inpaint,
    Isp,
    Jpeg,
    MotionBlurPerFrame,
    RandomInpaint,
    TemporalBlur,
    random_mask,
)
from fvr.physics.nonlinear.cameras import CameraPerFrame

CLIP = (4, 3, 11, 14)
SKEW = torch.tensor([[0.1, 0.0, 0.2], [0.0, 0.3, 0.1], [0.05, 0.15, 0.1]], dtype=torch.float64)

LINEAR: list[Degradation] = [
    Identity(),
    BicubicDownsample(2),
    BicubicDownsample(3),
    BicubicDownsample(8),
    *(Blur.gaussian(0.8, boundary=boundary) for boundary in ("replicate", "circular", "reflect")),
    *(Blur.gaussian(1.5, factor=2, boundary=boundary) for boundary in ("replicate", "circular", "reflect")),
    Blur.gaussian(1.2, 0.7, 30, factor=3),
    Blur.motion(5, 0.7, seed=1, factor=2, boundary="reflect"),
    Blur.motion(9, 0.4, seed=2, factor=3, boundary="circular"),
    Blur.motion_line(3, 20),
    MotionBlurPerFrame(5, 0.7, seed=1, factor=2),
    Blur(SKEW, boundary="circular"),
    Blur(SKEW, factor=2, offset=0),
    flair_gaussian(),
    AveragePool(4),
    AveragePool(1),
    Inpaint(random_mask((11, 14), 0.4, seed=5)),
    Inpaint(torch.stack([random_mask((11, 14), 0.6, seed=t) for t in range(4)])[:, None]),
    RandomInpaint(0.5, seed=3),
    BrushStrokes(0.3, 0.2, seed=1),
    *(TemporalBlur(3, boundary) for boundary in ("replicate", "circular", "reflect")),
    TemporalBlur(7),
    Grayscale(),
    GaussianNoise(0.03),
    GaussianNoise(0.02) @ Blur.gaussian(1.5, factor=2),
    BicubicDownsample(2) @ Blur.gaussian(0.8),
    AveragePool(2) @ Blur.motion_line(3, 20),
    TemporalBlur(3) @ BicubicDownsample(2),
    RandomInpaint(0.7, seed=3) @ Blur.gaussian(0.8, factor=2) @ TemporalBlur(3),
    Grayscale() @ BicubicDownsample(2) @ TemporalBlur(3) @ Blur.gaussian(0.6),
]
NONLINEAR: list[Degradation] = [
    Jpeg(40),
    CameraNoise(1600),
    CameraNoise(800, Isp(mosaic="grbg")),
    CameraPerFrame(1600, seed=2),
    H264(30, "ultrafast"),
    H264(preset="ultrafast", bits=1.0),
    Jpeg(70) @ Blur.gaussian(1.5, factor=2),
    H264(28, "ultrafast") @ CameraNoise(800),
]


@pytest.fixture(autouse=True)
def threads(one_thread: None) -> None:
    """One."""


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(20240611)


def name(operator: Degradation) -> str:
    boundary = getattr(operator, "boundary", "")
    return f"{operator} {boundary}".strip()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "linear" in metafunc.fixturenames:
        metafunc.parametrize("linear", LINEAR, ids=name)
    if "operator" in metafunc.fixturenames:
        metafunc.parametrize("operator", LINEAR + NONLINEAR, ids=name)
    if "nonlinear" in metafunc.fixturenames:
        metafunc.parametrize("nonlinear", NONLINEAR, ids=name)


@pytest.fixture
def clip(rng: torch.Generator) -> Tensor:
    """(4, 3, 11, 14) float64 in [0, 1], smooth enough for codecs."""
    return torch.nn.functional.avg_pool2d(torch.rand(CLIP, generator=rng, dtype=torch.float64), 5, 1, 2)


@pytest.fixture
def dense(rng: torch.Generator):
    """The matrix of an operator on clips of one shape, column by column."""

    def matrix(operator: Degradation, shape: tuple[int, ...]) -> Tensor:
        basis = torch.eye(int(torch.tensor(shape).prod()), dtype=torch.float64).reshape(-1, *shape)
        return operator.forward(basis).flatten(1).mT

    return matrix
