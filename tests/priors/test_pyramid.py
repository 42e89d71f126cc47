"""The pyramid prior: coarse scales are the network's, finer ones the weight-free prior's, at the noise level that averaging leaves."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from fvr.diffusion.schedule import bicubic_schedule
from fvr.models.embedded import SIZES
from fvr.models.flair.bicubic import BicubicConfig, BicubicUNet
from fvr.priors.flair_video import FlairPrior
from fvr.priors.load import prior_from_file
from fvr.priors.pyramid import PyramidPrior
from fvr.priors.wiener import GaussianPrior, denoise

TINY = BicubicConfig(side=32, channels=32, multipliers=(1, 1), res_blocks=1, attention=frozenset({1}), recurrence=frozenset(), head=32)


@pytest.fixture(scope="module")
def coarse() -> FlairPrior:
    torch.manual_seed(0)
    network = BicubicUNet(TINY).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))  # layers that start as zeros take part too
    return FlairPrior(network, background=1.0)


def frames(side: int, seed: int = 0) -> torch.Tensor:
    small = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return F.interpolate(small, (side, side), mode="bicubic").clamp(-1, 1)


@torch.no_grad()
def test_any_noise_level_is_the_schedule_s_own_where_it_has_it(coarse):
    t, x = 700, frames(32)
    alpha_bar = bicubic_schedule().alpha_bar(t)
    denoised = coarse.denoise(x / alpha_bar**0.5, bicubic_schedule().sigma(t), x)
    assert (denoised - coarse.predict_x0(x, t, x)).abs().max() < 2e-4 / alpha_bar**0.5


@torch.no_grad()
@pytest.mark.parametrize("conditional", [True, False])
def test_coarse_means_are_the_network_s_and_the_rest_is_the_gaussian_prior_s(coarse, conditional):
    prior, t = PyramidPrior(coarse), 300
    x_t = frames(128) + 0.5 * torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    condition = frames(128, 2) if conditional else None
    level, sigma = prior.schedule.alpha_bar(t) ** 0.5, prior.schedule.sigma(t)
    found, fine = prior.predict_x0(x_t, t, condition), denoise(x_t / level, sigma, condition, 2 if conditional else 3)
    noisy = F.avg_pool2d(x_t, 4) / level
    wanted = coarse.denoise(noisy, sigma / 4, None if condition is None else F.avg_pool2d(condition, 4))
    step = F.interpolate(wanted - F.avg_pool2d(fine, 4), (128, 128), mode="bicubic")
    assert (found - fine - step).abs().max() < 1e-4
    close, before = ((F.avg_pool2d(x, 4) - wanted).abs().mean() for x in (found, GaussianPrior().predict_x0(x_t, t, condition)))
    assert close < 0.35 * before  # enlarging and averaging again is not quite the identity


@torch.no_grad()
def test_frames_of_the_network_s_side_are_its_alone(coarse):
    prior, x_t = PyramidPrior(coarse), frames(32)
    alone = coarse.denoise(x_t / prior.schedule.alpha_bar(50) ** 0.5, prior.schedule.sigma(50), x_t)
    assert torch.equal(prior.predict_x0(x_t, 50, x_t), alone)


def test_gradients_pass(coarse):
    x_t = frames(64).requires_grad_()
    PyramidPrior(coarse).predict_x0(x_t, 100, None).square().sum().backward()
    assert x_t.grad is not None and bool((x_t.grad != 0).any())


def test_sides_that_do_not_fit_are_named(coarse):
    with pytest.raises(ValueError, match="multiples of 2, got 65 x 65"):
        PyramidPrior(coarse).predict_x0(torch.zeros(1, 3, 65, 65), 10, None)


@torch.no_grad()
def test_a_file_with_sizes_comes_back_as_such_a_prior(coarse, tmp_path):
    sizes = {name: sorted(value) if isinstance(value, frozenset) else value for name, value in asdict(TINY).items()}
    state = {key: value.half() for key, value in coarse.network.state_dict().items()}
    save_file(state, tmp_path / "prior.safetensors", {SIZES: json.dumps(sizes)})
    prior = prior_from_file(tmp_path / "prior.safetensors")
    assert isinstance(prior, PyramidPrior) and prior.coarse.network.config == TINY
    x = frames(32)
    assert (prior.predict_x0(x, 100, x) - PyramidPrior(coarse).predict_x0(x, 100, x)).abs().max() < 0.02
    save_file(state, tmp_path / "prior.safetensors", {SIZES: "{}"})
    with pytest.raises(ValueError, match="sizes in the file's metadata cannot be read"):
        prior_from_file(tmp_path / "prior.safetensors")
