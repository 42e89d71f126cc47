"""The FLAIR nodes' progress, and their solver widgets."""

from __future__ import annotations

import time
from contextlib import contextmanager

import pytest
import torch

from fvr import host
from fvr.models.embedded import FOLDER, PRIOR
from fvr.nodes.flair import FlairRestorerNode, FlairSampler
from fvr.priors.load import prior_from_file
from fvr.priors.wiener import GaussianPrior

PRESET = {"preset": "default", "steps": 2, "window": 2, "overlap": 0}


@pytest.fixture
def bar(monkeypatch):
    """What the progress bar was told: totals, and (n, preview) of every tick."""
    totals, ticks = [], []

    @contextmanager
    def progress(total, desc=""):
        totals.append(total)
        yield lambda n=1, preview=None: ticks.append((n, preview))

    monkeypatch.setattr(host, "progress", progress)
    return totals, ticks


def test_the_bar_moves_at_every_step_and_shows_what_there_is(bar):
    """Three frames in windows of two, two steps each."""
    totals, ticks = bar
    frames = torch.rand(3, 512, 512, 3, generator=torch.Generator().manual_seed(0)) * 0.5
    _, out = FlairSampler.execute(prior=GaussianPrior(), frames=frames, preset=PRESET).result
    assert totals == [6] and [n for n, _ in ticks] == [2, 2, 1, 1]
    assert all(preview.shape == (3, 512, 512) and preview.min() >= 0 and preview.max() <= 1 for _, preview in ticks)
    torch.testing.assert_close(ticks[-1][1].permute(1, 2, 0), out[-1])


def test_an_interrupt_between_steps_stops_the_node(monkeypatch):
    @contextmanager
    def progress(total, desc=""):
        def tick(n=1, preview=None):
            raise host.Interrupted("stopped on request")

        yield tick

    monkeypatch.setattr(host, "progress", progress)
    with pytest.raises(host.Interrupted):
        FlairSampler.execute(prior=GaussianPrior(), frames=torch.rand(1, 512, 512, 3), preset=PRESET)


def test_an_interrupt_inside_the_estimate_of_a_window_stops_the_node_at_once(monkeypatch):
    """The embedded prior's estimate of a window is one call of about five seconds on a core; it is stopped between layers and frames."""
    prior = prior_from_file(FOLDER / PRIOR)
    whole, asked = prior.predict_x0, []

    def predict_x0(*given):
        if not asked:
            asked.append(time.monotonic())
            host.interrupt()
        return whole(*given)

    monkeypatch.setattr(prior, "predict_x0", predict_x0)
    frames = torch.rand(12, 512, 512, 3, generator=torch.Generator().manual_seed(0))
    try:
        with pytest.raises(host.Interrupted):
            FlairSampler.execute(prior=prior, frames=frames, preset={**PRESET, "window": 12})
    finally:
        host.clear_interrupt()
    assert time.monotonic() - asked[0] < 2


def test_solver_widgets_reach_the_sampler_and_older_prompts_need_none():
    def restorer(**values):
        return FlairRestorerNode.execute(prior=GaussianPrior(), preset={"preset": "gaussian", **values}).result[0]

    old, new = restorer(), restorer(solver="dpm++2m", steps=15, mask_every="step")
    assert (old.options.solver, old.options.spacing, len(old.schedule)) == ("ddpm", "auto", 100)
    assert (new.options.solver, new.options.mask_every, len(new.schedule)) == ("dpm++2m", "step", 15)
    assert new.schedule.timesteps != restorer(solver="ddim", steps=15).schedule.timesteps
