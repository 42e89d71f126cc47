"""The weight-free prior: exact transforms, the limits of a denoiser, and its gradient."""

import pytest
import torch

from fvr.diffusion.schedule import add_noise
from fvr.priors import wiener
from fvr.priors.lapped_dct import BLOCK, TAPS, analyse, double, from_opponent, halve, lapped_basis, synthesise, to_opponent
from fvr.priors.load import NO_WEIGHTS, load_prior
from fvr.priors.wiener import GaussianPrior, denoise, noise_gain


def smooth(n=1, side=96, dtype=torch.float32):
    """Frames of a soft disc on a gradient, in [-1, 1]: flat parts, edges and colours."""
    at = torch.linspace(-1, 1, side, dtype=dtype)
    disc = torch.sigmoid(20 * (0.5 - (at[None] ** 2 + (at[:, None] * 1.3) ** 2).sqrt()))
    frame = torch.stack([disc - 0.5, 0.6 * disc - 0.2, at[None].expand(side, side) * 0.5])
    return frame[None].repeat(n, 1, 1, 1)


def noise_like(x, seed=0):
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)


@pytest.mark.parametrize("hop", [2, 4])
@pytest.mark.parametrize("size", [(64, 64), (37, 51)])
def test_lapped_blocks_reconstruct(hop, size):
    x = noise_like(torch.empty(2, 3, *size, dtype=torch.float64))
    torch.testing.assert_close(synthesise(analyse(x, hop), x.shape, hop), x)


def test_lapped_blocks_keep_energy():
    """Parseval: away from the mirrored ends the coefficients hold the energy of the pixels."""
    x = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    x[..., 24:40, 24:40] = noise_like(x[..., 24:40, 24:40])
    for hop in (2, 4):
        torch.testing.assert_close(analyse(x, hop).square().sum(), x.square().sum())


def test_colours_are_orthonormal():
    x = noise_like(torch.empty(1, 3, 5, 7, dtype=torch.float64))
    torch.testing.assert_close(from_opponent(to_opponent(x)), x)
    torch.testing.assert_close(to_opponent(x).square().sum(), x.square().sum())


def test_halving_and_doubling_leave_a_constant_alone():
    x = torch.full((1, 3, 31, 18), 0.3)
    assert halve(x).shape[-2:] == (16, 9)
    torch.testing.assert_close(double(halve(x), (31, 18)), x)


def test_bands_expect_the_noise_they_get():
    """A fresh sample of white noise has, in every band of the finest scale, the tabulated deviation."""
    noise = noise_like(torch.empty(1, 1, 256, 256), seed=5)
    detail = noise - double(halve(noise), (256, 256))
    measured = analyse(detail, 4)[..., 2:-2, 2:-2].square().mean((0, 2, 3)).sqrt()
    torch.testing.assert_close(measured, noise_gain(0)[0].flatten(), rtol=0.06, atol=0.01)


def test_without_noise_the_frame_comes_back():
    x = smooth() + 0.1 * noise_like(smooth())
    torch.testing.assert_close(denoise(x, 1e-4), x, atol=2e-3, rtol=0)
    torch.testing.assert_close(denoise(x, 1e-6, smooth()), x, atol=2e-3, rtol=0)


@pytest.mark.parametrize("sigma", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("conditional", [False, True])
def test_it_removes_noise(sigma, conditional):
    x = smooth()
    noisy = x + sigma * noise_like(x)
    pilot = x + 0.05 * noise_like(x, seed=1) if conditional else None
    clean = denoise(noisy, sigma, pilot)
    assert (clean - x).square().mean() < 0.15 * (noisy - x).square().mean()


def test_under_pure_noise_the_condition_decides_and_is_cleaned():
    x = smooth()
    pilot = x + 0.1 * noise_like(x, seed=1)
    guess = denoise(1000 * noise_like(x), 1000.0, pilot)
    assert (guess - x).square().mean() < 0.2 * (pilot - x).square().mean()


def test_without_condition_pure_noise_says_little():
    noise = 10 * noise_like(smooth())
    assert denoise(noise, 10.0).square().mean() < 0.05 * noise.square().mean()


def test_a_constant_stays_a_constant():
    x = torch.full((1, 3, 64, 64), 0.25)
    torch.testing.assert_close(denoise(x, 0.3, x), x, atol=1e-4, rtol=0)


def test_tweedie():
    """predict_x0(sqrt(alpha_bar) x + sqrt(1 - alpha_bar) n) is D at sigma = sqrt((1 - alpha_bar) / alpha_bar)."""
    prior, x = GaussianPrior(), smooth()
    n, alpha_bar = noise_like(smooth()), prior.schedule.alpha_bar(200)
    sigma = ((1 - alpha_bar) / alpha_bar) ** 0.5
    torch.testing.assert_close(prior.predict_x0(add_noise(x, n, alpha_bar), 200, x), denoise(x + sigma * n, sigma, x), atol=1e-5, rtol=1e-4)


def test_frames_do_not_influence_each_other():
    x = smooth(2)
    x[1] = x[1].flip(-1) * 0.5
    noisy = x + 0.2 * noise_like(x)
    both = denoise(noisy, 0.2, x)
    torch.testing.assert_close(both[1:], denoise(noisy[1:], 0.2, x[1:]), atol=1e-6, rtol=1e-5)


def test_more_weight_of_the_noise_stays_nearer_the_condition(monkeypatch):
    x = smooth()
    noisy, far = x + 0.3 * noise_like(x), []
    for weight in (8.0, 1.0):
        monkeypatch.setattr(wiener, "NOISE_WEIGHT", weight)
        far.append((denoise(noisy, 0.3, x) - x).square().mean())
    assert far[0] < far[1]


@pytest.mark.parametrize("conditional", [False, True])
def test_gradient_is_the_slope(conditional):
    x = smooth(side=24, dtype=torch.float64)
    pilot = x + 0.05 * noise_like(x, seed=2) if conditional else None
    noisy = (x + 0.2 * noise_like(x)).requires_grad_()
    probe, step = noise_like(x, seed=3), 1e-5 * noise_like(x, seed=4)
    (gradient,) = torch.autograd.grad((probe * denoise(noisy, 0.2, pilot)).sum(), noisy)
    with torch.no_grad():
        slope = (probe * (denoise(noisy + step, 0.2, pilot) - denoise(noisy - step, 0.2, pilot))).sum() / 2
    torch.testing.assert_close((gradient * step).sum(), slope, rtol=1e-3, atol=1e-9)


def test_priors_by_name():
    assert isinstance(load_prior(NO_WEIGHTS), GaussianPrior) and isinstance(load_prior("gaussian"), GaussianPrior)
    with pytest.raises(ValueError, match="choose gaussian"):
        load_prior("flair_x8")


def test_gradients_flow_after_a_first_use_in_inference_mode():
    """ComfyUI runs nodes in inference mode; tables first made there must not break autograd afterwards."""
    from fvr.priors.lapped_dct import lapped_basis
    from fvr.priors.wiener import noise_gain

    noise_gain.cache_clear()
    lapped_basis.cache_clear()
    prior, x = GaussianPrior(), torch.rand(1, 3, 48, 48)
    with torch.inference_mode():
        prior.predict_x0(x, 100, x)
    leaf = x.clone().requires_grad_()
    prior.predict_x0(leaf, 100, x).square().sum().backward()
    assert leaf.grad is not None and leaf.grad.abs().sum() > 0


@pytest.mark.parametrize("size", [(16, 24), (13, 9)])
def test_lapped_blocks_overlap_and_add(size):
    """Put together cell by cell as by a transposed convolution, and halved as by the filter."""
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for hop in (2, 4):
        bands, edge = torch.randn_like(analyse(x, hop)), BLOCK - hop
        whole = torch.nn.functional.conv_transpose2d(bands, lapped_basis(hop), stride=hop)[..., edge : edge + size[0], edge : edge + size[1]]
        torch.testing.assert_close(synthesise(bands, x.shape, hop), whole.reshape(x.shape))
    taps = torch.tensor(TAPS, dtype=x.dtype)
    padded = torch.nn.functional.pad(x, (1, 1 + size[1] % 2, 1, 1 + size[0] % 2), mode="replicate").flatten(0, 1)[:, None]
    torch.testing.assert_close(halve(x), torch.nn.functional.conv2d(padded, taps.outer(taps)[None, None], stride=2).view_as(halve(x)))
