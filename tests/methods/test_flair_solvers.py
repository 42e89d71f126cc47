"""FLAIR's sampler over its solvers, seams between windows, progress, and who is asked to enhance what."""

from dataclasses import replace

import pytest
import torch

from fvr.diffusion.schedule import linear_schedule
from fvr.faces.types import CROP
from fvr.methods.base import Restorer, Session, restore_frames
from fvr.methods.flair.enhancement import Enhancement
from fvr.methods.flair.sampler import FlairOptions, FlairRestorer
from fvr.methods.per_frame import PerFrameRestorer
from fvr.physics.linear.bicubic import BicubicDownsample
from fvr.priors.base import Prior

X8 = BicubicDownsample(8)
SOLVERS = ["ddpm", "ddim", "dpm++2m"]
QUICK = FlairOptions(steps=3, start=1.0, rho=0.5, tau=1, temperature=1.0, self_condition=False, consistency="pinv")


class Wiener(Prior):
    """E[x_0 | x_t] for pixels N(c, 0.3^2) around the condition; with `leak`, a share of the frames' mean joins every frame."""

    def __init__(self, leak=0.0):
        self.schedule = linear_schedule()
        self.temporal = leak > 0
        self.leak = leak
        self.modes = set()

    def predict_x0(self, x_t, t, condition=None):
        self.modes.add(torch.is_inference_mode_enabled())
        alpha_bar, mean = self.schedule.alpha_bar(t), 0 if condition is None else condition
        x0 = mean + alpha_bar**0.5 * 0.09 / (alpha_bar * 0.09 + 1 - alpha_bar) * (x_t - alpha_bar**0.5 * mean)
        return x0.lerp(x0.mean(0, keepdim=True), self.leak) if self.leak else x0


class Brighter(torch.nn.Module):
    """A network from face to face that remembers how many faces it saw."""

    def __init__(self, by: float = 0.3):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.tensor(by))
        self.faces = []

    def forward(self, x):
        self.faces.append(len(x))
        return x + self.shift


class Recurrent(Restorer):
    """Every frame becomes half itself and half the one before: one that must not miss frames."""

    name = "recurrent"

    def open(self, track=None, *, seed=0, check_interrupt=lambda: None):
        class Halves(Session):
            past = None

            def push(self, crops):
                out = []
                for crop in crops:
                    self.past = crop if self.past is None else (crop + self.past) / 2
                    out.append(self.past)
                return torch.stack(out)

            def close(self):
                return torch.empty(0, 3, CROP, CROP)

        return Halves()


def clip(n, seed=0):
    """(n, 3, 64, 64) in [0.3, 0.7]."""
    return 0.3 + 0.4 * torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def run(frames, prior=None, enhancer=None, chunk=8, **changes):
    return restore_frames(FlairRestorer(prior or Wiener(), X8, replace(QUICK, **changes), enhancer), frames, chunk=chunk, seed=3)


@pytest.mark.parametrize("solver", SOLVERS)
def test_chunks_do_not_matter(solver):
    changes = dict(solver=solver, steps=2, window=4, overlap=2, overlap_mode="blend")
    frames, prior = clip(7), Wiener(leak=0.1)
    whole = run(frames, prior, chunk=7, **changes)
    assert torch.equal(whole, run(frames, prior, chunk=1, **changes)) and torch.equal(whole, run(frames, prior, chunk=5, **changes))


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_ends_on_the_observation(solver):
    """Data consistency has the last word: A x = y, up to the clamp to [0, 1]."""
    frames = clip(1)
    out = run(frames, solver=solver)
    torch.testing.assert_close(X8.forward(out), frames, rtol=0, atol=2e-3)
    assert (X8.forward(run(frames, solver=solver, data_consistency=False)) - frames).abs().max() > 0.02


def test_without_new_noise_ddpm_is_ddim_and_dpm_solver_is_not():
    ddpm, ddim, second = (run(clip(1), solver=solver, rho=0.0, spacing="uniform", steps=6) for solver in SOLVERS)
    torch.testing.assert_close(ddpm, ddim, rtol=0, atol=1e-5)
    assert (second - ddim).abs().max() > 1e-3


def test_rho_is_ddims_eta_and_nothing_to_dpm_solver():
    assert torch.equal(run(clip(1), solver="dpm++2m", rho=0.0), run(clip(1), solver="dpm++2m", rho=1.0))
    assert (run(clip(1), solver="ddim", rho=0.0) - run(clip(1), solver="ddim", rho=1.0)).abs().max() > 1e-3


def test_more_steps_refine_the_same_picture():
    """Sampling starts from the same noise whatever the number of steps."""
    few, many = (run(clip(1), solver="dpm++2m", steps=steps, data_consistency=False) for steps in (12, 24))
    restorer = FlairRestorer(Wiener(), X8, replace(QUICK, solver="dpm++2m", steps=24, data_consistency=False))
    other = restore_frames(restorer, clip(1), seed=4)
    assert (few - many).abs().mean() < 0.1 * (other - many).abs().mean()


def test_auto_spacing_is_even_in_log_snr_for_dpm_solver_only():
    lie = {solver: FlairRestorer(Wiener(), X8, replace(QUICK, steps=6, solver=solver)).schedule.timesteps for solver in SOLVERS}
    assert lie["ddpm"] == lie["ddim"] == (0, 200, 400, 599, 799, 999) != lie["dpm++2m"]
    named = FlairRestorer(Wiener(), X8, replace(QUICK, steps=6, solver="dpm++2m", spacing="uniform")).schedule.timesteps
    assert named == lie["ddim"]


MODES = ["blend", "impose"]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("mode", MODES)
def test_a_constant_clip_has_no_seam(solver, mode):
    """One textured picture over and over, under shared noise: no two frames differ, at the borders of windows either."""
    frames = clip(1).repeat(6, 1, 1, 1)
    changes = dict(solver=solver, overlap_mode=mode, window=3, overlap=2, steps=2)
    apart = run(frames, **changes)
    assert torch.equal(apart, apart[:1].expand_as(apart))
    overlapping = Wiener()
    overlapping.temporal = True
    tied = run(frames, overlapping, **changes)
    torch.testing.assert_close(tied, tied[:1].expand_as(tied), rtol=0, atol=3e-4)  # blending remembers half floats


def seams(mode, solver):
    """Mean differences of neighbours, in grey levels, over a constant clip under a prior that mixes a fifth of a window's mean into every frame."""
    changes = dict(overlap_mode=mode, solver=solver, window=4, overlap=2, steps=10)
    out = run(clip(1).repeat(7, 1, 1, 1), Wiener(leak=0.2), **changes)
    return 255 * (out[1:] - out[:-1]).abs().mean((1, 2, 3))


def test_the_published_tie_shows_less_than_a_grey_level_under_a_temporal_prior():
    """It shows such a prior shared frames as they will be, before their time: 0.6 grey levels, where another seed moves a frame by 4.8."""
    assert 0.1 < seams("impose", "ddpm").max() < 1


@pytest.mark.parametrize("solver", SOLVERS)
def test_blending_step_by_step_leaves_no_seam_under_any_prior(solver):
    assert seams("blend", solver).max() < 0.05


def test_new_noise_in_every_frame_makes_windows_lively_but_not_their_borders():
    """Frames of their own noise differ everywhere; across a border no more than elsewhere."""
    out = run(clip(1).repeat(8, 1, 1, 1), Wiener(leak=0.2), window=4, overlap=2, shared_noise=False, data_consistency=False)
    jumps = (out[1:] - out[:-1]).abs().mean((1, 2, 3))
    assert jumps.min() > 0.01 and jumps.max() < 1.5 * jumps.median()


def test_progress_adds_up_to_all_frames_and_ends_on_the_result():
    seen = []
    restorer = FlairRestorer(Wiener(leak=0.1), X8, replace(QUICK, window=4, overlap=2, overlap_mode="impose"), on_step=seen.append)
    out = restore_frames(restorer, clip(7))
    assert [done.step for done in seen] == [1, 2, 3] * 3 and {done.steps for done in seen} == {3}
    assert sum(done.frames for done in seen) == 3 * 7 and [done.frames for done in seen[::3]] == [4, 2, 1]
    torch.testing.assert_close(seen[-1].preview, out[-1])
    other = []
    again = restorer.reporting(other.append)
    restore_frames(again, clip(1))
    assert len(other) == 3 and len(seen) == 9


def test_a_step_report_may_stop_the_work():
    def stop(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore_frames(FlairRestorer(Wiener(), X8, QUICK, on_step=stop), clip(1))


def test_sampling_runs_in_inference_mode_and_its_result_can_be_used():
    prior = Wiener()
    out = run(clip(1), prior)
    assert prior.modes == {True}
    out += 1  # an inference tensor would refuse


ENHANCED = dict(window=4, overlap=2, overlap_mode="impose", w=0.2, tau=0)


def test_frames_that_will_be_overwritten_are_not_enhanced_frame_by_frame(monkeypatch):
    """Windows 0-3, 2-5 and 4-6; the shared two frames of the later ones are skipped, and nothing else changes."""
    network = Brighter()
    frames, prior = clip(7), Wiener(leak=0.1)
    lean = run(frames, prior, PerFrameRestorer(network), **ENHANCED)
    assert network.faces == [1, 3, 1, 3, 1, 1, 1, 1, 1, 1]  # two of three steps have weight; one face is asked before the others
    network.faces.clear()
    monkeypatch.setattr(PerFrameRestorer, "supports", frozenset())
    assert torch.equal(run(frames, prior, PerFrameRestorer(network), **ENHANCED), lean)
    assert network.faces == [4, 4, 4, 4, 3, 3]


def test_a_recurrent_enhancer_sees_the_whole_window():
    seen = []

    class Watched(Recurrent):
        def open(self, *args, **kwargs):
            session = super().open(*args, **kwargs)
            push = session.push
            session.push = lambda crops: (seen.append(len(crops)), push(crops))[1]
            return session

    run(clip(6), enhancer=Watched(), **ENHANCED)
    assert seen == [4, 4, 4, 4]


def test_windows_need_no_overlap_where_prior_and_enhancer_see_one_frame():
    network = Brighter()
    run(clip(6), enhancer=PerFrameRestorer(network), **ENHANCED)
    assert network.faces == [1, 3, 1, 3, 1, 1, 1, 1]


@pytest.mark.parametrize("by", [0.0, 0.008])
def test_an_enhancer_that_hardly_changes_the_first_face_is_spared_the_others(by):
    network = Brighter(by=by)
    frames, prior = clip(6), Wiener(leak=0.1)
    enhanced = run(frames, prior, PerFrameRestorer(network), **ENHANCED)
    assert network.faces == [1, 1, 1, 1] and torch.equal(enhanced, run(frames, prior, **ENHANCED))


def test_after_pre_cleaning_an_enhancer_takes_crops_as_cleaned():
    """With no pre-cleaner of its own, and its answers count where what was cleaned lacks an octave."""
    enhancer = PerFrameRestorer(Brighter(), side=128).precleaned_by(Recurrent())
    over = FlairRestorer(Wiener(), X8, enhancer=enhancer, precleaner=Recurrent()).enhancer
    assert over.precleaner is None and over.cleaner(None, lambda: None).is_clean(torch.zeros(1, 3, CROP, CROP))
    assert FlairRestorer(Wiener(), X8, enhancer=enhancer).enhancer is enhancer


def parser(calls):
    """The left half of every picture is face."""

    def masks(crops):
        calls.append(crops)
        mask = torch.zeros(len(crops), CROP, CROP)
        mask[..., : CROP // 2] = 1
        return mask

    return masks


@pytest.mark.parametrize(("every", "asked"), [("window", 2), ("step", 4)])
def test_a_parser_masks_the_enhancement(every, asked):
    """It sees what the enhancer made; per window once, or at each of the two steps that have weight."""
    calls = []
    options = replace(QUICK, mask_every=every, window=2, overlap=0, w=0.0, tau=0, data_consistency=False, temperature=0.0)
    frames = clip(3)
    plain = restore_frames(FlairRestorer(Wiener(), X8, options), frames)
    out = restore_frames(FlairRestorer(Wiener(), X8, options, PerFrameRestorer(Brighter()), mask=parser(calls)), frames)
    assert len(calls) == asked
    assert torch.equal(out[..., CROP // 2 :], plain[..., CROP // 2 :])
    assert (out - plain)[..., : CROP // 2].min() > 0.05
    assert calls[0].mean() > plain[:2].mean() + 0.1


def test_masks_may_keep_their_channel():
    x0 = torch.zeros(1, 3, CROP, CROP)
    flat, deep = (
        Enhancement(PerFrameRestorer(Brighter()), mask, False, 0, None, 0, lambda: None)(x0, 0.5)
        for mask in (parser([]), lambda crops: parser([])(crops)[:, None])
    )
    assert torch.equal(flat, deep) and flat.max() > 0.1
