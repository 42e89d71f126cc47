"""Solvers against a prior whose flow is known: convergence orders, limits, and where steps lie."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fvr.diffusion.schedule import add_noise, bicubic_schedule, eps_to_x0, linear_schedule
from fvr.diffusion.solvers import make_solver, spaced
from fvr.diffusion.steps import ddim_step, dpm_solver_step, log_snr, renoising_step

MEAN, SPREAD = torch.tensor([0.3, -0.6, 0.1], dtype=torch.float64), torch.tensor([0.2, 0.5, 1.5], dtype=torch.float64)
"""x_0 ~ N(MEAN, SPREAD^2), entry by entry."""
NOISY, CLEAN = 0.01, 0.999
"""alpha_bar at both ends of the test's trajectories."""


def posterior_mean(x_t, alpha_bar):
    """E[x_0 | x_t] under that prior."""
    seen = alpha_bar * SPREAD**2 + 1 - alpha_bar
    return MEAN + alpha_bar**0.5 * SPREAD**2 / seen * (x_t - alpha_bar**0.5 * MEAN)


def flow(x_t, alpha_bar, alpha_bar_prev):
    """The exact probability flow: standardised states stay what they are."""
    before, after = (level * SPREAD**2 + 1 - level for level in (alpha_bar, alpha_bar_prev))
    return alpha_bar_prev**0.5 * MEAN + (after / before).sqrt() * (x_t - alpha_bar**0.5 * MEAN)


def even(steps):
    """alpha_bar of steps + 1 levels, evenly in lambda."""
    levels = torch.linspace(log_snr(NOISY), log_snr(CLEAN), steps + 1, dtype=torch.float64)
    return torch.sigmoid(2 * levels).tolist()


def error(name, steps):
    start = torch.tensor([1.2, -0.4, 0.7], dtype=torch.float64)
    x, solver = start, make_solver(name)
    for alpha_bar, alpha_bar_prev in pairwise(even(steps)):
        x = solver.step(x, posterior_mean(x, alpha_bar), alpha_bar, alpha_bar_prev)
    return (x - flow(start, NOISY, CLEAN)).abs().max().item()


@pytest.mark.parametrize(("name", "order"), [("ddpm", 1), ("ddim", 1), ("dpm++2m", 2)])
def test_order_of_convergence(name, order):
    """Halving the step divides the error by 2^order."""
    errors = [error(name, steps) for steps in (20, 40, 80, 160)]
    slopes = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert all(abs(slope - order) < 0.25 for slope in slopes), (errors, slopes)


def test_second_order_beats_first_at_ten_steps():
    assert error("dpm++2m", 10) < error("ddim", 10) / 3


def trajectory(name, rho, schedule, noise_seed=0):
    generator = torch.Generator().manual_seed(noise_seed)
    x, solver = torch.randn(2, 3, generator=generator, dtype=torch.float64), make_solver(name, rho)
    for t in range(len(schedule) - 1, -1, -1):
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = solver.step(x, posterior_mean(x, schedule.alpha_bar(t)), schedule.alpha_bar(t), schedule.alpha_bar(t - 1), noise=noise)
    return x


def test_without_new_noise_flairs_step_is_ddim():
    schedule = linear_schedule().respaced(12)
    torch.testing.assert_close(trajectory("ddpm", 0.0, schedule), trajectory("ddim", 0.0, schedule), rtol=1e-12, atol=1e-12)
    assert (trajectory("ddpm", 0.5, schedule) - trajectory("ddim", 0.5, schedule)).abs().max() > 0.01


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-3, 0.99), st.floats(0.01, 0.99), st.integers(0, 1000))
def test_first_order_dpm_solver_is_ddim(alpha_bar, share, seed):
    alpha_bar_prev = alpha_bar + share * (1 - alpha_bar) * 0.99
    x_t, x0 = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(
        dpm_solver_step(x_t, x0, alpha_bar, alpha_bar_prev), ddim_step(x_t, x0, alpha_bar, alpha_bar_prev), rtol=1e-9, atol=1e-9
    )


def test_an_estimate_that_does_not_change_needs_no_second_order():
    x_t, x0 = torch.randn(2, 4, dtype=torch.float64)
    plain = dpm_solver_step(x_t, x0, 0.3, 0.6)
    torch.testing.assert_close(dpm_solver_step(x_t, x0, 0.3, 0.6, before=(x0, 0.1)), plain)
    assert (dpm_solver_step(x_t, x0, 0.3, 0.6, before=(x0 - 1, 0.1)) - plain).min() > 0.1


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpm++2m"])
def test_the_last_step_gives_the_estimate_itself(name):
    solver = make_solver(name)
    x_t, before, x0 = torch.randn(3, 4, dtype=torch.float64)
    solver.step(x_t, before, 0.5, 0.9)
    torch.testing.assert_close(solver.step(x_t, x0, 0.9, 1.0), x0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rho", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", ["ddpm", "ddim"])
def test_new_noise_keeps_the_level(name, rho):
    """From a sample of q(x_t | x_0) and the true x_0, x_{t-1} is a sample of q(x_{t-1} | x_0)."""
    generator = torch.Generator().manual_seed(0)
    noise, fresh = torch.randn(2, 200_000, generator=generator, dtype=torch.float64)
    x0 = torch.full_like(noise, 0.4)
    x_t = add_noise(x0, noise, 0.2)
    x_prev = make_solver(name, rho).step(x_t, x0, 0.2, 0.5, noise=fresh)
    assert x_prev.mean().item() == pytest.approx(0.5**0.5 * 0.4, abs=0.01)
    assert x_prev.var().item() == pytest.approx(0.5, abs=0.01)


def test_misuse_is_one_sentence():
    x = torch.zeros(1)
    with pytest.raises(ValueError, match="rho is a share of the noise between 0"):
        renoising_step(x, x, 0.5, 0.9, rho=1.5)
    with pytest.raises(ValueError, match="needs noise"):
        renoising_step(x, x, 0.5, 0.9, rho=0.5)
    with pytest.raises(ValueError, match="choose one of ddpm, ddim, dpm\\+\\+2m"):
        make_solver("euler")


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 120), st.floats(0.13, 1.0), st.booleans())
def test_steps_are_distinct_and_reach_both_ends(steps, start, long):
    schedule = bicubic_schedule() if long else linear_schedule()
    for spacing in ("uniform", "log-snr"):
        short = spaced(schedule, steps, start, spacing)
        assert len(short) == steps and short.timesteps[0] == 0
        assert abs(short.timesteps[-1] - start * (len(schedule) - 1)) <= 0.5 + 1e-9
        assert all(now < after for now, after in pairwise(short.timesteps))
        torch.testing.assert_close(short.alphas_cumprod, schedule.alphas_cumprod[torch.tensor(short.timesteps)])


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 120), st.floats(0.13, 1.0))
def test_trailing_steps_begin_at_the_start_and_end_a_stride_before_the_clean_frame(steps, start):
    short = spaced(linear_schedule(), steps, start, "trailing")
    last = round(start * 999)
    assert len(short) == steps and short.timesteps[-1] == last
    assert all(abs(t - last * (k + 1) / steps) <= 0.5 for k, t in enumerate(short.timesteps))


def test_even_in_log_snr():
    """But for the cleanest steps, between which the schedule has no other."""
    short = spaced(linear_schedule(), 15, 1.0, "log-snr")
    gaps = -short.alphas_cumprod.logit().diff() / 2
    assert (gaps[2:] - gaps[2:].mean()).abs().max() < 0.03 * gaps.mean()
    uneven = -spaced(linear_schedule(), 15).alphas_cumprod.logit().diff() / 2
    assert uneven.max() > 5 * uneven.min()


def test_more_steps_than_fit_are_refused():
    for spacing in ("uniform", "log-snr", "trailing"):
        with pytest.raises(ValueError, match="do not fit"):
            spaced(linear_schedule(), 50, 0.01, spacing)


def test_estimates_of_a_consistent_noise_stay_on_the_line():
    """Where eps does not change all solvers reproduce add_noise."""
    x0, noise = torch.randn(2, 5, dtype=torch.float64)
    for name in ("ddpm", "ddim", "dpm++2m"):
        x, solver = add_noise(x0, noise, NOISY), make_solver(name)
        for alpha_bar, alpha_bar_prev in pairwise(even(7)):
            x = solver.step(x, eps_to_x0(x, noise, alpha_bar), alpha_bar, alpha_bar_prev)
        torch.testing.assert_close(x, add_noise(x0, noise, CLEAN))
