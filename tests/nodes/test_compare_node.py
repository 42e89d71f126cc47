"""Compare Videos as ComfyUI calls it; its pixels are tested in tests/video/test_video_compare.py."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from fvr import host
from fvr.nodes.compare import CompareVideos
from fvr.nodes.video import SaveVideoFrames
from fvr.video import FrameTimes, open_source
from fvr.video.comparison.compare import divider_position


def noise(count: int, height: int = 40, width: int = 60, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))


def call(**inputs):
    mode = {"mode": inputs.pop("mode", "side_by_side"), "period": None, "gain": None, **inputs.pop("values", {})}
    return CompareVideos.execute(mode=mode, **inputs)


def test_clips_stand_in_order_and_stay_as_they_were():
    clips = [noise(3, seed=seed) for seed in range(3)]
    before = [clip.clone() for clip in clips]
    output = call(a=clips[0], b=clips[1], c=clips[2], labels="")
    assert torch.equal(output.result[0], torch.cat(clips, 2))
    assert all(torch.equal(clip, copy) for clip, copy in zip(clips, before, strict=True))
    assert output.ui["text"] == ("3 clips, side_by_side, 3 frames of 180 x 40",)
    assert call(a=clips[0][:1], b=clips[1][:1], labels="").ui["text"] == ("2 clips, side_by_side, 1 frame of 120 x 40",)


def test_a_gap_before_d_changes_nothing_but_the_order():
    clips = [noise(2, seed=seed) for seed in range(3)]
    assert torch.equal(call(a=clips[0], b=clips[1], d=clips[2], labels="").result[0], torch.cat(clips, 2))


@pytest.mark.parametrize(
    ("wired", "left"), {"bcd": "input, KEEP, DicFace, CodeFormer", "cd": "input, DicFace, CodeFormer", "bd": "input, KEEP, CodeFormer"}.items()
)
def test_what_is_muted_takes_its_label_along(wired, left):
    """As in the workflow that compares four, where somebody mutes a branch."""
    clips = dict.fromkeys(f"a{wired}", noise(1, 120, 200))
    shown, expected, plain = (call(**clips, labels=labels).result[0] for labels in ("input, KEEP, DicFace, CodeFormer", left, ""))
    assert torch.equal(shown, expected) and not torch.equal(shown, plain)


def test_alpha_and_half_precision_are_taken():
    rgba = torch.cat([noise(2), torch.zeros(2, 40, 60, 1)], -1).half()
    frames = call(a=rgba, b=noise(2), labels="").result[0]
    assert frames.dtype == torch.float32
    assert torch.equal(frames[:, :, :60], rgba[..., :3].float())


@pytest.mark.parametrize("wired", [True, False])
def test_the_line_follows_the_clock(wired):
    """At a variable rate by the wired times, else by the frame rate."""
    starts = (Fraction(5), Fraction(11, 2), Fraction(6), Fraction(8))
    times = FrameTimes(starts, Fraction(9))
    frames = call(
        a=torch.zeros(4, 40, 60, 3),
        b=torch.ones(4, 40, 60, 3) * 0.5,
        mode="split",
        values={"period": 4.0},
        labels="",
        frame_rate=2.0,
        times=times if wired else None,
    ).result[0]
    seconds = [0.0, 0.5, 1.0, 3.0] if wired else [0.0, 0.5, 1.0, 1.5]
    for frame, now in zip(frames, seconds, strict=True):
        place = divider_position(now, 4.0, 60)
        assert not frame[:, : max(0, place - 2)].any() and (frame[:, place + 2 :] == 0.5).all()


def test_another_size_is_resized_and_said():
    output = call(a=noise(2), b=noise(2, 80, 120), labels="")
    assert output.result[0].shape == (2, 40, 120, 3)
    assert output.ui["text"][0].splitlines()[1] == "b is 120 x 80 and was resized to 60 x 40, the size of a"


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (dict(a=noise(3), b=noise(2)), "2 frames in b and 3 in a; .* first 2 frames"),
        (dict(a=noise(3), b=noise(3), times=FrameTimes.constant(2, 25)), "3 frames but times for 2"),
        (dict(a=noise(3), b=noise(3), c=noise(3), mode="difference"), "difference compares two clips, got 3"),
        (dict(a=noise(3), b=noise(3), labels="a, b, c, d, e"), "5 labels for 2 clips"),
        (dict(a=noise(3)), "needs two clips, got one"),
        (dict(a=noise(3), b=noise(3), labels="修复, after"), "Latin letters"),
        (dict(a=noise(3), b=noise(3)[..., :2]), "IMAGE has 3 channels"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(inputs, words):
    with pytest.raises(ValueError, match=words):
        call(**inputs)


def test_the_comparison_is_saved_with_the_clips_times(tmp_path):
    times = FrameTimes((Fraction(0), Fraction(1, 25), Fraction(4, 25)), Fraction(1, 5))
    with host.workspace(output=tmp_path):
        frames = call(a=noise(3, 41, 61), b=noise(3, 41, 61), mode="difference", times=times).result[0]
        _, path = SaveVideoFrames.execute(frames=frames, filename_prefix="compared", times=times).result
    assert open_source(path).times().starts == times.starts
