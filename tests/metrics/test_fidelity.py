"""PSNR and SSIM against scikit-image, what both must be by definition, and of a part of the frame."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fvr.metrics.fidelity import psnr, ssim


@pytest.fixture
def pair():
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 40, 53, generator=rng)
    return x, (x + 0.1 * torch.randn(x.shape, generator=rng)).clamp(0, 1)


def test_psnr_is_scikit_images(pair):
    x, y = pair
    expected = [peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=1) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(psnr(x, y), expected, rtol=1e-6)


def test_ssim_is_scikit_images_inside_the_border(pair):
    x, y = pair
    expected = []
    for a, b in zip(x, y, strict=True):
        options = dict(data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=0, full=True)
        _, full = structural_similarity(a.numpy().astype(np.float64), b.numpy().astype(np.float64), **options)
        expected.append(full[:, 5:-5, 5:-5].mean())
    np.testing.assert_allclose(ssim(x, y), expected, atol=1e-6)


def test_a_known_error_has_its_known_psnr():
    x = torch.zeros(1, 3, 16, 16)
    assert psnr(x, x + 0.1).item() == pytest.approx(20, abs=1e-5)
    assert psnr(x, x + 25.5, peak=255).item() == pytest.approx(20, abs=1e-5)


def test_equal_frames_are_perfect(pair):
    x, _ = pair
    assert psnr(x, x).eq(math.inf).all()
    torch.testing.assert_close(ssim(x, x), torch.ones(2, dtype=torch.float64))


def test_psnr_and_ssim_are_symmetric_and_per_frame(pair):
    x, y = pair
    for measure in (psnr, ssim):
        torch.testing.assert_close(measure(x, y), measure(y, x))
        torch.testing.assert_close(measure(x, y)[1:], measure(x[1:], y[1:]))


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_frames_of_other_shapes_are_refused(measure):
    with pytest.raises(ValueError, match=r"of one shape, got \(1, 3, 16, 16\) and \(1, 3, 16, 17\)"):
        measure(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 17))


def test_frames_smaller_than_the_window_are_refused():
    with pytest.raises(ValueError, match="11 x 11 window"):
        ssim(torch.zeros(1, 3, 8, 40), torch.zeros(1, 3, 8, 40))


def box(top, bottom, left, right):
    region = torch.zeros(2, 1, 40, 53)
    region[..., top:bottom, left:right] = 1
    return region


def test_a_box_region_equals_the_crop(pair):
    x, y = pair
    torch.testing.assert_close(psnr(x, y, region=box(8, 30, 10, 40)), psnr(x[..., 8:30, 10:40], y[..., 8:30, 10:40]))
    inner = ssim(x, y, region=box(13, 25, 15, 35))  # windows centred here reach over the crop from 8 to 30
    torch.testing.assert_close(inner, ssim(x[..., 8:30, 10:40], y[..., 8:30, 10:40]))


def test_a_full_region_is_the_frame_and_an_empty_one_nan(pair):
    x, y = pair
    for measure in (psnr, ssim):
        torch.testing.assert_close(measure(x, y, region=torch.full((2, 1, 40, 53), 0.3)), measure(x, y))
        assert measure(x, y, region=torch.zeros(2, 1, 40, 53)).isnan().all()


def test_errors_outside_the_region_do_not_count(pair):
    x, _ = pair
    y = x.clone()
    y[..., :4, :] = 0
    assert psnr(x, y, region=box(10, 20, 10, 20)).eq(math.inf).all()
    assert psnr(x, y, region=box(0, 8, 0, 53)).lt(20).all()


def test_a_region_of_another_size_is_refused(pair):
    with pytest.raises(ValueError, match=r"is \(N, 1, H, W\) of their size, got \(2, 40, 53\)"):
        psnr(*pair, region=torch.ones(2, 40, 53))
