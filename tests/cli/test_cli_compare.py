"""`fvr compare` as a user meets it: clips in, one clip with sound out."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from helpers.video_helpers import moving

from fvr.cli import main
from fvr.video import AudioTrack, FrameTimes, SourceInfo, open_sink, open_source, probe, read_audio, read_frames

TIMES = FrameTimes(tuple(Fraction(n, 30) for n in (0, 1, 2, 4, 6, 7, 10, 11)), Fraction(12, 30))
"""Of a variable rate."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """The same eight moments: stored turned by 90 degrees with sound, upright and larger with a late start, and as images."""
    folder = tmp_path_factory.mktemp("compare")
    turned = SourceInfo(None, 64, 48, rotation=90, time_base=Fraction(1, 600))
    tone = AudioTrack(torch.sin(torch.arange(16000 * 12 // 30) * 0.3)[None] * 0.3, 16000)
    late = SourceInfo(None, 128, 96, start=Fraction(1, 5), time_base=Fraction(1, 600))
    for name, frames, times, like, audio in (
        ("turned.mp4", moving(8), TIMES, turned, tone),
        ("late.mp4", moving(8, 96, 128, seed=1), TIMES.shifted(Fraction(1, 5)), late, tone),
        ("silent.mp4", moving(8, seed=2), TIMES, None, None),
        ("images", moving(8, seed=3), TIMES, None, None),
        ("short.mp4", moving(5), FrameTimes.constant(5, 25), None, None),
    ):
        with open_sink(folder / name, like, audio=audio, crf=4) as sink:
            sink.write(frames, times.starts, times.ends)
    return folder


def test_a_turned_clip_beside_another_keeps_times_and_sound(clips, tmp_path, capsys):
    out = tmp_path / "out.mp4"
    assert main(["compare", str(clips / "turned.mp4"), str(clips / "late.mp4"), str(out), "--label", "", "--crf", "4"]) == 0
    frames, times = read_frames(out)
    assert (times.starts, times.end) == (TIMES.starts, TIMES.end)
    assert probe(out).rotation == 0 and frames.shape == (8, 3, 48, 128)
    assert (frames[..., :64] - moving(8)).abs().mean() < 0.02
    assert (frames[..., 64:] - moving(8, seed=1)).abs().mean() < 0.02
    before, after = read_audio(clips / "turned.mp4"), read_audio(out)
    assert before is not None and after is not None and torch.equal(before.waveform, after.waveform)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("2 clips, side-by-side, 8 frames of 128 x 48, sound of ") and said[0].endswith("turned.mp4")
    assert "late.mp4 is 128 x 96 and was resized to 64 x 48" in said[1] and said[-1] == str(out)


def test_the_clip_that_is_heard_gives_the_times(clips, tmp_path):
    """Its picture starts at 0.2 s; the sound stays as far from the picture as it was there."""
    out = tmp_path / "out.mp4"
    assert main(["compare", str(clips / "silent.mp4"), str(clips / "late.mp4"), str(out), "--mode", "split"]) == 0
    own = open_source(clips / "late.mp4").times()
    times = open_source(out).times()
    assert own.starts[0] == Fraction(1, 5) and (times.starts, times.end) == (own.starts, own.end)
    before, after = read_audio(clips / "late.mp4"), read_audio(out)
    assert before is not None and after is not None and torch.equal(before.waveform, after.waveform)


def test_a_range_of_a_difference_into_images(clips, tmp_path):
    out = tmp_path / "frames"
    pair = [str(clips / "silent.mp4"), str(clips / "images")]
    command = ["compare", *pair, str(out), "--mode", "difference", "--gain", "1", "--start", "2", "--count", "3"]
    assert main(command) == 0
    frames, _ = read_frames(out)
    assert len(frames) == 3
    assert frames[:, :, :48].amax() > 0.2, "two seeds differ"


def test_equal_clips_have_a_black_difference(clips, tmp_path):
    out = tmp_path / "frames"
    assert main(["compare", str(clips / "images"), str(clips / "images"), str(out), "--mode", "difference", "--gain", "255"]) == 0
    assert not read_frames(out)[0][:, :, :48].any()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["silent.mp4", "OUT"], "at least two clips"),
        (["silent.mp4", "gone.mp4", "OUT"], "gone.mp4"),
        (["silent.mp4", "short.mp4", "OUT"], "first 5 frames of each"),
        (["silent.mp4", "late.mp4", "turned.mp4", "OUT", "--mode", "split"], "split compares two clips, got 3"),
        (["silent.mp4", "late.mp4", "OUT", "--sound", "1"], "silent.mp4 has no sound"),
        (["silent.mp4", "late.mp4", "OUT", "--sound", "first"], "got 'first'"),
        (["silent.mp4", "late.mp4", "OUT", "--gain", "0"], "gain"),
        (["silent.mp4", "late.mp4", "OUT", "--label", "日本"], "Latin letters"),
        (["silent.mp4", "late.mp4", "short.mp4"], "exists"),
        (["silent.mp4", "late.mp4", "silent.mp4", "--overwrite"], "choose another name"),
        (["silent.mp4", "late.mp4", "OUT", "--frame-rate", "abc"], "--frame-rate is a positive number of frames per second"),
        (["silent.mp4", "late.mp4", "OUT", "--frame-rate", "0"], "got '0'"),
        (["silent.mp4", "late.mp4", "OUT", "--frame-rate", "50"], "is a video, which keeps its own times"),
    ],
)
def test_an_error_is_one_sentence_and_leaves_no_file(arguments, sentence, clips, tmp_path, capsys):
    named = [str(tmp_path / "out.mp4") if a == "OUT" else str(clips / a) if a.endswith(".mp4") else a for a in arguments]
    assert main(["compare", *named]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("fvr: ") and sentence in error
    assert list(tmp_path.iterdir()) == []


def test_names_that_cannot_be_drawn_become_numbers(clips, tmp_path, capsys):
    named = tmp_path / "старое.mp4"
    named.write_bytes((clips / "silent.mp4").read_bytes())
    assert main(["compare", str(named), str(clips / "silent.mp4"), str(tmp_path / "out.mp4"), "--sound", "none"]) == 0
    assert "no sound" in capsys.readouterr().out
