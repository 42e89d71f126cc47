"""Which frames become pairs: never two that are nearly the same, good ones first, the same whatever the order of ties."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.code_networks import moving
from hypothesis import given, settings
from hypothesis import strategies as st

from fvr.methods.pseudo_target.frame_selection import ChoiceOptions, choose_frames, quality, thumbnails
from fvr.video import read_frames

CLIPS = Path(__file__).parents[3] / "shared" / "clips"


def points(*places: float) -> torch.Tensor:
    return torch.tensor(places)[:, None]


def good(count: int) -> torch.Tensor:
    return torch.ones(count)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 50), min_size=1, max_size=20),
    st.sampled_from(["every", "diverse"]),
    st.integers(1, 4),
    st.integers(0, 6),
    st.floats(0, 20),
)
def test_chosen_frames_differ_and_are_few_enough(places, mode, every, count, least):
    features, marks = points(*places), torch.linspace(0.5, 1, len(places))
    choice = choose_frames(features, marks, ChoiceOptions(mode, every, count, least))
    chosen = list(choice.chosen)
    assert chosen and chosen == sorted(set(chosen)) and (not count or len(chosen) <= count)
    gaps = torch.pdist(features[chosen].double())
    assert not len(gaps) or gaps.min() >= least
    if mode == "every":
        assert all(i % every == 0 for i in chosen)
    if not count:  # whoever was left out is near someone chosen, or poor, or between two steps
        for i in range(0, len(places), every if mode == "every" else 1):
            near = float((features[chosen] - features[i]).double().abs().min())
            assert i in chosen or near < max(least, 1e-12)


def test_diverse_takes_the_best_and_then_the_farthest():
    features = points(0, 1, 10, 11, 30)
    marks = torch.tensor([0.8, 1.0, 0.8, 0.81, 0.7])
    assert choose_frames(features, marks, ChoiceOptions("diverse", count=1)).chosen == (1,)
    assert choose_frames(features, marks, ChoiceOptions("diverse", count=2)).chosen == (1, 4)
    third = choose_frames(features, marks, ChoiceOptions("diverse", count=3, least=4.0))
    assert third.chosen == (1, 3, 4)  # 3 is a little farther and a little better than 2
    whole = choose_frames(features, marks, ChoiceOptions("diverse", least=4.0))
    assert whole.chosen == (1, 3, 4) and whole.duplicates == 2


def test_differences_count_less_for_poor_frames():
    features, marks = points(0, 20, 24), torch.tensor([1.0, 0.9, 0.4])
    assert choose_frames(features, marks, ChoiceOptions("diverse", count=2)).chosen == (0, 1)
    left = choose_frames(features, marks, ChoiceOptions("diverse", poor=0.5))
    assert left.chosen == (0, 1) and left.poor == 1


def test_a_limit_spreads_every_nth_frame_over_the_clip():
    features = points(*(10.0 * i for i in range(21)))
    assert choose_frames(features, good(21), ChoiceOptions("every", 2, 3)).chosen == (0, 10, 20)
    assert choose_frames(features, good(21), ChoiceOptions("every", 5)).chosen == (0, 5, 10, 15, 20)
    assert choose_frames(features, good(21), ChoiceOptions("every", 2, 1)).chosen == (0,)


@pytest.mark.parametrize("mode", ["every", "diverse"])
def test_repeated_frames_are_taken_once_even_under_noise(mode):
    """A still shot in the middle of a clip, and a frame shown again later."""
    crops = moving(6, side=256)
    clip = torch.cat([crops[:3], crops[2:3].repeat(5, 1, 1, 1), crops[3:], crops[:1]])
    clip = (clip + 0.03 * torch.randn(clip.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    choice = choose_frames(thumbnails(clip), quality(clip), ChoiceOptions(mode, 1))
    still, again = {2, 3, 4, 5, 6, 7}, {0, 11}
    assert len(still & set(choice.chosen)) == len(again & set(choice.chosen)) == 1
    assert set(choice.chosen) - still - again == {1, 8, 9, 10} and choice.duplicates == 6


def test_thumbnails_measure_grey_levels():
    flat = torch.full((1, 3, 512, 512), 0.5)
    bright = flat + 10 / 255
    assert float((thumbnails(bright) - thumbnails(flat)).norm()) == pytest.approx(2.5, rel=1e-3)  # exposure counts a quarter
    torch.manual_seed(0)
    texture = torch.randn(1, 3, 512, 512)
    noise = float((thumbnails(flat + 0.05 * texture) - thumbnails(flat)).norm())
    assert noise < 0.15 * 0.05 * 255
    coarse = torch.nn.functional.interpolate(torch.randn(1, 3, 16, 16), (512, 512), mode="nearest") * 10 / 255
    assert 6 < float((thumbnails(flat + coarse) - thumbnails(flat)).norm()) < 14


def test_quality_falls_with_blur_and_with_the_score():
    crops = moving(1, side=256)
    blurred = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(crops, (6,) * 4, mode="replicate"), 13, 1)
    sharp, soft = quality(torch.cat([crops, blurred])).tolist()
    assert 0 < soft < 0.8 * sharp <= 0.8
    assert quality(crops, [0.9]).item() == pytest.approx(0.9 * sharp) and quality(crops, [0.0]).item() == pytest.approx(0.25 * sharp)


@pytest.mark.parametrize("name", ["degraded_aligned_512.mp4"])
def test_a_real_clip_gives_frames_that_differ(name):
    if not CLIPS.exists():
        pytest.skip("needs ../shared/clips")
    frames, _ = read_frames(CLIPS / name)
    frames = frames[:60]
    features, marks = thumbnails(frames), quality(frames)
    by_time, by_look = (choose_frames(features, marks, ChoiceOptions(mode, 6, 8)) for mode in ("every", "diverse"))  # type: ignore[arg-type]
    spread = [torch.pdist(features[list(choice.chosen)]).min() for choice in (by_time, by_look)]
    assert len(by_time.chosen) == len(by_look.chosen) == 8 and spread[1] > spread[0] >= ChoiceOptions().least


def test_nothing_to_choose_from():
    assert choose_frames(torch.zeros(0, 4), torch.zeros(0)).chosen == ()
    assert thumbnails(torch.zeros(0, 3, 64, 64)).shape[0] == len(quality(torch.zeros(0, 3, 64, 64))) == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mode": "random"}, "mode must be one of every, diverse, got 'random'"),
        ({"every": 0}, "every must lie between 1 and 100000 frames, got 0"),
        ({"count": -1}, "count must lie between 0 and 100000 frames, got -1"),
        ({"least": 300}, "least must lie between 0 and 255 grey levels, got 300"),
        ({"poor": 1.5}, "poor must lie between 0 and 1, got 1.5"),
    ],
)
def test_values_out_of_range_are_refused_in_a_sentence(changes, says):
    with pytest.raises(ValueError) as error:
        ChoiceOptions(**changes)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_features_and_qualities_must_fit():
    with pytest.raises(ValueError, match=r"\(n, D\) features and \(n,\) qualities, got \(3, 1\) and \(2,\)"):
        choose_frames(points(1, 2, 3), good(2))
