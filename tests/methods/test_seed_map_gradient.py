"""The two-stage gradient is the gradient; its memory does not grow with the clip."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from helpers.tiny_seed_models import CHANNELS, SIDE, TinyUNet, tiny_latent, tiny_parts
from torch.testing import assert_close

from fvr.methods.seed_map.data_term import Observation, differentiable
from fvr.methods.seed_map.generator import LatentGenerator, PixelGenerator
from fvr.methods.seed_map.optimise import seed_map
from fvr.methods.seed_map.options import SeedMapOptions
from fvr.methods.seed_map.variables import SeedPerFrame, SharedSeed
from fvr.methods.seed_map.warping_term import ProgressiveWarping
from fvr.motion.warp import warp
from fvr.physics import AveragePool, Degradation, Jpeg, TemporalBlur

FRAMES = 4
OPERATOR = AveragePool(2) @ TemporalBlur(3, "reflect")


class FixedFlow:
    """A flow source that always sees the same slow drift, from the first frame it is shown to the second."""

    def features(self, frames):
        return frames

    def flow(self, current, previous):
        ramp = torch.linspace(-0.35, 0.4, SIDE)
        return torch.stack([ramp.expand(SIDE, SIDE), 0.3 * ramp[:, None].expand(SIDE, SIDE)])[None].expand(len(current), -1, -1, -1)


def observation(operator: Degradation) -> torch.Tensor:
    return operator.forward(torch.rand(FRAMES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2)))


def moved(free: SharedSeed) -> None:
    """Residuals that are not 0, as after a few steps."""
    generator = torch.Generator().manual_seed(3)
    for residual in free.residuals:
        residual.b.data.copy_(0.2 * torch.randn(residual.b.shape, generator=generator))


def end_to_end(free: SharedSeed, operator: Degradation, y: torch.Tensor, warping: ProgressiveWarping | None, weight: float) -> list[torch.Tensor]:
    """Plain autograd over the whole objective, written down once more: DDIM by its formula, the decoder in one piece, no checkpoints."""
    generator = free.generator
    assert isinstance(generator, LatentGenerator)
    leaves = [free.z, *(factor for residual in free.residuals for factor in (residual.a, residual.b))]
    x = free.z
    for i in range(3, -1, -1):
        alpha_bar, before = generator.alpha_bars[i], generator.alpha_bars[i - 1] if i else 1.0
        x0 = generator.estimate(x, i)
        eps = (x - alpha_bar**0.5 * x0) / (1 - alpha_bar) ** 0.5
        x = before**0.5 * x0 + (1 - before) ** 0.5 * eps
    features = generator.decode(x) + torch.stack([residual.a @ residual.b for residual in free.residuals])
    frames = torch.nn.functional.conv2d(features, generator.weight, generator.bias, padding=1)
    loss = (2 * operator.forward((frames + 1) / 2) - 2 * y).square().mean()
    if warping is not None:
        assert warping.flow is not None and warping.visible is not None
        loss = loss + weight * (warping.visible * (frames[:-1] - warp(frames[1:], warping.flow))).square().mean()
    return list(torch.autograd.grad(loss, leaves))


@pytest.mark.parametrize("warped", [False, True], ids=["data", "data and warping"])
def test_two_stages_give_the_gradient_of_the_whole(warped):
    options = SeedMapOptions(rank=3, residual_init=0.3)
    free = SharedSeed(tiny_latent(), FRAMES, options, seed=5)
    moved(free)
    y = observation(OPERATOR)
    warping = ProgressiveWarping(FixedFlow(), 0.5) if warped else None
    frames = free.render()
    value, gradient = Observation(y, OPERATOR).value_and_gradient(frames)
    assert value > 0
    if warping is not None:
        warping.refresh(warping.look(frames))
        assert warping.visible is not None and 0.5 < warping.visible.mean() < 1
        gradient = gradient + 2.0 * warping.value_and_gradient(frames)[1]
    assert free.backward(gradient)
    expected = end_to_end(free, OPERATOR, y, warping, 2.0)
    found = [free.z.grad, *(factor.grad for residual in free.residuals for factor in (residual.a, residual.b))]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours is not None and theirs.abs().max() > 0
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_a_frame_with_its_own_seed_gets_the_gradient_of_the_whole():
    generator = tiny_latent()
    free = SeedPerFrame(generator, FRAMES, SeedMapOptions(noise_prior=False), seed=5)
    assert not any(torch.equal(z, free.seeds[0]) for z in free.seeds[1:])
    y = observation(OPERATOR)
    _, gradient = Observation(y, OPERATOR).value_and_gradient(free.render())
    assert free.backward(gradient)

    def whole(*seeds):
        frames = []
        for z in seeds:
            x = z
            for i in range(3, -1, -1):
                alpha_bar, before = generator.alpha_bars[i], generator.alpha_bars[i - 1] if i else 1.0
                x0 = generator.estimate(x, i)
                x = before**0.5 * x0 + (1 - before) ** 0.5 * (x - alpha_bar**0.5 * x0) / (1 - alpha_bar) ** 0.5
            frames.append(generator.tail(generator.decode(x)))
        return (2 * OPERATOR.forward((torch.cat(frames) + 1) / 2) - 2 * y).square().mean()

    for z, theirs in zip(free.seeds, torch.autograd.grad(whole(*free.seeds), free.seeds), strict=True):
        assert (z.grad - theirs).norm() <= 1e-5 * theirs.norm()


def test_rounding_has_the_derivative_of_the_identity_and_the_rest_its_own():
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    chain = Jpeg(40) @ AveragePool(2)
    y = differentiable(chain, x)
    assert_close(y, chain.forward(x), atol=1e-6, rtol=0)
    probe = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    (found,) = torch.autograd.grad((y * probe).sum(), x)
    assert_close(found, AveragePool(2).adjoint(probe))


def test_half_precision_gradients_are_scaled_up_and_back():
    """A mean over a clip gives gradients that float16 cannot hold; the shared seed's must survive them."""
    denoiser, decoder, alpha_bars = tiny_parts(torch.float32)
    half, body = denoiser.half(), decoder.body.half()

    generator = LatentGenerator(
        lambda x, i: x * alpha_bars[i] ** 0.5 + 0.3 * half(x.half()).float(),
        alpha_bars,
        lambda z: body(z.half()).float(),
        decoder.conv_out.weight,
        decoder.conv_out.bias,
        seed_shape=(1, 4, SIDE // 4, SIDE // 4),
        feature_shape=(CHANNELS, SIDE, SIDE),
        size=(SIDE, SIDE),
    )
    z = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(4))
    probe = torch.randn(1, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(5))
    large = generator.features(z)[1](probe)
    tiny = generator.features(z)[1](probe * 2.0**-30)
    assert_close(tiny * 2.0**30, large, rtol=2e-3, atol=1e-5)


def test_one_frame_at_a_time_is_held(monkeypatch):
    """While gradients are taken, dense residuals and graphs of other frames are gone: at most one at any moment."""
    from fvr.methods.seed_map import low_rank

    alive: list[weakref.ref] = []
    most = 0
    plain = low_rank.LowRank.dense

    def counted(self):
        nonlocal most
        gc.collect()
        most = max(most, sum(ref() is not None for ref in alive))
        product = plain(self)
        alive.append(weakref.ref(product))
        return product

    monkeypatch.setattr(low_rank.LowRank, "dense", counted)
    seed_map(observation(OPERATOR), OPERATOR, tiny_latent(), SeedMapOptions(iterations=2, rank=2))
    assert len(alive) == FRAMES * 5 and most <= 1


def test_the_network_is_run_once_an_iteration_whatever_the_number_of_frames():
    calls = []
    prior = TinyUNet()
    plain = prior.predict_x0

    def counted(x_t, t, condition=None):
        calls.append(x_t.shape[0])
        return plain(x_t, t, condition)

    prior.predict_x0 = counted
    for frames in (1, 6):
        calls.clear()
        generator = PixelGenerator(prior, (SIDE, SIDE), steps=4)
        seed_map(torch.rand(frames, 3, SIDE // 2, SIDE // 2), AveragePool(2), generator, SeedMapOptions(iterations=3))
        assert calls == [1] * (3 * 8 + 4)  # forwards, again while going backwards (checkpoints), and the last rendering
