"""Means and interpolation by whole factors equal PyTorch's own, whichever way they are computed."""

import pytest
import torch
import torch.nn.functional as F

from fvr.resampling import CACHED, interpolated, pooled

SIZES = [(1, 1, 1, 1), (1, 3, 5, 8), (2, 2, 33, 16), (3, 1, 2, 7)]


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_interpolation_is_pytorchs(shape, factor, mode):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    size = (factor * shape[-2], factor * shape[-1])
    expected = F.interpolate(x, size, mode=mode, align_corners=False)
    with torch.no_grad():
        torch.testing.assert_close(interpolated(x, size, mode), expected, atol=1e-5, rtol=0)
        transposed = interpolated(x.mT, size[::-1], mode)
    torch.testing.assert_close(transposed.mT, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(7, 9), (10, 5), (3, 2), (12, 10)], ids=str)
def test_other_sizes_are_pytorchs(size):
    x = torch.rand(1, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(interpolated(x, size, "bicubic"), F.interpolate(x, size, mode="bicubic", align_corners=False))


def test_large_images_are_made_in_parts_without_a_seam():
    side = int((CACHED / 8) ** 0.5)
    x = torch.rand(3, 5, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(interpolated(x, (2 * side, 2 * side), "bilinear"), F.interpolate(x, scale_factor=2, mode="bilinear"))


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("shape", [(1, 3, 16, 24), (2, 1, 17, 31), (1, 2, 9, 8)], ids=str)
def test_means_are_pytorchs_and_leave_out_what_is_left_over(shape, factor):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    with torch.no_grad():
        torch.testing.assert_close(pooled(x, factor), F.avg_pool2d(x, factor), atol=1e-6, rtol=0)
    assert torch.equal(x, before)


def test_gradients_and_other_dtypes_go_through_pytorch():
    x = torch.rand(1, 1, 8, 8, requires_grad=True)
    interpolated(pooled(x, 2), (8, 8), "bilinear").sum().backward()
    torch.testing.assert_close(x.grad, torch.ones_like(x))
    half = torch.rand(1, 1, 8, 8).bfloat16()
    assert interpolated(half, (16, 16), "bilinear").dtype == pooled(half, 2).dtype == torch.bfloat16
