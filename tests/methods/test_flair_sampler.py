"""FLAIR's sessions over real crops: chunking, seeds, observations, data consistency and enhancement."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from fvr.diffusion.schedule import linear_schedule
from fvr.faces.types import FaceTrack
from fvr.methods.base import Restorer, Session, restore_frames
from fvr.methods.flair.enhancement import Enhancement
from fvr.methods.flair.options import PRESETS
from fvr.methods.flair.sampler import FlairOptions, FlairRestorer, data_consistency, flair_step
from fvr.metrics.fidelity import psnr
from fvr.physics.identity import GaussianNoise
from fvr.physics.linear.bicubic import BicubicDownsample
from fvr.physics.linear.blur import Blur, MotionBlurPerFrame
from fvr.physics.linear.inpaint import Inpaint
from fvr.physics.linear.temporal import TemporalBlur
from fvr.physics.nonlinear.jpeg import Jpeg
from fvr.priors.base import Prior
from fvr.priors.flair_video import face_mask
from fvr.priors.wiener import GaussianPrior

X8 = BicubicDownsample(8)
QUICK = FlairOptions(steps=3, tau=1, temperature=1.0)


class Echo(Prior):
    """x_t, cleaned a little and pulled to the condition; with `temporal`, frames of a call also leak into each other."""

    def __init__(self, temporal=False):
        self.schedule = linear_schedule()
        self.temporal = temporal
        self.calls = []

    def predict_x0(self, x_t, t, condition=None):
        self.calls.append((len(x_t), t, condition is not None))
        x0 = 0.2 * x_t + (0 if condition is None else 0.6 * condition)
        return x0 + 0.1 * (x0.mean(0, keepdim=True) if self.temporal else 0)


class Shift(Restorer):
    """An enhancer that adds 0.25 and counts its calls."""

    name = "shift"

    def __init__(self):
        self.calls = 0

    def open(self, track=None, *, seed=0, check_interrupt=lambda: None):
        restorer = self

        class Shifting(Session):
            def push(self, crops):
                restorer.calls += 1
                assert crops.min() >= 0 and crops.max() <= 1 and crops.shape[-1] == 512
                return crops + 0.25

            def close(self):
                return torch.empty(0, 3, 512, 512)

        return Shifting()


def clip(n, side=64):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def portrait(side=512):
    at = torch.linspace(-1, 1, side)
    rings = 0.5 + 0.4 * torch.sin(14 * (at[None] ** 2 + (at[:, None] - 0.2) ** 2).sqrt())
    return torch.stack([rings, rings.T * 0.8, 0.3 + 0.2 * rings])[None]


def track_of(n, scale):
    matrix = torch.tensor([[scale, 0.0, 0.0], [0.0, scale, 0.0]]).repeat(n, 1, 1)
    box = torch.tensor([0.0, 0, 512 / scale, 512 / scale]).repeat(n, 1)
    flags = torch.ones(n)
    return FaceTrack(0, 4, box, torch.zeros(n, 5, 2), matrix, flags, flags.bool(), flags, (480, 640))


@pytest.mark.parametrize(("temporal", "shared"), [(False, False), (True, True)])
def test_chunks_of_one_seven_and_all_at_once_are_the_same(temporal, shared):
    restorer = FlairRestorer(Echo(temporal), X8, replace(QUICK, steps=2, window=4, overlap=2, shared_noise=shared))
    frames = clip(8)
    whole, single, sevens = (restore_frames(restorer, frames, seed=3, chunk=chunk) for chunk in (8, 1, 7))
    assert whole.shape == (8, 3, 512, 512) and torch.equal(whole, single) and torch.equal(whole, sevens)


def test_real_prior_in_chunks():
    restorer = FlairRestorer(GaussianPrior(), GaussianNoise(0.02) @ X8, FlairOptions(steps=2, window=2, overlap=1))
    frames = clip(3)
    assert torch.equal(restore_frames(restorer, frames, chunk=1), restore_frames(restorer, frames, chunk=3))


def test_seeds_decide_and_sessions_share_nothing():
    restorer = FlairRestorer(Echo(), X8, replace(QUICK, window=2, overlap=0))
    a, b = restorer.open(seed=1), restorer.open(seed=1)
    frames = clip(4)
    first = a.push(frames[:2])
    b.push(frames[2:])
    second = a.push(frames[2:])
    assert torch.equal(torch.cat([first, second]), restore_frames(restorer, frames, seed=1))
    assert not torch.equal(restore_frames(restorer, frames, seed=2), restore_frames(restorer, frames, seed=1))


def test_samples_are_averaged_each_from_its_own_noise():
    """FLAIR-SA: of 4 samples the mean scatters half as far around the mean of many, and the first is the one that is drawn alone."""
    frames = clip(1)

    def drawn(samples, seed=0):
        return restore_frames(FlairRestorer(Echo(), X8, replace(QUICK, data_consistency=False, samples=samples)), frames, seed=seed)

    many, one, four = drawn(16, seed=9), drawn(1), drawn(4)
    assert 0.35 < (four - many).std() / (one - many).std() < 0.65


def test_people_get_noise_of_their_own():
    restorer = FlairRestorer(Echo(), Blur.gaussian(1.0), QUICK)
    track, frames = track_of(1, 1.0), portrait()
    mine, yours = (restore_frames(restorer, frames, replace(track, person=person)) for person in (0, 1))
    assert not torch.equal(mine, yours)


def test_a_still_scene_stays_still_under_shared_noise():
    frames = clip(1).repeat(3, 1, 1, 1)
    still = restore_frames(FlairRestorer(Echo(), X8, QUICK), frames)
    torch.testing.assert_close(still[1:], still[:1].expand(2, -1, -1, -1))
    lively = restore_frames(FlairRestorer(Echo(), X8, replace(QUICK, shared_noise=False)), frames)
    assert (lively[1] - lively[0]).abs().max() > 0.01


def test_frames_that_do_not_interact_are_sampled_once():
    prior = Echo()
    restore_frames(FlairRestorer(prior, X8, QUICK), clip(12))
    assert len(prior.calls) == 12 * 3
    prior = Echo(temporal=True)
    restore_frames(FlairRestorer(prior, X8, QUICK), clip(12))
    assert [n for n, t, _ in prior.calls if t == 0] == [10, 5]


def test_the_heart_beats_at_every_step():
    beats = []
    restore_frames(FlairRestorer(Echo(temporal=True), X8, QUICK), clip(10), check_interrupt=lambda: beats.append(1))
    assert len(beats) >= QUICK.steps

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore_frames(FlairRestorer(Echo(), X8, QUICK), clip(10), check_interrupt=stop)


def test_the_observation_may_come_bare_or_enlarged():
    """A 64 x 64 clip for x8 and its decimable 512 enlargement describe the same y."""
    restorer = FlairRestorer(Echo(), X8, replace(QUICK, data_consistency=True))
    bare = restorer.open()
    y, c = bare.observe(clip(1))
    torch.testing.assert_close(c, (F.interpolate(clip(1), size=(512, 512), mode="bicubic") * 2 - 1).clamp(-1, 1))
    again, _ = bare.observe(X8.pinv(y))
    torch.testing.assert_close(again, y, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(100, 100), (512, 64), (1024, 1024)])
def test_other_sizes_are_one_clear_sentence(size):
    restorer, got = FlairRestorer(Echo(), X8, QUICK), rf"got {size[1]} x {size[0]} \(width x height\); align or resize them first"
    with pytest.raises(ValueError, match=rf"512 x 512, or the 64 x 64 that the degradation leaves of them, {got}$"):
        restorer.open().push(torch.zeros(1, 3, *size))
    with pytest.raises(ValueError, match=rf"512 x 512, {got}, or say which degradation made them small$"):
        restorer.with_degradation(None).open().push(torch.zeros(1, 3, *size))


def test_grey_crops_are_refused():
    with pytest.raises(ValueError, match="RGB crops"):
        FlairRestorer(Echo(), X8, QUICK).open().push(torch.zeros(1, 1, 64, 64))


@pytest.mark.parametrize("gamma", [1.0, 0.4])
def test_data_consistency_explains_the_observation(gamma):
    """A x~0 - y = (1 - gamma) (A x0 - y): at gamma 1 nothing of y is left unexplained, whatever the estimate was."""
    y, x0 = X8.forward(portrait()), torch.zeros(1, 3, 512, 512)
    left, before = (X8.forward((x + 1) / 2) - y for x in (data_consistency(x0, y, X8, gamma=gamma), x0))
    torch.testing.assert_close(left, (1 - gamma) * before, atol=2e-3, rtol=0)


def test_damped_consistency_is_the_gaussian_posterior():
    """argmin |A x - y|^2 / s^2 + |x - x0|^2 / r^2 has zero gradient there."""
    op = Blur.gaussian(1.5, factor=4)
    truth = portrait(64).double()
    y, x0, damping = op.forward(truth), (truth * 2 - 1) * 0.9, 0.3
    x = (data_consistency(x0, y, op, damping=damping) + 1) / 2
    slope = op.adjoint(op.forward(x) - y) + damping * (x - (x0 + 1) / 2)
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-6, rtol=0)


def test_jpeg_consistency_is_the_composed_line():
    """eq. 9 after eq. 12 as the code has it: x0 - (A+ D(E(A x0)) - A+ y), in [0, 1] where JPEG lives."""
    linear = BicubicDownsample(4)
    op, truth = Jpeg(60) @ linear, portrait(128)
    y, x0 = op.forward(truth), (truth * 2 - 1) * 0.8
    expected = x0 - 2 * (linear.pinv(Jpeg(60).forward(linear.forward((x0 + 1) / 2))) - linear.pinv(y))
    torch.testing.assert_close(data_consistency(x0, y, op), expected.clamp(-1, 1), atol=1e-5, rtol=0)


def test_the_last_step_returns_the_estimate():
    x0 = portrait(16) * 2 - 1
    step = flair_step(torch.randn(1, 3, 16, 16), x0, None, None, (0.99, 1.0), torch.zeros(1), gamma=1.0, rho=0.5)
    assert torch.equal(step.x_prev, x0) and torch.equal(step.x0, x0)


def test_enhancement_stays_in_the_mask_and_follows_its_weights():
    """w 0 in the code's reading gives the enhanced face all the weight at t = tau; below tau the enhancer is not called."""
    options = FlairOptions(steps=3, tau=0, w=0.0, data_consistency=False, temperature=0.0)
    enhancer = Shift()
    plain = restore_frames(FlairRestorer(Echo(), X8, options), torch.full((1, 3, 64, 64), 0.4))
    better = restore_frames(FlairRestorer(Echo(), X8, options, enhancer), torch.full((1, 3, 64, 64), 0.4))
    assert enhancer.calls == 2  # weights at t = 0 and 1; at t = K - 1 the weight is 0
    assert torch.equal(better[..., 0, 0], plain[..., 0, 0])
    assert (better - plain)[..., 290, 256].min() > 0.2
    enhancer.calls = 0
    restore_frames(FlairRestorer(Echo(), X8, replace(options, enhance=False), enhancer), clip(1))
    assert enhancer.calls == 0
    restore_frames(FlairRestorer(Echo(), X8, replace(options, tau=3), enhancer), clip(1))
    assert enhancer.calls == 0


def test_enhancement_is_eq_13():
    """(1 - w m) x0 + w m G(x0); here G adds 0.5 in the range [-1, 1]."""
    mask, x0 = face_mask(), portrait() - 0.5
    found = Enhancement(Shift(), mask, False, 0, None, 0, lambda: None)(x0, 0.3)
    torch.testing.assert_close(found, x0 + 0.3 * mask * 0.5)


def test_the_mask_covers_the_face_of_the_template_and_not_the_border():
    mask = face_mask()
    assert mask.min() == 0 and mask.max() == 1
    assert max(mask[0].max(), mask[-1].max(), mask[:, 0].max(), mask[:, -1].max()) == 0
    for x, y in [(193, 240), (319, 240), (257, 314), (201, 371), (313, 372)]:  # eyes, nose, mouth of the 512 template
        assert mask[y, x] == 1


def test_guidance_zero_ignores_the_condition():
    prior = Echo()
    restore_frames(FlairRestorer(prior, X8, replace(QUICK, guidance=0.0)), clip(1))
    assert not any(seen for _, _, seen in prior.calls)
    prior = Echo()
    restore_frames(FlairRestorer(prior, X8, replace(QUICK, guidance=2.0)), clip(1))
    assert [seen for _, _, seen in prior.calls] == [True, False] * 3


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 1.5])
def test_guidance_is_eq_14(strength):
    """lambda times the conditional estimate and 1 - lambda times the unconditional one; that of eps says the same of x0."""

    class Two(Echo):
        def predict_x0(self, x_t, t, condition=None):
            return torch.full_like(x_t, 0.1 if condition is None else 0.5)

    options = replace(QUICK, guidance=strength, data_consistency=False)
    restored = restore_frames(FlairRestorer(Two(), X8, options), clip(1))
    torch.testing.assert_close(2 * restored - 1, torch.full_like(restored, strength * 0.5 + (1 - strength) * 0.1))


def test_it_restores(astronaut):
    """x4 blur and noise 0.03: better than bicubic enlargement by a decibel, and better with the observation than without."""
    op = GaussianNoise(0.03) @ Blur.gaussian(2.0, factor=4)
    truth = F.interpolate(astronaut[None, :, :256, 96:352], size=(512, 512), mode="bicubic").clamp(0, 1)
    y = op.observe(truth, torch.Generator().manual_seed(0))
    enlarged = F.interpolate(y, size=(512, 512), mode="bicubic").clamp(0, 1)
    on, off = (restore_frames(FlairRestorer(GaussianPrior(), op, FlairOptions(data_consistency=dc)), y) for dc in (True, False))
    assert psnr(on, truth) > psnr(enlarged, truth) + 1
    assert psnr(on, truth) > psnr(off, truth) + 0.5


@pytest.mark.parametrize("op", [Blur.gaussian(2.0), Blur.gaussian(4.0, factor=4), BicubicDownsample(4)], ids=["blur", "blur x4", "x4"])
def test_a_degradation_without_noise_does_not_multiply_the_rounding_of_eight_bits(op, astronaut):
    """A blur described without noise ended in worms at 10 dB."""
    truth = F.interpolate(astronaut[None, :, :256, 96:352], size=(512, 512), mode="bicubic").clamp(0, 1)
    y = (op.forward(truth).clamp(0, 1) * 255).round() / 255
    enlarged = F.interpolate(y, size=(512, 512), mode="bicubic").clamp(0, 1)
    restored = restore_frames(FlairRestorer(GaussianPrior(), op, FlairOptions(steps=4)), y)
    assert psnr(restored, truth) > psnr(enlarged, truth) + 0.5


def test_windows_are_longer_under_blur_along_time():
    """So that long windows' frames are nearly those of one: at their ends the observation shows frames that a window does not have."""
    op = GaussianNoise(0.01) @ TemporalBlur(5)
    truth = torch.cat([portrait().roll((2 * i, 3 * i), (2, 3)) for i in range(8)])
    y = op.observe(truth, torch.Generator().manual_seed(0)).clamp(0, 1)
    options = FlairOptions(steps=2, window=5, overlap=2)
    restorer = FlairRestorer(GaussianPrior(), op, options)
    assert (restorer.window, restorer.overlap, restorer.look_ahead) == (9, 4, 8)
    assert (FlairRestorer(GaussianPrior(), X8, options).window, FlairRestorer(GaussianPrior(), X8, options).overlap) == (5, 2)
    found = restore_frames(restorer, y)
    restorer.reach = 0
    assert restorer.window == 5
    assert len(found) == 8 and psnr(found, truth).mean() > psnr(restore_frames(restorer, y), truth).mean() + 1


@pytest.mark.parametrize("name", ["gaussian", "motion", "jpeg"])
def test_published_presets_hold_to_the_observation_at_the_papers_noise(name):
    """sigma 0.05: consistency on and off gave the same bits. 8 of the preset's steps."""
    kernel = Blur.motion(25, 0.5, seed=1, factor=4, boundary="circular") if name == "motion" else Blur.gaussian(2.0, factor=4)
    op = GaussianNoise(0.05) @ kernel
    op = Jpeg(60) @ op if name == "jpeg" else op
    truth = portrait()
    y = op.observe(truth, torch.Generator().manual_seed(0))
    options = replace(PRESETS[name], steps=8)
    on, off = (restore_frames(FlairRestorer(GaussianPrior(), op, replace(options, data_consistency=dc)), y) for dc in (True, False))

    def residual(x):
        return (op.forward(x) - y).square().mean().sqrt()

    assert residual(on) < 0.6 * residual(off)
    assert psnr(on, truth) > psnr(off, truth) + 3


def test_a_consistency_that_does_nothing_is_told():
    restorer = FlairRestorer(Echo(), GaussianNoise(0.05) @ X8, replace(QUICK, zeta=1e6, zeta_reading="paper", start=0.1))
    session = restorer.open()
    assert "data consistency does nothing: zeta 1e+06 (paper) at noise of 12.75 grey levels" in session.note
    assert not FlairRestorer(Echo(), GaussianNoise(0.05) @ X8, QUICK).open().note


def test_every_window_deblurs_with_the_kernels_of_its_frames():
    """Section 5.2: another motion kernel in each frame. Frames 2 and 3 are a window of their own."""
    op = MotionBlurPerFrame(25, 0.5, seed=3, factor=4, boundary="circular")
    y = op.forward(portrait().expand(4, -1, -1, -1))
    options = replace(QUICK, window=2, overlap=0, data_consistency=True)
    restored = restore_frames(FlairRestorer(Echo(), op, options), y)
    errors = (op.forward(restored) - y).square().mean((1, 2, 3)).sqrt()
    assert errors.max() < 0.01
    assert (op.of_frame(0).forward(restored[3:]) - y[3:]).square().mean().sqrt() > 2 * errors.max()


def test_every_window_has_the_masks_of_its_frames():
    holes = torch.ones(6, 1, 512, 512)
    holes[:, :, 100:140, 100:140] = 0
    holes[3, :, 300:340] = 0
    y = portrait().expand(6, -1, -1, -1) * holes
    restored = restore_frames(FlairRestorer(Echo(), Inpaint(holes), replace(QUICK, window=2, overlap=0)), y)
    known = holes[3].bool().expand(3, -1, -1)
    assert (restored[3] - y[3])[known].abs().max() < 0.03 and (restored[4] - y[4])[:, 300:340].abs().max() < 0.03


def test_a_tracked_face_is_seen_through_its_own_resampling():
    """A face of 128 frame pixels: y is decimated to about its own size, and the operator explains a clean crop's y."""
    session = FlairRestorer(GaussianPrior(), None, FlairOptions(steps=2)).with_degradation(None).open(track_of(1, 4.0))
    assert session.observe.size == (128, 128) and not session.observe.raw
    with pytest.raises(ValueError, match=r"takes RGB crops of 512 x 512, got 128 x 128 \(width x height\); align or resize them first$"):
        session.push(torch.zeros(1, 3, 128, 128))
    out = torch.cat([session.push(portrait()), session.close()])
    assert psnr(out, portrait()) > 25
