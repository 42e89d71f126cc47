"""FLAIR's parameters: both readings of the tables, Table 11's values, and ranges."""

import math
from dataclasses import replace

import pytest

from fvr.diffusion.schedule import bicubic_schedule, linear_schedule
from fvr.diffusion.solvers import spaced
from fvr.methods.flair.options import PRESETS, FlairOptions, enhancement_weights, gammas, idle_consistency

SHORT = linear_schedule().respaced(100)


def test_gamma_as_the_code_has_it():
    """1 - zeta s^2 alpha_bar / (1 - alpha_bar): off (0.009) where the frame is clean, on (1 - 1e-6) in the noise, in between where it says."""
    table = gammas(PRESETS["gaussian-demo"], SHORT, 0.0)
    for t, gamma in enumerate(table):
        fade = 2.55**2 * SHORT.alpha_bar(t) / (1 - SHORT.alpha_bar(t))
        assert gamma == pytest.approx(0.009 if fade >= 1 else 1 - 1e-6 if fade <= 0.1 else 1 - fade)
    assert all(gamma == pytest.approx(0.009) for gamma in table[:44]) and all(gamma > 0.99 for gamma in table[64:])


def test_gamma_as_the_paper_has_it():
    """1 - zeta s^2 alpha_bar / (1 - alpha_bar), s in [0, 1], clipped: Table 11 (zeta 1000, sigma 0.05) lets go at a ratio of 0.4."""
    table = gammas(PRESETS["gaussian"], SHORT, 12.75)
    for t, gamma in enumerate(table):
        assert gamma == pytest.approx(max(1 - 2.5 * SHORT.alpha_bar(t) / (1 - SHORT.alpha_bar(t)), 0))
    assert gammas(replace(PRESETS["gaussian"], noise_level=0.0), SHORT, 12.75) == [1.0] * 100


NOISES = {"gaussian": 12.75, "motion": 12.75, "jpeg": 12.75}
"""Grey levels of the paper's tasks (sigma 0.05); the enlargements have no noise, the demos name theirs."""


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_corrects_at_its_own_noise(name):
    """zeta 1000 with the printed ratio alpha_bar_t / alpha_bar_{t-1} kept gamma at 0 in every step."""
    row = PRESETS[name]
    schedule = spaced(bicubic_schedule() if name.startswith("x") else linear_schedule(), row.steps, row.start, row.resolved_spacing)
    noise = NOISES.get(name, 0.0)
    active = [gamma > 0.1 for gamma in gammas(row, schedule, noise)]
    assert sum(active) >= len(active) / 4 and active[-1]
    assert not idle_consistency(row, schedule, noise)


def test_settings_that_switch_consistency_off_are_told():
    idle = replace(PRESETS["gaussian"], zeta=1e6)
    assert "zeta 1e+06 (paper) at noise of 255 grey levels keeps gamma at about 0 in all 100 steps" in idle_consistency(idle, SHORT, 255.0)
    assert not idle_consistency(replace(idle, data_consistency=False), SHORT, 255.0)


def test_zeta_minus_one_is_gamma_one():
    assert gammas(PRESETS["x8"], SHORT, 12.75) == [1.0] * 100


def test_enhancement_weight_as_the_code_has_it():
    """Nothing below tau, 1 - w at tau, falling to nothing at K - 1."""
    weights = enhancement_weights(FlairOptions(steps=100, tau=5, w=0.7), 100)
    assert weights[:5] == [0.0] * 5 and weights[5] == pytest.approx(0.3) and weights[99] == pytest.approx(0)
    assert weights[5:] == sorted(weights[5:], reverse=True)
    assert weights[50] == pytest.approx(0.3 * (math.exp(-45 / 94) - math.exp(-1)) / (1 - math.exp(-1)))


def test_enhancement_weight_as_the_paper_has_it():
    weights = enhancement_weights(FlairOptions(steps=100, tau=5, w=0.7, w_reading="enhancement"), 100)
    assert weights[:5] == [0.0] * 5
    assert weights[50] == pytest.approx(0.7 * math.exp(-45 / 95))


def test_presets_read_w_as_their_source_does():
    """Eq. 13 and Table 11: the enhancer's weight at t = tau is w; in the demos of the code it is 1 - w."""
    for name, most in (("x8", 0.85), ("motion", 0.1), ("x8-demo", 0.15), ("jpeg-demo", 0.5)):
        row = PRESETS[name]
        assert max(enhancement_weights(row, row.steps)) == pytest.approx(most)


@pytest.mark.parametrize(
    ("name", "steps", "rho", "w", "zeta"),
    [
        ("x4", 25, 0.85, 0.85, -1),  # not in the table; its network is x8's
        ("x8", 25, 0.85, 0.85, -1),
        ("x16", 100, 0.85, 0.7, -1),
        ("gaussian", 100, 0.25, 0.75, 1000),
        ("motion", 65, 0.35, 0.1, 1000),
        ("jpeg", 40, 0.5, 0.5, 1000),
    ],
)
def test_table_11(name, steps, rho, w, zeta):
    row = PRESETS[name]
    assert (row.steps, row.rho, row.w, row.tau, row.zeta) == (steps, rho, w, 5, zeta)


@pytest.mark.parametrize("name", [name for name in PRESETS if name not in ("default", "embedded")])
def test_published_presets_sample_from_noise_along_the_exact_inverse(name):
    row = PRESETS[name]
    assert (row.start, row.temperature, row.consistency, row.self_condition, row.guidance, row.window, row.overlap) == (1, 1, "pinv", False, 1, 10, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 1},
        {"rho": 1.5},
        {"rho": math.nan},
        {"w": -0.1},
        {"window": 0},
        {"overlap": 10},
        {"zeta": -2},
        {"start": 0},
        {"trust": 0},
        {"consistency": "exact"},
        {"overlap_mode": "cut"},
        {"w_reading": "both"},
        {"temperature": 2},
        {"guidance": -1},
        {"noise_level": 300},
    ],
    ids=str,
)
def test_values_out_of_range_are_named(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"^{name} must "):
        FlairOptions(**wrong)
