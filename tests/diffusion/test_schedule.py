"""Schedules and single steps: definitions, FLAIR's own tables, and the laws of the forward process."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fvr.diffusion.schedule import Schedule, add_noise, bicubic_schedule, eps_to_x0, linear_schedule, x0_to_eps
from fvr.diffusion.steps import ddim_step, ddpm_posterior


@pytest.mark.parametrize(("schedule", "beta"), [(linear_schedule(), (1e-4, 2e-2, 1000)), (bicubic_schedule(), (1e-6, 1e-2, 2000))])
def test_alpha_bar_is_the_product_of_one_minus_beta(schedule, beta):
    np.testing.assert_allclose(schedule.alphas_cumprod.numpy(), np.cumprod(1 - np.linspace(*beta)), rtol=1e-12)


def test_respacing_rounds_half_to_even_on_a_running_sum():
    """The steps FLAIR's code takes; 499.5 and 1499.25 show the rounding."""
    assert linear_schedule().respaced(5).timesteps == (0, 250, 500, 749, 999)
    assert bicubic_schedule().respaced(5).timesteps == (0, 500, 1000, 1499, 1999)


@settings(max_examples=60, deadline=None)
@given(steps=st.integers(2, 1000), start=st.floats(0.01, 1))
def test_respaced_steps_keep_their_noise_and_reach_both_ends(steps, start):
    full = linear_schedule()
    last = start * 999
    if last < steps - 1:
        with pytest.raises(ValueError, match="do not fit below step"):
            full.respaced(steps, start)
        return
    short = full.respaced(steps, start)
    assert len(short) == steps and short.timesteps[0] == 0 and abs(short.timesteps[-1] - last) <= 0.5 + 1e-6
    assert all(a < b for a, b in zip(short.timesteps, short.timesteps[1:], strict=False))
    assert torch.equal(short.alphas_cumprod, full.alphas_cumprod[list(short.timesteps)])


@pytest.mark.parametrize("steps", [0, 1001])
def test_a_schedule_is_not_spread_over_more_steps_than_it_has(steps):
    with pytest.raises(ValueError, match="choose 1 to 1000"):
        linear_schedule().respaced(steps)


def test_sigma_is_the_noise_of_the_rescaled_state():
    schedule = linear_schedule()
    assert schedule.alpha_bar(-1) == 1 and schedule.sigma(-1) == 0
    for t in (0, 500, 999):
        assert schedule.sigma(t) ** 2 == pytest.approx(1 / schedule.alpha_bar(t) - 1)


def test_a_table_that_rises_is_refused():
    with pytest.raises(ValueError, match="fall strictly"):
        Schedule(torch.tensor([0.5, 0.6], dtype=torch.float64), (0, 1))


@pytest.fixture
def frames():
    g = torch.Generator().manual_seed(0)
    return torch.rand(1, 3, 8, 8, generator=g, dtype=torch.float64), torch.randn(1, 3, 8, 8, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("alpha_bar", [0.999, 0.5, 1e-4])
def test_x0_and_eps_say_the_same(frames, alpha_bar):
    x0, eps = frames
    x_t = add_noise(x0, eps, alpha_bar)
    torch.testing.assert_close(eps_to_x0(x_t, eps, alpha_bar), x0)
    torch.testing.assert_close(x0_to_eps(x_t, x0, alpha_bar), eps)


def test_ddim_without_noise_stays_on_the_line_between_frame_and_noise(frames):
    x0, eps = frames
    torch.testing.assert_close(ddim_step(add_noise(x0, eps, 0.2), x0, 0.2, 0.7), add_noise(x0, eps, 0.7))
    torch.testing.assert_close(ddim_step(add_noise(x0, eps, 0.2), x0, 0.2, 1.0, eta=1.0, noise=eps), x0)


def test_ddim_with_eta_one_is_ddpm(frames):
    """Song et al. 2021, section 4.1; the variance is that of Ho et al. 2020, eq. 7."""
    x0, eps = frames
    x_t, noise = add_noise(x0, eps, 0.2), torch.ones_like(x0)
    mean, variance = ddpm_posterior(x_t, x0, 0.2, 0.7)
    torch.testing.assert_close(ddim_step(x_t, x0, 0.2, 0.7, eta=1.0, noise=noise), mean + variance**0.5)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_a_step_keeps_the_variance_of_the_forward_process(eta):
    """With the true x0, x_{t-1} has variance 1 - alpha_bar_{t-1} about sqrt(alpha_bar_{t-1}) x0."""
    g = torch.Generator().manual_seed(1)
    x0 = torch.zeros(1, 1, 300, 300, dtype=torch.float64)
    eps, noise = (torch.randn(x0.shape, generator=g, dtype=torch.float64) for _ in range(2))
    x_prev = ddim_step(add_noise(x0, eps, 0.3), x0, 0.3, 0.6, eta=eta, noise=noise)
    assert x_prev.var().item() == pytest.approx(0.4, rel=0.02)


def test_eta_needs_noise(frames):
    x0, _ = frames
    with pytest.raises(ValueError, match="needs noise"):
        ddim_step(x0, x0, 0.2, 0.7, eta=0.5)
    with pytest.raises(ValueError, match="between 0"):
        ddim_step(x0, x0, 0.2, 0.7, eta=1.5, noise=x0)
