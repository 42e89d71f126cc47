"""Pixel-fine chroma noise: found in raw frames, and nowhere else."""

import pytest
import torch

from fvr.colour import luma
from fvr.methods.blind.chroma_noise import chroma_noise_variance, denoise_chroma
from fvr.physics import parse


@pytest.fixture(scope="module")
def face(astronaut: torch.Tensor) -> torch.Tensor:
    """A portrait with chroma at half size (4:2:0), as all footage has it."""
    still = astronaut[None]
    halves = torch.nn.functional.avg_pool2d(still - luma(still), 2)
    return (luma(still) + torch.nn.functional.interpolate(halves, scale_factor=2.0, mode="bilinear")).clamp(0, 1)


def noisy(face: torch.Tensor, levels: float) -> torch.Tensor:
    return face + levels / 255 * torch.randn(face.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("levels", [3, 10])
def test_noise_is_measured(face, levels):
    share = (1 - 2 * torch.tensor([0.299, 0.587, 0.114]) + (0.299**2 + 0.587**2 + 0.114**2)).mean()  # of its variance, in R - Y, G - Y and B - Y
    found = noisy(face, levels)
    assert float(chroma_noise_variance(found - luma(found), 1).sqrt()) == pytest.approx(float(share.sqrt()) * levels / 255, rel=0.1)


@pytest.mark.parametrize("damage", ["h264(crf=18)", "h264(crf=34)", "noise(sigma=0.05) + h264(crf=24)", "gaussian_blur(sigma=2)"])
def test_footage_has_none_and_stays_as_it_is(face, damage):
    seen = parse(damage).observe(face, torch.Generator().manual_seed(0)).clamp(0, 1)
    assert denoise_chroma(seen, 1.0) is seen and denoise_chroma(face, 1.0) is face


@pytest.mark.parametrize("levels", [3, 10])
def test_noise_goes_and_luma_and_edges_stay(face, levels):
    seen = noisy(face, levels)
    done = denoise_chroma(seen, 1.0)
    errors = [((frame - luma(frame)) - (face - luma(face))).square().mean() for frame in (seen, done)]
    assert errors[1] < 0.3 * errors[0]
    inside = ((seen > 0) & (seen < 1)).all(1, keepdim=True) & ((done > 0) & (done < 1)).all(1, keepdim=True)
    assert (luma(done) - luma(seen))[inside].abs().max() < 1e-5


def test_enlarged_noise_is_as_wide_as_the_enlarging(face):
    small = torch.nn.functional.avg_pool2d(face, 4)
    truth, seen = (torch.nn.functional.interpolate(frame, scale_factor=4.0, mode="bicubic").clamp(0, 1) for frame in (small, noisy(small, 8)))
    done = denoise_chroma(seen, 4.0)
    assert (done - truth).square().mean() < 0.8 * (seen - truth).square().mean()
