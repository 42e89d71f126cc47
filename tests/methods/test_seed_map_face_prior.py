"""Seed-space MAP over a network of FLAIR's kind, asked without a condition and one frame at a time, as the embedded face prior is."""

from __future__ import annotations

import pytest
import torch
from helpers.flair_small import seeded

from fvr.methods.seed_map.conditioning import guides
from fvr.methods.seed_map.generator import PixelGenerator, SeedGenerator, leading_times, padded_size
from fvr.methods.seed_map.optimise import seed_map
from fvr.methods.seed_map.options import SeedMapOptions
from fvr.methods.seed_map.variables import unknowns
from fvr.models.flair.bicubic import BicubicConfig, BicubicUNet
from fvr.physics import AveragePool, RandomInpaint
from fvr.priors.flair_video import FlairPrior
from fvr.priors.pyramid import PyramidPrior

SIDE = 32
SIZES = {"bicubic": (BicubicUNet, BicubicConfig(SIDE, 32, (1, 2, 2), 1, frozenset({1}), frozenset(), 5, 32))}


def face_prior() -> PyramidPrior:
    """Of random weights; the last convolution's are small, so that the noise is not amplified out of the range of pixels at once."""
    network = seeded("bicubic", sizes=SIZES).requires_grad_(False)
    network.final_conv.block["3"].conv.weight.mul_(0.1)
    return PyramidPrior(FlairPrior(network, background=1.0))


@pytest.fixture(scope="module")
def prior() -> PyramidPrior:
    return face_prior()


def clean(frames: int = 3, side: int = SIDE) -> torch.Tensor:
    ramp = torch.linspace(0.2, 0.8, side).expand(3, side, side)
    return torch.stack([ramp.roll(n, -1) for n in range(frames)])


def test_seeds_go_through_the_image_network_and_gradients_back(prior):
    """R by its formula with the network itself: no condition, no temporal layers, told sqrt(alpha_bar); no checkpoints."""
    generator = PixelGenerator(prior, (SIDE, SIDE))
    z = torch.randn(generator.seed_shape, generator=torch.Generator().manual_seed(0))
    h, vjp = generator.features(z)
    leaf = z.clone().requires_grad_()
    x, alpha_bars = leaf, [prior.schedule.alpha_bar(t) for t in leading_times(1000, 4)]
    for i in (3, 2, 1, 0):
        alpha_bar, before = alpha_bars[i], alpha_bars[i - 1] if i else 1.0
        eps = prior.network(x, torch.zeros_like(x), torch.tensor(alpha_bar**0.5), frames=1, temporal=False)
        x0 = ((x - (1 - alpha_bar) ** 0.5 * eps) / alpha_bar**0.5).clamp(-1, 1)
        eps = (x - alpha_bar**0.5 * x0) / (1 - alpha_bar) ** 0.5
        x = before**0.5 * x0 + (1 - before) ** 0.5 * eps
    assert (h - x).norm() < 1e-4 * x.norm()
    probe = torch.randn(h.shape, generator=torch.Generator().manual_seed(1))
    (expected,) = torch.autograd.grad(x, leaf, probe)
    assert expected.norm() > 0
    assert (vjp(probe) - expected).norm() < 1e-3 * expected.norm()


def test_a_clip_is_explained_better_and_better(prior):
    operator = AveragePool(2)
    y = operator.forward(clean())
    options = SeedMapOptions(iterations=12, seed_rate=0.05, residual_rate=0.02)
    result = seed_map(y, operator, PixelGenerator(prior, (SIDE, SIDE)), options)
    assert result.terms[-1].data < 0.7 * result.terms[0].data
    assert result.skipped == 0


def test_frames_of_any_size_are_drawn_larger_and_cut(prior):
    for size, whole in (((32, 32), (32, 32)), ((30, 37), (32, 40)), ((64, 64), (64, 64)), ((66, 90), (72, 96)), ((95, 100), (96, 108))):
        assert padded_size(prior, size) == whole
        assert whole[0] >= size[0] and whole[1] >= size[1]
    generator = PixelGenerator(prior, (66, 90))
    h, vjp = generator.features(torch.randn(generator.seed_shape))
    assert generator.tail(h).shape == (1, 3, 66, 90)
    assert vjp(torch.ones_like(h)).isfinite().all()


def test_a_network_of_one_size_says_so():
    network = seeded("bicubic", sizes=SIZES)
    with pytest.raises(ValueError, match="works on 32 x 32 frames, but the restored frames would be 64 x 64"):
        PixelGenerator(FlairPrior(network), (64, 64))


def test_what_is_shown_to_the_prior_is_the_input_without_holes_at_the_size_of_the_frames():
    truth = clean(3, 64)
    operator = RandomInpaint(0.5, 0) @ AveragePool(2)
    y = operator.forward(truth)
    seen = (guides(y, operator, (64, 64)) + 1) / 2
    assert seen.shape == (3, 3, 64, 64)
    inner = (seen - truth)[..., 4:-4, 8:-8].abs()
    assert inner.mean() < 0.02  # a ramp is drawn from half of its means
    assert (y - AveragePool(2).forward(truth)).abs().mean() > 0.2
    small = guides(y, operator, (32, 32))
    known = operator.outer.mask_for(y) > 0
    assert torch.equal(small[known.expand_as(small)], (2 * y - 1)[known.expand_as(y)])
    again = RandomInpaint(0.5, 1) @ operator
    twice = guides(again.forward(truth), again, (64, 64))
    assert ((twice + 1) / 2 - truth)[..., 4:-4, 8:-8].abs().mean() < 0.03  # what two masks hide is filled from what both leave


def test_frames_share_the_guide_in_the_middle_or_have_their_own(prior):
    info = []

    class Noting(PyramidPrior):
        def predict_x0(self, x_t, t, condition=None):
            info.append(condition)
            return super().predict_x0(x_t, t, condition)

    shown = torch.stack([torch.full((3, 30, 32), value) for value in (-0.5, 0.0, 0.5)])
    generator = PixelGenerator(Noting(prior.coarse), (30, 32), guides=shown)
    z = torch.randn(generator.seed_shape)
    with torch.no_grad():
        generator.features(z)
        assert [float(c.mean()) for c in info] == [0.0] * 4 and info[0].shape == (1, 3, 32, 32)
        info.clear()
        shared, _ = generator.features(z)
        own, _ = generator.features(z, 2)
        assert float(info[-1].mean()) == 0.5 and not torch.equal(shared, own)
        info.clear()
        PixelGenerator(Noting(prior.coarse), (30, 32)).features(z)
        assert info == [None] * 4


def test_a_guided_drawing_begins_at_the_guide_noised_as_far_as_asked(prior):
    """x_T = sqrt(alpha_bar_T) guide + sqrt(1 - alpha_bar_T) z at the highest of the times that share the schedule's beginning; z alone from 1."""
    begun = []

    class Noting(PyramidPrior):
        def predict_x0(self, x_t, t, condition=None):
            begun.append((x_t.detach().clone(), t))
            return super().predict_x0(x_t, t, condition)

    shown = torch.linspace(-0.5, 0.5, SIDE).expand(1, 3, SIDE, SIDE)
    z = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for start, times in ((0.2, leading_times(200, 4)), (1.0, leading_times(1000, 4))):
        begun.clear()
        PixelGenerator(Noting(prior.coarse), (SIDE, SIDE), guides=shown, start=start).features(z)
        alpha_bar = prior.schedule.alpha_bar(times[-1])
        expected = z if start == 1 else alpha_bar**0.5 * shown + (1 - alpha_bar) ** 0.5 * z
        assert (begun[0][0] - expected).abs().max() < 1e-6
        assert [t for _, t in begun] == [prior.schedule.timesteps[t] for t in reversed(times)]


def test_residuals_in_pixels_can_be_any_picture_unless_a_rank_is_asked_for(prior):
    """Three channels of low rank cannot follow a moving face; Stable Diffusion's 128 can."""
    generator = PixelGenerator(prior, (32, 36))
    free, bound = (unknowns(generator, 2, SeedMapOptions(rank=rank), 0).residuals[1] for rank in (0, 5))
    assert free.a.shape == (3, 32, 32) and free.b.shape == (3, 32, 36)
    assert bound.a.shape == (3, 32, 5)
    assert SeedGenerator.rank == 32
