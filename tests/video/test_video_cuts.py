"""Shot cuts: all of those made from the clips, none inside them."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from helpers.video_helpers import moving
from hypothesis import given, settings
from hypothesis import strategies as st

from fvr.video import ShotCutDetector, find_cuts, open_source, read_frames

CLIPS = ["clean_face_480_tone.mp4", "clean_face_512.mp4", "degraded_aligned_128.mp4", "degraded_aligned_512.mp4", "degraded_single_388x512.mp4"]
CLIPS += ["edge_rotation90_flag.mp4", "multiface_2people_480x270.mp4", "scene_720p_clean.mp4", "flair_lq/gaussian", "flair_lq/x16_bicubic"]


def shot(seed: int, count: int = 12) -> torch.Tensor:
    """A shot with its own layout and colours, and travelling waves in it."""
    look = torch.rand(1, 3, 3, 4, generator=torch.Generator().manual_seed(seed))
    return 0.7 * F.interpolate(look, (48, 64), mode="bilinear") + 0.3 * moving(count, seed=seed)


@pytest.fixture(scope="module")
def heads(shared):
    """The first 20 frames of each clip, small."""
    return {name: F.interpolate(read_frames(shared(name), count=20)[0], (96, 96), mode="area") for name in CLIPS}


@pytest.mark.parametrize("name", ["degraded_single_388x512.mp4", "degraded_aligned_128.mp4", "flair_lq/x16_bicubic", "flair_lq/jpeg"])
def test_no_cut_inside_a_noisy_clip(shared, name):
    """Old television, synthetic noise and compression that flickers, from first to last frame."""
    assert find_cuts(open_source(shared(name)).chunks(32)) == []


def test_every_cut_between_clips_is_found(heads):
    for first, second in [*pairwise(CLIPS), *pairwise(reversed(CLIPS))]:
        assert find_cuts(torch.cat((heads[first], heads[second]))) == [20], (first, second)
    assert find_cuts(torch.cat(list(heads.values()))) == list(range(20, 20 * len(CLIPS), 20))


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_chunking_does_not_matter(sizes):
    """Pushed in any pieces, the same cuts; and none is reported late: `settled` frames are never revised."""
    frames = torch.cat([shot(s) for s in (1, 2, 3)])
    detector, cuts, at = ShotCutDetector(), [], 0
    for size in [*sizes, len(frames)]:
        known = detector.settled
        new = detector.push(frames[at : at + size])
        assert all(known <= cut < detector.settled for cut in new)
        cuts, at = cuts + new, at + size
    cuts += detector.finish()
    assert cuts == [12, 24] == find_cuts(frames)


@pytest.mark.parametrize("length", [1, 2, 4])
def test_a_flash_is_no_cut(length):
    frames = shot(5, 40)
    frames[20 : 20 + length] = 0.3 * frames[20 : 20 + length] + 0.7
    assert find_cuts(frames) == []


@pytest.mark.parametrize("length", [8, 16, 24])
def test_a_fade_is_no_cut(length):
    frames = shot(6, 70)
    frames[10 : 10 + length] *= torch.linspace(1, 0, length)[:, None, None, None]
    frames[10 + length : 14 + length] = 0
    frames[14 + length : 14 + 2 * length] *= torch.linspace(0, 1, length)[:, None, None, None]
    assert find_cuts(frames[: 14 + 2 * length]) == []


@pytest.mark.parametrize("speed", [4, 16, 40])
def test_a_whip_pan_is_no_cut(heads, speed):
    """The picture rushes by at up to 40 % of its width per frame, in the middle of a still one."""
    frames = heads["scene_720p_clean.mp4"].repeat(2, 1, 1, 1)
    moved = torch.stack([torch.roll(frame, speed * max(0, min(i - 10, 20)), -1) for i, frame in enumerate(frames)])
    assert find_cuts(moved[:35]) == []


def test_a_cut_from_one_moving_shot_to_another():
    """Motion on both sides raises the threshold but does not hide the cut."""
    pan = [torch.stack([torch.roll(f, 3 * i, -1) for i, f in enumerate(shot(s, 15))]) for s in (7, 8)]
    assert find_cuts(torch.cat(pan)) == [15]


def test_photographs_and_shots_of_a_few_frames_are_told_apart(heads):
    """Where every step is large none stands out; those of one scene from a moving camera are still one shot."""
    photographs = torch.cat([heads[name][:1] for name in CLIPS[:8] if name != "edge_rotation90_flag.mp4"])
    assert find_cuts(photographs) == list(range(1, 7))
    montage = torch.cat([heads[name][:5] for name in CLIPS[:8] if name != "edge_rotation90_flag.mp4"])
    assert find_cuts(montage) == list(range(5, 35, 5))
    assert find_cuts(photographs[:2]) == [1]


def test_a_camera_that_shakes_does_not_cut(heads):
    rng = torch.Generator().manual_seed(3)
    moves = torch.randint(-12, 13, (30, 2), generator=rng).tolist()
    frame = heads["scene_720p_clean.mp4"][0]
    assert find_cuts(torch.stack([torch.roll(frame, move, (1, 2)) for move in moves])) == []


def test_short_streams():
    assert find_cuts(shot(1, 1)) == [] == ShotCutDetector().finish()
    assert find_cuts(torch.cat((shot(1, 3), shot(2, 2)))) == [3]


def scene(number: int, length: int) -> torch.Tensor:
    """A still scene of large shapes, (length, 3, 96, 96)."""
    rng = torch.Generator().manual_seed(number)
    return F.interpolate(torch.rand(1, 3, 5, 5, generator=rng), (96, 96), mode="bicubic").clamp(0, 1).repeat(length, 1, 1, 1)


def gradual_cuts(frames: torch.Tensor) -> list[int]:
    return find_cuts(frames, ShotCutDetector())


@pytest.mark.parametrize("length", [6, 12, 24])
def test_a_dissolve_ends_a_shot_near_its_middle(length):
    mix = (torch.arange(length) + 1).view(-1, 1, 1, 1) / (length + 1)
    a, b = scene(1, length), scene(2, length)
    (found,) = gradual_cuts(torch.cat([scene(1, 20), (1 - mix) * a + mix * b, scene(2, 20)]))
    assert abs(found - (20 + length / 2)) <= 3


def test_a_fade_to_another_scene_is_told_where_it_is_dark():
    down = torch.linspace(1, 0, 10).view(-1, 1, 1, 1)
    (found,) = gradual_cuts(torch.cat([scene(1, 15), scene(1, 10) * down, torch.zeros(30, 3, 96, 96), scene(2, 10) * down.flip(0), scene(2, 15)]))
    assert 22 <= found <= 25


def test_what_only_looks_like_a_dissolve_is_none():
    """Light of another strength, or colour, on the same scene."""
    light = torch.linspace(0.4, 1, 20).view(-1, 1, 1, 1)
    assert gradual_cuts(torch.cat([scene(3, 15) * 0.4, scene(3, 20) * light, scene(3, 15)])) == []
    colour = torch.stack([light, torch.full_like(light, 0.7), 1.4 - light], 1)[:, :, 0]
    assert gradual_cuts(torch.cat([scene(3, 15) * colour[0], scene(3, 20) * colour, scene(3, 15) * colour[-1]])) == []


def test_a_dissolve_between_moving_shots_is_found_and_cuts_alone_can_be_asked_for():
    a, b = (torch.stack([torch.roll(f, i // 4, -1) for i, f in enumerate(scene(number, 52))]) for number in (1, 2))
    mix = ((torch.arange(12) + 1) / 13).view(-1, 1, 1, 1)
    frames = torch.cat([a[:20], a[20:32].lerp(b[20:32], mix), b[32:]])
    (found,) = gradual_cuts(frames)
    assert abs(found - 26) <= 6
    assert find_cuts(frames, ShotCutDetector(gradual=False)) == []


def test_a_dissolve_before_a_cut_is_told_first():
    mix = (torch.arange(8) + 1).view(-1, 1, 1, 1) / 9
    frames = torch.cat([scene(1, 20), (1 - mix) * scene(1, 8) + mix * scene(2, 8), scene(2, 14), scene(5, 20)])
    detector, info = ShotCutDetector(), []
    for frame in frames:
        info += detector.push(frame[None])
    info += detector.finish()
    assert info == gradual_cuts(frames) and len(info) == 2 and info[1] == 42


def pan(number: int, length: int, speed: float) -> torch.Tensor:
    """A camera that moves over a scene."""
    wide = F.interpolate(torch.rand(1, 3, 6, 18, generator=torch.Generator().manual_seed(number)), (96, 288), mode="bicubic").clamp(0, 1)[0]
    return torch.stack([wide[:, :, round(speed * k) : round(speed * k) + 96] for k in range(length)])


@pytest.mark.parametrize("speed", [0.0, 0.5])
def test_a_dissolve_of_two_seconds_is_found_where_the_camera_moves_too(speed):
    """Over 48 frames of a pan most of the picture changes: the ends of the two shots are not what is mixed in the middle."""
    mix = (torch.arange(48) + 1).view(-1, 1, 1, 1) / 49
    a, b = pan(53, 78, speed), pan(93, 78, 0.7 * speed).flip(-1)
    found = gradual_cuts(torch.cat([a[:30], a[30:].lerp(b[:48], mix), b[48:]]))
    assert found and all(abs(cut - 54) <= 20 for cut in found)
    assert gradual_cuts(a) == [] == gradual_cuts(b)


def test_a_slow_pan_over_large_shapes_is_no_dissolve():
    """Little changes in a few frames, and that on straight lines."""
    assert [gradual_cuts(pan(number, 80, 0.6)) for number in (21, 24, 27, 30)] == [[]] * 4
