"""Degradations as a face crop sees them: the operator agrees with what resampling degraded frames gives."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.flair_gaussian import flair_gaussian
from torch import Tensor
from torch.nn import functional as F

from fvr.physics import (
    H264,
    AveragePool,
    BicubicDownsample,
    Blur,
    Composition,
    Degradation,
    GaussianNoise,
    Grayscale,
    Identity,
    Jpeg,
    RandomInpaint,
    TemporalBlur,
    crop_operator,
    observation,
)
from fvr.physics.crops import nearest_decimation

SIDE = 256


@pytest.fixture(scope="module")
def scene() -> Tensor:
    """(1, 3, 256, 256): a portrait's detail without its finest, so that it can stand for a band-limited scene."""
    data = pytest.importorskip("skimage.data")
    picture = torch.from_numpy(data.astronaut()[:SIDE, 128 : 128 + SIDE].copy()).permute(2, 0, 1)[None] / 255
    return Blur.gaussian(0.7).forward(picture)


def resampled(frames: Tensor, side: int) -> Tensor:
    """Frames brought to side x side about their centre, as a warp does."""
    mode = {"size": (side, side), "mode": "bicubic", "align_corners": False}
    return F.interpolate(frames, antialias=side < frames.shape[-1], **mode)


def psnr(a: Tensor, b: Tensor) -> float:
    margin = max(4, a.shape[-1] // 8)
    inside = (..., slice(margin, -margin), slice(margin, -margin))
    return -10 * math.log10(max((a[inside] - b[inside]).square().mean().item(), 1e-20))


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0, 3.0, 4.0])
@pytest.mark.parametrize(
    ("described", "close"),
    [
        (Blur.gaussian(2, factor=4), 45),
        (Blur.gaussian(1.5, factor=2), 45),
        (Blur.gaussian(3), 45),
        (Blur.gaussian(4, 2, 30, factor=2), 45),
        (Blur.motion(17, 0.5, seed=1, factor=2), 38),
        (flair_gaussian(), 40),
        (BicubicDownsample(4), 35),
        (AveragePool(4), 37),
        (AveragePool(2) @ Blur.gaussian(2), 43),
    ],
    ids=str,
)
def test_operator_agrees_with_resampling(described: Degradation, close: float, scale: float, scene: Tensor) -> None:
    """Degrade the scene, resample the frames to a crop, decimate to y: the crop's operator on the clean crop gives the same y."""
    frames = described.forward(scene)
    side = round(frames.shape[-1] * scale)
    crop = resampled(frames, side)
    model = crop_operator(described, scale, side)
    y = observation(crop, model)
    assert y.shape[-2:] == model.output_size((side, side))
    assert psnr(model.forward(resampled(scene, side)), y) > close


@pytest.mark.parametrize("scale", [1.0, 2.0, 4.0])
def test_the_kernel_is_scaled_right(scale: float, scene: Tensor) -> None:
    """A sigma a fifth too small or too large agrees less by 10 dB: the scaling is right, not merely close."""
    frames = Blur.gaussian(2, factor=2).forward(scene)
    side = round(frames.shape[-1] * scale)
    clean = resampled(scene, side)

    def agreement(sigma: float) -> float:
        model = crop_operator(Blur.gaussian(sigma, factor=2), scale, side)
        return psnr(model.forward(clean), observation(resampled(frames, side), model))

    assert agreement(2.0) > max(agreement(1.6), agreement(2.4)) + 10


@pytest.mark.parametrize("scale", [1.0, 2.0, 4.0])
def test_inverse_explains_the_crop(scale: float, scene: Tensor) -> None:
    operator = crop_operator(GaussianNoise(0.02) @ Blur.gaussian(2, factor=4), scale, SIDE)
    y = observation(scene, operator)
    damped = operator.pinv(y, (SIDE, SIDE), operator.noise_level**2)
    assert psnr(operator.forward(damped), y) > 40


def test_decimation_is_the_nearest_power_of_two() -> None:
    assert [nearest_decimation(scale, 512) for scale in (0.3, 1, 1.4, 1.5, 2, 3, 5, 6, 16, 100)] == [1, 1, 1, 2, 2, 4, 4, 8, 16, 16]
    assert nearest_decimation(8, 100) == 4


@pytest.mark.parametrize("scale", [0.7, 1.0, 3.9])
def test_plain_footage(scale: float) -> None:
    """Footage that is only small stays plain decimation; at full resolution nothing is left to undo."""
    expected = Identity() if scale < 2 else BicubicDownsample(4)
    assert crop_operator(BicubicDownsample(8), scale) == expected
    assert crop_operator(Identity(), scale) == expected


def test_noise_is_kept_and_codecs_count_as_noise() -> None:
    operator = crop_operator(Jpeg(40) @ GaussianNoise(0.03) @ Blur.gaussian(2, factor=4), 2.0)
    assert operator.linear
    assert operator.noise_level == pytest.approx(math.hypot(0.03, Jpeg(40).distortion))
    assert not any(isinstance(part, Jpeg | H264) for part in operator.chain)
    assert crop_operator(Blur.gaussian(2, factor=4), 2.0).noise_level == 0


def test_time_and_colour_stay() -> None:
    operator = crop_operator(Grayscale() @ TemporalBlur(5) @ BicubicDownsample(4), 4.0)
    assert isinstance(operator, Composition)
    assert operator.chain == (Grayscale(), TemporalBlur(5), BicubicDownsample(4))


def test_masks_and_impossible_scales_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be carried over to face crops"):
        crop_operator(RandomInpaint() @ Blur.gaussian(2), 2.0)
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="positive"):
            crop_operator(Identity(), scale)


def test_observation_keeps_crops_that_are_y(scene: Tensor) -> None:
    assert observation(scene, Blur.gaussian(2)) is scene
