"""Sharpness of pictures with a known gradient, residuals of a known size, and LPIPS only from what is here."""

from __future__ import annotations

import sys
import types

import pytest
import torch
import torch.nn.functional as F
from helpers.moving_texture import texture
from torch import nn

from fvr.finetune import stage
from fvr.metrics.lpips import BACKBONES, backbone_file, bounding_slices, lpips_or_none, perceptual_distance
from fvr.metrics.residual import residual_rms
from fvr.metrics.sharpness import laplacian_variance, tenengrad
from fvr.training import codebook, temporal


def test_a_ramp_has_tenengrad_of_its_slope_and_no_laplacian():
    ramp = (torch.arange(40.0) * 3 / 255).expand(1, 3, 30, 40)
    assert tenengrad(ramp).item() == pytest.approx(9, rel=1e-4)
    assert tenengrad(ramp.mT.contiguous()).item() == pytest.approx(9, rel=1e-4)
    assert laplacian_variance(ramp).item() == pytest.approx(0, abs=1e-6)


def test_a_checkerboard_has_the_largest_laplacian():
    """Neighbours differ by 10 grey levels: the Laplacian is +-40."""
    board = ((torch.arange(20)[:, None] + torch.arange(20)) % 2).float().expand(1, 3, 20, 20) * 10 / 255
    assert laplacian_variance(board).item() == pytest.approx(1600, rel=1e-4)


def test_blur_lowers_both_and_regions_are_their_crops():
    sharp = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    soft = F.avg_pool2d(sharp, 3, 1, 1, count_include_pad=False)
    region = torch.zeros(1, 1, 40, 40)
    region[..., 11:29, 11:29] = 1
    for measure in (laplacian_variance, tenengrad):
        assert measure(soft) < 0.3 * measure(sharp)
        torch.testing.assert_close(measure(sharp, region), measure(sharp[..., 10:30, 10:30]))
        assert measure(sharp, torch.zeros(1, 1, 40, 40)).isnan().all()


def test_the_residual_of_a_known_error():
    y = texture()
    assert residual_rms(y + 0.02, y).item() == pytest.approx(0.02, rel=1e-4)
    assert residual_rms(y, y).item() == 0
    with pytest.raises(ValueError, match=r"become \(1, 3, 48, 64\) and the observation is \(1, 3, 96, 128\)"):
        residual_rms(y[..., ::2, ::2], y)


class MeanDifference(nn.Module):
    """Stands where the package's network would: it cannot be had on a machine without a download."""

    def __init__(self, net, verbose):
        super().__init__()
        self.net = net

    def forward(self, a, b):
        assert a.min() >= -1 and a.max() <= 1 and a.min() < 0
        return (a - b).abs().mean((1, 2, 3), keepdim=True)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_lpips_needs_the_package_and_the_weights_and_fetches_neither(backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, "lpips", None)
    backbone_file(backbone).parent.mkdir()
    backbone_file(backbone).write_bytes(b"weights")
    assert lpips_or_none(torch.device("cpu"), backbone) is None
    package = types.ModuleType("lpips")
    package.LPIPS = MeanDifference
    monkeypatch.setitem(sys.modules, "lpips", package)
    found = lpips_or_none(torch.device("cpu"), backbone)
    assert found.net == backbone and not found.training
    backbone_file(backbone).unlink()
    assert lpips_or_none(torch.device("cpu"), backbone) is None
    assert codebook.lpips_or_none is temporal.lpips_or_none is stage.lpips_or_none is lpips_or_none


def test_the_perceptual_distance_of_a_face_is_that_of_its_rectangle():
    module = MeanDifference("vgg", False)
    x = texture()
    y = x.clone()
    y[..., 10:60, 20:80] += 0.1
    region = torch.zeros(1, 1, 96, 128)
    region[..., 10:60, 20:80] = 1
    assert perceptual_distance(module, x, y, region).item() == pytest.approx(0.2, rel=1e-4)
    assert perceptual_distance(module, x, y).item() == pytest.approx(0.2 * 3000 / (96 * 128), rel=1e-4)
    assert bounding_slices(region[0, 0]) == (slice(10, 60), slice(20, 80))
    assert perceptual_distance(module, x, y, torch.zeros(1, 1, 96, 128)).isnan().all()
    small = F.pad(torch.ones(1, 1, 20, 20), (0, 108, 0, 76))
    assert perceptual_distance(module, x, y, small).isnan().all()
