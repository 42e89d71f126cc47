"""PSNR and SSIM of a part of the frame."""

from __future__ import annotations

import math

import pytest
import torch

from fvr.metrics.fidelity import psnr, ssim


@pytest.fixture
def pair():
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 40, 53, generator=rng)
    return x, (x + 0.1 * torch.randn(x.shape, generator=rng)).clamp(0, 1)


def box(top, bottom, left, right):
    region = torch.zeros(2, 1, 40, 53)
    region[..., top:bottom, left:right] = 1
    return region


def test_a_box_is_the_crop(pair):
    x, y = pair
    torch.testing.assert_close(psnr(x, y, region=box(8, 30, 10, 40)), psnr(x[..., 8:30, 10:40], y[..., 8:30, 10:40]))
    inner = ssim(x, y, region=box(13, 25, 15, 35))  # windows centred here reach over the crop from 8 to 30
    torch.testing.assert_close(inner, ssim(x[..., 8:30, 10:40], y[..., 8:30, 10:40]))


def test_everything_is_the_frame_and_nothing_is_no_figure(pair):
    x, y = pair
    for measure in (psnr, ssim):
        torch.testing.assert_close(measure(x, y, region=torch.full((2, 1, 40, 53), 0.3)), measure(x, y))
        assert measure(x, y, region=torch.zeros(2, 1, 40, 53)).isnan().all()


def test_errors_outside_do_not_count(pair):
    x, _ = pair
    y = x.clone()
    y[..., :4, :] = 0
    assert psnr(x, y, region=box(10, 20, 10, 20)).eq(math.inf).all()
    assert psnr(x, y, region=box(0, 8, 0, 53)).lt(20).all()


def test_a_region_of_another_size_is_refused(pair):
    with pytest.raises(ValueError, match=r"is \(N, 1, H, W\) of their size, got \(2, 40, 53\)"):
        psnr(*pair, region=torch.ones(2, 40, 53))
