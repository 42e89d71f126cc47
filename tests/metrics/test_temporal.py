"""Warping error and flicker: what they must be for motion, light and occlusion that are known."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.moving_texture import sliding, texture

from fvr.metrics.temporal import PairMotion, flicker, mean_warping_error, pair_motion, warping_error
from fvr.motion.dis import DisFlow
from fvr.motion.occlusion import visible


def known(dx: float, dy: float = 0.0, size: tuple[int, int] = (96, 128)) -> PairMotion:
    """A translation as the motion, with the visibility that follows from it."""
    flow = torch.tensor([dx, dy]).view(1, 2, 1, 1).expand(1, 2, *size).contiguous()
    return PairMotion(flow, visible(flow, -flow))


def test_a_shifted_image_warps_back_to_nothing():
    first, second = sliding(2, step=3).split(1)
    motion = known(-3)
    error = warping_error(first, second, motion)
    assert error.rgb_sum < 1e-10 and error.over_all < 1e-10
    assert flicker(first, second, motion) < 1e-3
    assert warping_error(first, second, known(0)).rgb_sum > 5e-3


def test_estimated_flow_warps_nearly_as_well_as_the_true_one():
    clip = sliding(4, step=3)
    assert mean_warping_error(clip, clip).rgb_sum < 0.02 * mean_warping_error(clip, clip[:1].expand_as(clip)).rgb_sum


def test_the_three_normalisations_of_a_known_difference():
    """0.1 brighter in all channels, half of the frame hidden."""
    first = texture()
    seen = torch.zeros(1, 1, 96, 128)
    seen[..., :64] = 1
    error = warping_error(first, first + 0.1, PairMotion(torch.zeros(1, 2, 96, 128), seen))
    assert error.rgb_sum == pytest.approx(0.03, rel=1e-4)
    assert error.per_value == pytest.approx(0.01, rel=1e-4)
    assert error.over_all == pytest.approx(0.005, rel=1e-4)


def test_occluded_pixels_do_not_count():
    """A black patch that only the second frame has lies on what the flow says is hidden."""
    first = texture()
    second = first.clone()
    second[..., 20:50, 30:70] = 0
    still = torch.zeros(1, 2, 96, 128)
    backward = still.clone()
    backward[:, 0, 20:50, 30:70] = 9
    motion = PairMotion(still, visible(still, backward))
    assert motion.seen[..., 20:50, 30:70].eq(0).all() and motion.seen.mean() > 0.8
    assert warping_error(first, second, motion).rgb_sum < 1e-12 and flicker(first, second, motion) < 1e-4
    assert warping_error(first, second, PairMotion(still, torch.ones(1, 1, 96, 128))).rgb_sum > 0.05


@pytest.mark.parametrize("measure", [lambda *a: warping_error(*a).rgb_sum, lambda *a: warping_error(*a).over_all, flicker])
def test_fully_occluded_frames_give_nan(measure):
    motion = PairMotion(torch.full((1, 2, 96, 128), 500.0), torch.zeros(1, 1, 96, 128))
    value = measure(texture(), texture(), motion)
    assert math.isnan(value) or value == 0  # over all values nothing is seen to differ


def test_flicker_of_a_known_brightness_jump():
    first, second = sliding(2, step=2).split(1)
    motion = known(-2)
    assert flicker(first, second + 5 / 255, motion) == pytest.approx(5, abs=1e-3)
    assert flicker(first, second + 5 / 255, motion, truth=(first, second)) == pytest.approx(5, abs=1e-3)


def test_flicker_of_the_reference_is_not_counted():
    first, second = sliding(2, step=2).split(1)
    motion = known(-2)
    lit = second + 0.1
    assert flicker(first, lit, motion) == pytest.approx(25.5, abs=1e-2)
    assert flicker(first, lit, motion, truth=(first, lit)) == 0


def test_flicker_outside_the_region_does_not_count():
    first = texture()
    second = first.clone()
    second[..., :10, :] += 0.1
    top, bottom = torch.zeros(2, 1, 1, 96, 128)
    top[..., :10, :] = 1
    bottom[..., 10:, :] = 1
    motion = known(0)
    assert flicker(first, second, motion, region=top) == pytest.approx(25.5, abs=1e-3)
    assert flicker(first, second, motion, region=bottom) < 1e-4
    assert warping_error(first, second, motion, top).over_all == pytest.approx(0.01, rel=1e-4)
    assert warping_error(first, second, motion, bottom).over_all < 1e-12


def test_the_mean_over_a_clip_is_the_mean_over_its_pairs():
    clip = sliding(4, step=2) + torch.tensor([0.0, 0.05, 0.0, 0.08]).view(4, 1, 1, 1)
    source = DisFlow()
    seen = [source.features(frame[None] * 2 - 1) for frame in clip]
    pairs = [warping_error(clip[t : t + 1], clip[t + 1 : t + 2], pair_motion(source, seen[t], seen[t + 1])) for t in range(3)]
    whole = mean_warping_error(clip, clip)
    assert whole.rgb_sum == pytest.approx(sum(pair.rgb_sum for pair in pairs) / 3)
    assert whole.over_all == pytest.approx(sum(pair.over_all for pair in pairs) / 3)


def test_single_frames_are_refused():
    with pytest.raises(ValueError, match="two frames or more"):
        mean_warping_error(texture(), texture())
