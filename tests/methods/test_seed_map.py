"""Algorithm 1 and its parts: schedule, ball, warping, history, report."""

from __future__ import annotations

import json
import math

import pytest
import torch
from helpers.live_bytes import LiveBytes
from helpers.tiny_seed_models import SIDE, TinyUNet, tiny_latent
from torch.testing import assert_close

from fvr.methods.seed_map.cost import clip_bytes, estimate
from fvr.methods.seed_map.data_term import Observation, unexplained, unfinished
from fvr.methods.seed_map.generator import PixelGenerator, leading_times, reverse
from fvr.methods.seed_map.low_rank import LowRank
from fvr.methods.seed_map.optimise import seed_map
from fvr.methods.seed_map.options import SeedMapOptions
from fvr.methods.seed_map.report import plot, summary, to_json
from fvr.methods.seed_map.variables import SharedSeed
from fvr.methods.seed_map.warping_term import ProgressiveWarping
from fvr.motion.dis import DisFlow
from fvr.motion.occlusion import visible
from fvr.physics import AveragePool, Blur, GaussianNoise, Inpaint, RandomInpaint, TemporalBlur


def drift(count: int = 4, side: int = 32) -> torch.Tensor:
    """A textured clip that moves two pixels to the left per frame, in [0, 1]."""
    torch.manual_seed(0)
    wide = torch.nn.functional.avg_pool2d(torch.rand(1, 3, side + 8, side + 8 * count), 5, 1, 2)
    wide = (wide - wide.min()) / (wide.max() - wide.min())
    return torch.cat([wide[..., :side, 2 * n : 2 * n + side] for n in range(count)])


def test_times_are_those_of_ddim_with_leading_spacing_and_offset():
    assert leading_times(1000, 4) == [1, 251, 501, 751]
    assert len(leading_times(1000, 7)) == 7
    assert [leading_times(300, steps)[-1] for steps in (2, 4, 10)] == [151, 226, 271]  # where a drawing from 0.3 of the schedule begins
    with pytest.raises(ValueError, match="10 DDIM steps do not fit"):
        leading_times(10, 10)


@pytest.mark.parametrize("clip", [False, True])
def test_the_reverse_process_is_ddim_without_noise(clip):
    """R = g_0 o ... o g_3 (eq. 6), each eq. 3; after the cleanest level comes the estimate itself."""
    levels, z, asked = [0.99, 0.7, 0.3, 0.05], torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), []

    def estimate(x, i):
        asked.append(i)
        return 1.5 * torch.tanh(x + i)

    x = z
    for i in (3, 2, 1, 0):
        x0 = estimate(x, i).clamp(-1, 1) if clip else estimate(x, i)
        eps = (x - levels[i] ** 0.5 * x0) / (1 - levels[i]) ** 0.5
        x = levels[i - 1] ** 0.5 * x0 + (1 - levels[i - 1]) ** 0.5 * eps if i else x0
    assert_close(reverse(z, estimate, levels, clip=clip), x)
    assert asked == [3, 2, 1, 0] * 2


def test_the_norm_of_a_residual_needs_no_product():
    residual = LowRank.start((3, 9, 7), 4, 1.0, torch.device("cpu"), 0)
    residual.b.data.normal_()
    assert residual.norm() == pytest.approx(residual.dense().norm().item(), rel=1e-6)


def test_residuals_are_kept_in_a_ball_and_left_alone_inside_it():
    residual = LowRank.start((3, 9, 7), 4, 1.0, torch.device("cpu"), 0)
    residual.b.data.normal_()
    direction, norm = residual.dense() / residual.norm(), residual.norm()
    before = residual.a.clone()
    residual.project(norm * 1.01)
    assert torch.equal(residual.a, before)
    residual.project(norm / 3)
    assert residual.norm() == pytest.approx(norm / 3, rel=1e-5)
    assert_close(residual.dense() / residual.norm(), direction)


def test_a_radius_binds():
    y = AveragePool(2).forward(drift())
    generator = PixelGenerator(TinyUNet(), (32, 32))
    small = SeedMapOptions(iterations=30, radius=0.02, residual_rate=0.02)
    result = seed_map(y, AveragePool(2), generator, small)
    assert max(term.fullness for term in result.terms) == pytest.approx(1, abs=1e-4)
    free = seed_map(y, AveragePool(2), generator, SeedMapOptions(iterations=30, radius=10, residual_rate=0.02))
    assert free.terms[-1].fullness < 0.5 and free.terms[-1].data < result.terms[-1].data


@pytest.mark.parametrize("noise_prior", [True, False])
def test_the_loss_falls_through_a_decoder_too(noise_prior):
    operator = AveragePool(2) @ TemporalBlur(3)
    y = operator.forward(drift(side=SIDE))
    result = seed_map(
        y, operator, tiny_latent(), SeedMapOptions(iterations=25, noise_prior=noise_prior, seed_rate=0.05, residual_rate=0.01, loss="l1")
    )
    assert result.terms[-1].data < 0.92 * result.terms[0].data
    again = seed_map(
        y, operator, tiny_latent(), SeedMapOptions(iterations=25, noise_prior=noise_prior, seed_rate=0.05, residual_rate=0.01, loss="l1")
    )
    assert torch.equal(again.frames, result.frames)


def test_gradients_do_not_need_the_caller_s_permission():
    y = AveragePool(2).forward(drift())
    generator = PixelGenerator(TinyUNet(), (32, 32))
    plain = seed_map(y, AveragePool(2), generator, SeedMapOptions(iterations=3)).frames
    with torch.inference_mode():
        assert torch.equal(seed_map(y.clone(), AveragePool(2), generator, SeedMapOptions(iterations=3)).frames, plain)


def test_the_flow_is_averaged_over_its_estimates():
    class Doubling:
        def __init__(self):
            self.calls = 0

        def features(self, frames):
            return frames

        def flow(self, current, previous):
            self.calls += 1
            return torch.full((1, 2, *current.shape[-2:]), float(self.calls))

    warping = ProgressiveWarping(Doubling(), 0.9)
    frames = drift(2) * 2 - 1
    warping.refresh(warping.look(frames))
    assert warping.flow is not None and (warping.flow == 1).all()
    warping.refresh(warping.look(frames))
    assert_close(warping.flow, torch.full_like(warping.flow, 0.9 * 1 + 0.1 * 3))
    assert warping.changes == [pytest.approx(2 * 2**0.5)]


def test_a_true_flow_leaves_nothing_to_warp_and_a_wrong_one_does():
    frames = drift(3, 64) * 2 - 1
    warping = ProgressiveWarping(DisFlow(), 0.5)
    warping.refresh(warping.look(frames))
    assert warping.flow is not None and abs(float(warping.flow[:, 0].median()) + 2) < 0.3
    true, _ = warping.value_and_gradient(frames)
    warping.flow = torch.zeros_like(warping.flow)
    still, _ = warping.value_and_gradient(frames)
    assert true < 0.1 * still


def test_the_heavier_the_warping_the_less_is_left_to_warp():
    """Its gradient joins that of the data with `warp_weight`, at the price of the data."""
    y, free = AveragePool(2).forward(drift()), PixelGenerator(TinyUNet(), (32, 32))
    options = [SeedMapOptions(iterations=30, warp_start=0.0, warp_weight=weight, residual_rate=0.02) for weight in (0.01, 1.0, 30.0)]
    last = [seed_map(y, AveragePool(2), free, one, flow=DisFlow()).terms[-1] for one in options]
    assert last[0].warp > 1.1 * last[1].warp > 1.1**2 * last[2].warp and last[0].data < last[2].data


def test_pixels_that_leave_or_are_covered_are_not_visible():
    left = torch.zeros(1, 2, 20, 20)
    left[:, 0] = -3
    seen = visible(left, -left)
    assert (seen[..., :3] == 0).all() and (seen[..., 3:-3] == 1).all()
    covered = -left.clone()
    covered[..., 8:12, 8:12] = 5
    assert (visible(left, covered)[0, 0, 8:12, 11:15] == 0).all()


def test_the_warping_begins_when_the_flow_settles_but_not_at_once():
    y = AveragePool(2).forward(drift())
    generator = PixelGenerator(TinyUNet(), (32, 32))
    options = SeedMapOptions(iterations=20, warp_every=2)
    result = seed_map(y, AveragePool(2), generator, options, flow=DisFlow())
    assert result.warped_from is not None and 4 <= result.warped_from <= 15
    assert [term.warp is None for term in result.terms] == [e < result.warped_from for e in range(20)]
    never = seed_map(y, AveragePool(2), generator, SeedMapOptions(iterations=3, warp_weight=0.0), flow=DisFlow())
    assert never.warped_from is None


def test_the_flow_is_estimated_once_where_the_warping_begins():
    """Its change there is that since the estimate before."""

    class Counting(DisFlow):
        calls = 0

        def flow(self, current, previous):
            type(self).calls += 1
            return super().flow(current, previous)

    y = AveragePool(2).forward(drift())
    options = SeedMapOptions(iterations=20, warp_every=2, seed_rate=0.05)
    result = seed_map(y, AveragePool(2), PixelGenerator(TinyUNet(), (32, 32)), options, flow=Counting())
    begun = result.warped_from
    assert begun is not None and begun % 2 == 0
    assert Counting.calls == 10 * 6  # each second iteration, three pairs, there and back
    assert [e for e, term in enumerate(result.terms) if term.flow_change is not None] == list(range(2, 20, 2))
    assert result.terms[begun].flow_change > 0


def test_hidden_pixels_of_the_input_do_not_count():
    operator = RandomInpaint(0.5, 0)
    clean = drift()
    scribbled = torch.where(operator.mask_for(clean) > 0, clean, torch.rand_like(clean))
    frames = torch.rand_like(clean) * 2 - 1
    assert (
        Observation(scribbled, operator).value_and_gradient(frames)[0] == Observation(operator.forward(clean), operator).value_and_gradient(frames)[0]
    )


SHARES = {"all": 1.0, "half": 0.5, "a tenth": 0.1}


@pytest.mark.parametrize("keep", SHARES.values(), ids=SHARES)
@pytest.mark.parametrize("moving", [False, True], ids=["one mask", "a mask per frame"])
def test_what_is_left_is_measured_where_something_is_known(keep, moving):
    """Frames that are 8 levels wrong everywhere are 8 levels wrong however few of their pixels are known, and as rich in contrast."""
    clean = drift()
    once = torch.stack([RandomInpaint(keep, n).mask_for(clean) for n in range(4)])[:, None]
    operator = Inpaint(once) if moving else RandomInpaint(keep, 0)
    observed = Observation(operator.forward(clean), operator)
    residuals, contrast = observed.residuals(2 * (clean + 8 / 255) - 1), observed.contrast()
    assert_close(residuals, torch.full((4,), 8 / 255))
    mask = once if moving else once[:1].expand(4, -1, -1, -1)
    for n in range(4):
        assert float(contrast[n]) == pytest.approx(clean[n][:, mask[n, 0] > 0].std().item(), rel=0.01)


def test_a_frame_of_which_nothing_is_known_is_explained():
    mask = torch.ones(3, 1, 32, 32)
    mask[1] = 0
    observed = Observation(drift(3), Inpaint(mask))
    residuals, contrast = observed.residuals(torch.zeros(3, 3, 32, 32)), observed.contrast()
    assert residuals[1] == 0 and contrast[1] == 0 and residuals[[0, 2]].min() > 0.05
    assert unexplained(residuals.tolist(), contrast.tolist(), 0.0) == [0, 2]


def test_noise_under_a_mask_is_expected_in_full():
    """A tenth of the pixels, each with noise of 0.05: the true clip explains them."""
    clean = drift()
    operator = RandomInpaint(0.1, 0) @ GaussianNoise(0.05)
    observed = Observation(operator.observe(clean, torch.Generator().manual_seed(0)), operator)
    residuals = observed.residuals(2 * clean - 1).tolist()
    assert observed.noise == pytest.approx(0.05) and residuals == pytest.approx([0.05] * 4, rel=0.15)
    assert unexplained(residuals, observed.contrast().tolist(), observed.noise) == []


def test_residuals_begin_alike_under_one_mask_and_under_the_same_mask_for_each_frame():
    """A mask per frame hides other pixels in each but mixes no frames; blur over time does, masked or not."""
    mask = RandomInpaint(0.5, 0).mask_for(drift())
    one, each = Inpaint(mask), Inpaint(mask.expand(4, 1, 32, 32))
    shy, bold = (SeedMapOptions().resolved(operator).residual_init for operator in (AveragePool(2), TemporalBlur(3)))
    assert shy is not None and bold is not None and shy < bold
    for operator, expected in ((one, shy), (each, shy), (each @ AveragePool(2), shy), (each @ TemporalBlur(3), bold), (TemporalBlur(3) @ each, bold)):
        assert SeedMapOptions().resolved(operator).residual_init == expected
    frames = [seed_map(drift(), operator, PixelGenerator(TinyUNet(), (32, 32)), SeedMapOptions(iterations=20)).frames for operator in (one, each)]
    assert_close(frames[0], frames[1])


def test_a_frame_that_does_not_fit_the_others_is_named():
    assert unexplained([0.004] * 5 + [0.05] + [0.004] * 4, [0.2] * 10, 0.0) == [5]
    assert unexplained([0.06] * 4, [0.2] * 4, 0.0) == [0, 1, 2, 3]
    assert unexplained([0.06] * 4, [0.2] * 4, noise=0.05) == []
    assert unexplained([math.nan, 0.001], [0.2, 0.2], 0.0) == [0]
    assert unexplained([0.015] * 3, [0.2] * 3, 0.0) == [0, 1, 2]  # 0.07 of the contrast: a sharp face said to be blurred
    assert unexplained([0.006] * 3, [0.05] * 3, 0.0) == []  # below two grey levels


def test_a_loss_that_came_to_rest_is_told_from_one_that_still_fell():
    assert unfinished([1.0, 0.5, 0.25, 0.12, 0.06], [0.0, 1.0, 2.0, 3.0, 4.0])
    assert not unfinished([1.0, 0.2, 0.1, 0.09, 0.08], [0.0, 1.0, 2.0, 3.0, 4.0])
    assert unfinished([1.0, 0.5, 0.3, 0.22, 0.2], [0.0, 1.5, 2.5, 2.9, 3.0])  # less than half was left after half of the way, if not of the time
    assert unfinished([1.0, 0.99, 0.98], [0.0, 0.1, 0.2])  # the seed went a fifth of its standard deviation: too early to tell


@pytest.mark.parametrize(
    ("true", "said", "iterations", "accused"),
    [
        (AveragePool(4), AveragePool(4), 20, False),
        (AveragePool(4), AveragePool(4), 40, False),
        (Blur.gaussian(1), Blur.gaussian(1), 150, False),
        (Blur.gaussian(1), Blur.gaussian(3), 150, True),
    ],
    ids=["right, 20", "right, 40", "right, 150", "wrong, 150"],
)
def test_a_degradation_is_accused_only_after_enough_iterations(true, said, iterations, accused):
    """With the default rates each of these leaves frames unexplained; only of the last more iterations make little."""
    y = true.forward(0.3 + 0.4 * torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    result = seed_map(y, said, PixelGenerator(TinyUNet(), (32, 32)), SeedMapOptions(iterations=iterations))
    assert result.unexplained == [0, 1, 2]
    assert ("the degradation is probably described wrongly" in summary(result)) is accused
    assert ("more iterations" in summary(result)) is not accused


def test_the_course_is_told_as_json_and_drawn():
    options = SeedMapOptions(iterations=8, warp_start=0.5)
    y = AveragePool(2).forward(drift())
    seen = []
    result = seed_map(
        y,
        AveragePool(2),
        PixelGenerator(TinyUNet(), (32, 32)),
        options,
        flow=DisFlow(),
        seed=3,
        on_iteration=lambda e, terms, frame: seen.append((e, terms.data, tuple(frame.shape))),
    )
    said = json.loads(to_json(result, options, AveragePool(2), 3, size=(32, 32)))
    assert said["terms"]["data"] == [term for _, term, _ in seen] and len(seen) == 8
    assert said["terms"]["warp"][:4] == [None] * 4 and said["terms"]["warp"][4] > 0
    assert said["options"]["steps"] == 4 and said["seed"] == 3 and said["operator"] == "Average down x2" and said["warped_from"] == 4
    assert "Warping since iteration 4" in summary(result)
    drawn, empty = plot(result), plot(type(result)(torch.empty(0)))
    blue = ((drawn - torch.tensor([31, 119, 180]).view(3, 1, 1) / 255).abs().sum(0) < 0.05).sum()
    assert blue > 500 and (drawn - empty).abs().sum() > 100


def test_an_infinite_gradient_changes_nothing_and_ten_stop_with_a_sentence():
    class Broken(TinyUNet):
        def predict_x0(self, x_t, t, condition=None):
            return super().predict_x0(x_t, t, condition) * torch.where(x_t == x_t, x_t.new_tensor(math.inf), 0).clamp(max=3e38)

    y = AveragePool(2).forward(drift())
    generator = PixelGenerator(Broken(), (32, 32))
    free = SharedSeed(generator, 4, SeedMapOptions(), 0)
    free.render()
    if free.backward(torch.full((4, 3, 32, 32), math.nan)):
        pytest.fail("a gradient of nan passed for finite")
    with pytest.raises(ValueError, match="10 times in a row at iteration"):
        seed_map(torch.full_like(y, math.nan), AveragePool(2), generator, SeedMapOptions(iterations=20))


@pytest.mark.parametrize("noise_prior", [True, False], ids=["one seed", "a seed per frame"])
@pytest.mark.parametrize("warp_weight", [0.0, 0.3], ids=["data", "data and warping"])
def test_memory_grows_with_the_clip_as_told(noise_prior, warp_weight):
    """All bytes alive at the peak, of 8 and of 16 frames: residuals and frames, and no activations of any frame's network."""
    operator = TemporalBlur(3)
    options = SeedMapOptions(iterations=3, rank=2, warp_weight=warp_weight, warp_start=0.0, warp_every=1, noise_prior=noise_prior)
    peaks = []
    for count in (8, 16):
        y, generator = operator.forward(drift(count, SIDE)), tiny_latent()
        with LiveBytes() as bytes_:
            seed_map(y, operator, generator, options, flow=DisFlow())
        peaks.append(bytes_.peak)
    info = clip_bytes(tiny_latent(), 8, options)
    assert 0.75 * info < peaks[1] - peaks[0] < info


def test_the_time_is_told_beforehand():
    cost = estimate(tiny_latent(), 4, SeedMapOptions(iterations=100), DisFlow())
    assert 0 < cost.seconds < 600 and "about" in str(cost) and "MB of memory beside the networks" in str(cost)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"steps": 1}, "steps must lie between 2 and 10, got 1"),
        ({"rank": -1}, r"rank must lie between 0 and 512 \(0: by the generator\), got -1"),
        ({"flow_decay": 1.0}, "flow_decay must lie between 0 and 0.999"),
        ({"residual_init": 0.0}, r"residual_init must lie between 0.0001 and 10 \(or None: by the operator\), got 0"),
        ({"warp_start": 2.0}, r"warp_start must lie between 0 and 1 \(or None: when the flow settles\)"),
        ({"loss": "l2"}, "loss must be one of mse, l1"),
    ],
)
def test_wrong_options_are_one_clear_sentence(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        SeedMapOptions(**wrong)


def test_input_of_another_size_is_refused():
    with pytest.raises(ValueError, match="turns the restored 32 x 32 frames into 16 x 16, but the input is 8 x 8"):
        seed_map(torch.rand(2, 3, 8, 8), AveragePool(2), PixelGenerator(TinyUNet(), (32, 32)))
