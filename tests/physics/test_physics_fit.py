"""Unknown operators: clips degraded by a known one give it back, nearly; sharp frames are left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fvr.physics import Blur, GaussianNoise, Jpeg, degradation, fit_degradation
from fvr.physics.fit import SIGMAS, blur_residual, enlarge, fit_enlargement, fit_quality, luma, shrink

CLIPS = Path(__file__).resolve().parents[2] / ".." / "shared" / "clips"
OWN = 0.95
"""The blur that the face clip has of its own, in pixels: it adds in quadrature."""


def first_frame(name: str) -> Tensor:
    """(1, 3, H, W) out of a clip beside the repository."""
    av = pytest.importorskip("av")
    path = CLIPS / name
    if not path.is_file():
        pytest.skip("sample clips are not beside the repository")
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    return torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255


@pytest.fixture(scope="module")
def face() -> Tensor:
    """(1, 3, 320, 320) out of a clip of a face."""
    return first_frame("clean_face_512.mp4")[..., 96:416, 96:416]


def stored(frames: Tensor) -> Tensor:
    """As a file holds them: 8 bits."""
    return (frames.clamp(0, 1) * 255).round() / 255


@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.0])
def test_the_width_of_a_blur_is_found(face, sigma):
    found = fit_degradation(stored(Blur.gaussian(sigma).forward(face)))
    truth = (sigma**2 + OWN**2) ** 0.5
    assert 0.8 * truth < found.sigma < 1.1 * truth
    assert (found.enlargement, found.quality) == (1, None)
    assert found.noise < 0.4 / 255


def test_a_soft_wall_around_a_face_does_not_widen_the_blur():
    """Most of this scene is out of focus; its sharp places say how far the blur goes."""
    scene = first_frame("scene_720p_clean.mp4")
    found = fit_degradation(stored(Blur.gaussian(2).forward(scene)))
    assert 1.8 < found.sigma < 2.7 and found.enlargement == 1


def test_a_sharp_clip_has_little_blur(face):
    found = fit_degradation(stored(face))
    assert found.sigma <= 1.1 and found.enlargement == 1 and found.quality is None


def test_blur_is_found_under_noise_which_is_measured_too(face):
    noisy = GaussianNoise(3 / 255).observe(Blur.gaussian(2).forward(face), torch.Generator().manual_seed(0))
    found = fit_degradation(stored(noisy))
    assert 1.6 < found.sigma < 2.5 and found.enlargement == 1
    assert 1.4 < found.noise * 255 < 2.2  # in luma, which averages the colours' noise: 2.0
    assert 2.8 < found.operator.noise_level * 255 < 3.3


def test_frames_without_contrast_do_not_count(face):
    """A clip that fades in from black."""
    damaged = stored(GaussianNoise(5 / 255).observe(Blur.gaussian(2).forward(face), torch.Generator().manual_seed(0)))
    alone, faded = fit_degradation(damaged), fit_degradation(torch.cat([torch.zeros_like(damaged), damaged]))
    assert (faded.sigma, faded.noise) == (alone.sigma, alone.noise)


@pytest.mark.parametrize("grain", [0.0, 0.03])
@pytest.mark.parametrize("tone", [0.0, 0.5])
def test_frames_of_one_tone_are_refused(tone, grain):
    plain = stored(tone + grain * torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match="none of the 2 frames looked at shows more than one tone"):
        fit_degradation(plain)


def test_black_bars_do_not_hide_noise(face):
    damaged = stored(GaussianNoise(5 / 255).observe(face, torch.Generator().manual_seed(0)))
    bars = damaged.clone()
    bars[..., :100, :] = 0
    assert fit_degradation(bars).noise == pytest.approx(fit_degradation(damaged).noise, rel=0.15)


@pytest.mark.parametrize("quality", [30, 60, 75, 90])
@pytest.mark.parametrize("sigma", [0, 2])
def test_the_quality_of_jpeg_is_found(face, quality, sigma):
    before = Blur.gaussian(sigma).forward(face) if sigma else face
    found = fit_quality(stored(Jpeg(quality).forward(before)).double())
    assert found is not None and abs(found - quality) <= 1


def test_jpeg_of_an_ordinary_encoder_is_found_with_the_blur_before_it(face):
    cv2 = pytest.importorskip("cv2")
    blurred = (stored(Blur.gaussian(2).forward(face))[0] * 255).byte().permute(1, 2, 0).numpy()
    written, data = cv2.imencode(".jpg", blurred[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 70])
    assert written
    frames = torch.from_numpy(cv2.imdecode(data, 1)[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255
    found = fit_degradation(frames)
    assert found.quality is not None and abs(found.quality - 70) <= 1
    assert 1.6 < found.sigma < 2.6
    assert "JPEG quality " in found.describe()


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_enlarged_footage_is_found_and_brought_back(face, factor):
    small = degradation("bicubic", factor=factor).forward(face)
    big = enlarge(small, factor)
    found = fit_degradation(stored(big))
    assert found.enlargement == factor and found.operator.factor == factor
    assert (shrink(big, factor) - small).abs().max() < 1e-4
    assert (found.operator.forward(face) - small).abs().mean() < 0.02
    assert fit_degradation(stored(big), enlarged=False).operator.factor == 1


def test_sharp_footage_was_not_enlarged(face):
    assert fit_enlargement(luma(stored(face).double())) == 1


def test_the_residual_grows_with_the_width_so_that_bisection_may_find_the_edge(face):
    y = luma(stored(Blur.gaussian(2).forward(face)).double())
    residuals = [blur_residual(y, sigma, 1, 0.2 / 255) for sigma in SIGMAS[::8]]
    assert residuals == sorted(residuals)


def test_tiny_frames_are_refused():
    with pytest.raises(ValueError, match=r"at least 64 pixels a side, got \(1, 3, 32, 32\)"):
        fit_degradation(torch.rand(1, 3, 32, 32))
