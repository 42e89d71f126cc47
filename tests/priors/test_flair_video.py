"""FLAIR's networks behind the prior's interface: what goes in, what is kept between steps, how weights are recognised."""

import pytest
import torch
import torch.nn.functional as F
from helpers.flair_small import SIDE, SMALL, clip, gap, seeded

from fvr.diffusion.schedule import add_noise, bicubic_schedule, eps_to_x0, linear_schedule
from fvr.methods.flair.sampler import flair_step
from fvr.models.flair.bicubic import BicubicUNet
from fvr.models.flair.blur import BlurUNet
from fvr.models.flair.spynet import SPyNet
from fvr.priors.flair_video import FlairPrior, flair_prior_from, smoothed

KINDS = tuple(SMALL)
STEP = 300


@pytest.fixture(scope="module", params=KINDS)
def prior(request):
    return FlairPrior(seeded(request.param))


@pytest.fixture(autouse=True)
def no_gradients_unless_asked(request):
    with torch.set_grad_enabled("gradient" in request.node.name):
        yield


def is_bicubic(prior):
    return isinstance(prior.network, BicubicUNet)


def spynet_calls(prior):
    """A list that grows with every call of the flow network, and the hook to remove."""
    calls = []
    spynet = next(module for module in prior.network.modules() if isinstance(module, SPyNet))
    return calls, spynet.register_forward_hook(lambda *_: calls.append(1))


def test_published_schedules(prior):
    """Table 11; the bicubic network is told sqrt(alpha_bar_t) of the very step, the other its number, also where steps are skipped."""
    published = bicubic_schedule() if is_bicubic(prior) else linear_schedule()
    assert prior.schedule.alphas_cumprod.equal(published.alphas_cumprod)
    short = prior.schedule.respaced(25)
    for i, t in enumerate(short.timesteps):
        assert prior.level(t) == pytest.approx(short.alpha_bar(i) ** 0.5 if is_bicubic(prior) else t, rel=1e-12)


def test_estimate_is_the_networks(prior):
    """x_0 = (x_t - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar) with the network called by hand."""
    x_t, condition = clip(2)
    alpha_bar = prior.schedule.alpha_bar(STEP)
    level = torch.tensor(alpha_bar**0.5 if is_bicubic(prior) else float(STEP))
    weights = torch.ones(2, 1, SIDE, SIDE)
    if is_bicubic(prior):
        at = (torch.arange(SIDE) + 0.5) / SIDE
        face = ((1.05 - (((at[None] - 0.5) / 0.34) ** 2 + ((at[:, None] - 0.55) / 0.4) ** 2).sqrt()) / 0.2).clamp(0, 1)
        weights = weights * (0.93 + 0.07 * face)
    eps = prior.network(x_t, condition, level, weights=weights)
    assert gap(prior.predict_x0(x_t, STEP, condition), eps_to_x0(x_t, eps, alpha_bar)) < 1e-4


def test_mask_and_background(prior):
    """A face everywhere, or a background of 1, is no annealing; masks of every form and size say the same."""
    x_t, condition = clip(2)
    other = FlairPrior(prior.network, background=0.5)
    plain = FlairPrior(prior.network, background=1.0).predict_x0(x_t, STEP, condition)
    assert other.masked(lambda crops: torch.ones(SIDE, SIDE)).predict_x0(x_t, STEP, condition).equal(plain)
    face = (torch.arange(SIDE) < SIDE // 2).float().expand(SIDE, SIDE)
    forms = [face, face.expand(2, 1, SIDE, SIDE), F.interpolate(face[None, None], scale_factor=2.0)[0, 0]]
    found = [other.masked(lambda crops, mask=mask: mask).predict_x0(x_t, STEP, condition) for mask in forms]
    assert all(gap(result, found[0]) < 1e-6 for result in found[1:])
    assert gap(found[0], plain) > 1e-4


def test_what_is_carried_is_whole_inside_the_face_and_the_backgrounds_share_outside(prior):
    """w_n of eq. 17: w~ (1 - m) + m."""
    face = torch.rand(SIDE, SIDE)
    found = FlairPrior(prior.network, background=0.5).masked(lambda crops: face)._weights(clip(2)[1])
    torch.testing.assert_close(found, (0.5 * (1 - face) + face)[None, None])


def test_a_parser_says_where_features_are_carried(prior):
    """As the mask that it finds in the condition would; asked once for a window, not once a step."""
    x_t, condition = clip(2)
    asked = []

    def parser(crops):
        asked.append(crops)
        return (crops.mean(1, keepdim=True) > 0.5).float()

    other = FlairPrior(prior.network, background=0.5)
    parsing = other.masked(parser)
    found = [parsing.predict_x0(x_t, step, condition) for step in (STEP, STEP - 1)]
    mask = ((condition + 1) / 2).clamp(0, 1).mean(1, keepdim=True).gt(0.5).float()
    same = other.masked(lambda crops: mask)
    assert len(asked) == 1 and found[0].equal(same.predict_x0(x_t, STEP, condition))
    parsing.predict_x0(x_t, STEP, condition.flip(0))
    assert len(asked) == 2


def test_flow_is_made_once_for_a_window(prior):
    """Steps on one condition share its flow, and differ in nothing from a prior that has seen nothing before."""
    prior = FlairPrior(prior.network)
    x_t, condition = clip(2)
    calls, hook = spynet_calls(prior)
    prior.predict_x0(x_t, STEP, condition)
    per_window = len(calls)
    assert per_window > 0
    later = prior.predict_x0(x_t * 0.9, STEP - 1, condition.clone())
    assert len(calls) == per_window
    condition[1] += 0.1  # the same tensor, no longer the same frames
    changed = prior.predict_x0(x_t, STEP, condition)
    assert len(calls) == 2 * per_window
    hook.remove()
    assert later.equal(FlairPrior(prior.network).predict_x0(x_t * 0.9, STEP - 1, clip(2)[1]))
    assert changed.equal(FlairPrior(prior.network).predict_x0(x_t, STEP, condition))


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_after_inference(kind):
    """What is kept from sampling in inference mode serves a gradient later."""
    prior = FlairPrior(seeded(kind))
    x_t, condition = clip(2)
    with torch.inference_mode():
        before = prior.predict_x0(x_t, STEP, condition)
    x_t.requires_grad_()
    after = prior.predict_x0(x_t, STEP, condition)
    assert gap(after.detach(), before) < 1e-5
    (gradient,) = torch.autograd.grad(after.square().mean(), x_t)
    assert gradient.isfinite().all() and gradient.flatten(1).any(1).all()


@pytest.mark.parametrize("factor", [2, 4, 16])
def test_flow_of_the_blur_network(factor):
    """From a condition of repeated pixels the observation's bicubic enlargement is regained; other conditions are left alone."""
    y = torch.rand(2, 3, 64 // factor, 96 // factor) * 2.4 - 1.2
    condition = F.interpolate(y, scale_factor=float(factor), mode="nearest")
    assert condition.equal(F.interpolate(y, scale_factor=float(factor), mode="area"))
    torch.testing.assert_close(smoothed(condition), F.interpolate(y, scale_factor=float(factor), mode="bicubic").clamp(-1, 1))
    condition[0, 0, 5, 5] += 1e-3
    assert smoothed(condition) is condition


def test_guide_of_each_network(prior):
    """Only the blur network reads motion from the smooth enlargement."""
    condition = F.interpolate(clip(2)[1][..., ::4, ::4], scale_factor=4.0, mode="nearest")
    guide = condition if is_bicubic(prior) else smoothed(condition)
    x_t, _ = clip(2)
    level = torch.tensor(prior.level(STEP))
    expected = prior.network(x_t, condition, level, flows=prior.network.flows(guide))
    assert gap(FlairPrior(prior.network, background=1.0).predict_eps(x_t, STEP, condition), expected) < 1e-5
    assert prior.upsampling == ("bicubic" if is_bicubic(prior) else "area")


def test_without_a_condition_frames_are_images(prior):
    """eq. 14's second branch: c = 0 and each frame on its own."""
    x_t, condition = clip(2)
    found = prior.predict_x0(x_t, STEP, None)
    alone = torch.cat([prior.predict_x0(frame[None], STEP, None) for frame in x_t.flip(0)]).flip(0)
    assert gap(found, alone) < 1e-5
    nothing = prior.network(x_t[:1], torch.zeros_like(x_t[:1]), torch.tensor(prior.level(STEP)), temporal=False)
    assert gap(prior.predict_eps(x_t[:1], STEP, None), nothing) < 1e-5
    assert gap(found, prior.predict_x0(x_t, STEP, condition)) > 1e-3


def test_a_few_steps(prior):
    """FLAIR's update runs on the prior's estimates, from the noisy condition to frames in [-1, 1]; a second run gives the same."""
    x_t, condition = clip(2)
    schedule = prior.schedule.respaced(3)

    def sampled():
        x = add_noise(condition, x_t, schedule.alpha_bar(2))
        for t in (2, 1, 0):
            x0 = prior.predict_x0(x, schedule.timesteps[t], condition)
            x = flair_step(x, x0, None, None, (schedule.alpha_bar(t), schedule.alpha_bar(t - 1)), x_t, gamma=0.0, rho=0.5).x_prev
        return x

    first = sampled()
    assert first.abs().max() <= 1 and first.std() > 0.05
    assert first.equal(sampled())


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_recognised(kind):
    config = SMALL[kind][1]
    state = seeded(kind).state_dict()
    prior = flair_prior_from(state, config=config)
    assert isinstance(prior.network, BicubicUNet if kind == "bicubic" else BlurUNet)
    assert prior.background == (0.93 if kind == "bicubic" else 1.0)
    assert flair_prior_from(state, "x16" if kind == "bicubic" else "jpeg", config=config).background == (0.98 if kind == "bicubic" else 1.0)
    x_t, condition = clip(1)
    assert gap(prior.predict_x0(x_t, STEP, condition), FlairPrior(seeded(kind)).predict_x0(x_t, STEP, condition)) < 1e-5
    assert not any(parameter.requires_grad for parameter in prior.network.parameters())
    with pytest.raises(ValueError, match="not for"):
        flair_prior_from(state, "jpeg" if kind == "bicubic" else "x8", config=config)


def test_other_weights_and_settings(prior):
    with pytest.raises(ValueError, match="not one of FLAIR's"):
        flair_prior_from({"time_embed.0.weight": torch.zeros(1), "input_blocks.0.0.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="multiples of 2"):
        prior.predict_x0(torch.zeros(1, 3, 33, 32), STEP, torch.zeros(1, 3, 33, 32))
