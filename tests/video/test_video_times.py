"""Every presentation time survives the trip exactly."""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate

import av
import pytest
from helpers.video_helpers import moving, save
from hypothesis import given, settings
from hypothesis import strategies as st

from fvr.video import FrameTimes, SourceInfo, VideoError, open_sink, open_source

PYAV = int(av.__version__.split(".")[0])
FAST = settings(max_examples=12, deadline=None)
bases = st.sampled_from([Fraction(1, 1000), Fraction(1, 15360), Fraction(1, 19200), Fraction(1001, 30000), Fraction(1, 90000), Fraction(1, 25)])


@FAST
@given(base=bases, ticks=st.lists(st.integers(1, 5000), min_size=1, max_size=12), origin=st.integers(0, 3000))
def test_variable_rate_comes_back_exactly(tmp_path_factory, base, ticks, origin):
    """starts and the last frame's end are equal as fractions, whatever the clock, the gaps and the first start.

    Where the last packet is not the last frame, PyAV 19's FFmpeg misreports how long the last frame is shown.
    """
    edges = [Fraction(t) * base for t in accumulate(ticks, initial=origin)]
    times = FrameTimes(tuple(edges[:-1]), edges[-1])
    like = SourceInfo(None, 32, 32, time_base=base, start=edges[0])
    path = save(tmp_path_factory.mktemp("vfr") / "clip.mp4", moving(len(ticks), 32, 32), times, like, preset="medium")
    seen = open_source(path).times()
    assert seen.starts == times.starts
    assert seen.end == times.end if PYAV < 19 else seen.end > times.starts[-1]


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(25, 2), Fraction(60), Fraction(15)])
def test_constant_rate_is_told_as_such(tmp_path, rate):
    """Without a source the clock is found from the times alone, and other players read the same average rate."""
    times = FrameTimes.constant(30, rate)
    seen = open_source(save(tmp_path / "clip.mp4", moving(30, 32, 32), times))
    assert seen.times().starts == times.starts
    assert seen.times().end == times.end
    assert seen.info.rate == rate


def test_decimal_rates_mean_the_television_rates():
    assert FrameTimes.constant(5, 29.97).rate == Fraction(30000, 1001)
    assert FrameTimes.constant(5, 23.976).rate == Fraction(24000, 1001)
    assert FrameTimes.constant(5, 30.0).rate == 30
    assert FrameTimes.constant(5, 12.5).rate == Fraction(25, 2)


def test_shared_clips_keep_their_times(shared, tmp_path):
    """The variable-rate clip and the one with a rotation flag: in equals out, frame by frame."""
    for name in ("edge_vfr_30_15fps.mp4", "edge_rotation90_flag.mp4"):
        source = open_source(shared(name), count=30)
        with open_sink(tmp_path / name, source.info, preset="ultrafast", crf=40) as sink:
            for chunk in source.chunks(8):
                sink.write(chunk.frames, chunk.starts, chunk.ends)
        before, after = source.times(), open_source(tmp_path / name).times()
        assert (after.starts, after.end) == (before.starts, before.end)
    assert len(set(open_source(shared("edge_vfr_30_15fps.mp4")).times().durations)) > 1


def test_matroska_keeps_times_to_the_millisecond(tmp_path):
    times = FrameTimes.constant(10, Fraction(30000, 1001))
    seen = open_source(save(tmp_path / "clip.mkv", moving(10), times)).times()
    assert all(abs(a - b) <= Fraction(1, 1000) for a, b in zip(seen.starts, times.starts, strict=True))
    assert abs(seen.end - times.end) <= Fraction(2, 1000)


def test_a_clip_from_the_middle_begins_at_zero(tmp_path):
    whole = save(tmp_path / "whole.mp4", moving(20))
    part = open_source(whole, start=5, count=6)
    with open_sink(tmp_path / "part.mp4", part.info, preset="ultrafast") as sink:
        for chunk in part.chunks(4):
            sink.write(chunk.frames, chunk.starts, chunk.ends)
    assert open_source(tmp_path / "part.mp4").times().starts == FrameTimes.constant(6, 25).starts
    assert part.times().starts[0] == Fraction(5, 25)


@given(st.integers(1, 40), st.integers(0, 39), st.integers(1, 40), st.integers(1, 7))
def test_slices_cover_the_same_seconds(count, first, length, stride):
    """A strided slice lasts as long as the frames it stands for."""
    times = FrameTimes.constant(count, 30)
    first = first % count
    stop = min(count, first + length)
    part = times[first:stop:stride]
    assert part.starts == times.starts[first:stop:stride]
    assert part.duration == times[first:stop].duration


@pytest.mark.parametrize("starts, end", [((), 1), ((0, 0), 1), ((0, 2, 1), 3), ((0, 1), 1)])
def test_times_that_do_not_increase_are_refused(starts, end):
    with pytest.raises(VideoError, match=r"increase|at least one"):
        FrameTimes(tuple(map(Fraction, starts)), Fraction(end))


def test_a_sink_refuses_times_that_go_back(tmp_path):
    with pytest.raises(VideoError, match="times must increase"), open_sink(tmp_path / "clip.mp4") as sink:
        sink.write(moving(2), (Fraction(1), Fraction(1)), (Fraction(2), Fraction(2)))
    assert not list(tmp_path.iterdir())


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(1, 5))
def test_interpolated_times_hold_the_old_ones_and_divide_each_gap(gaps, multiple):
    starts = tuple(Fraction(sum(gaps[:i]), 30) for i in range(len(gaps)))
    times = FrameTimes(starts, Fraction(sum(gaps), 30))
    more = times.interpolated(multiple)
    assert len(more) == (len(times) - 1) * multiple + 1 and more.end == times.end
    assert more.starts[::multiple] == times.starts
    for i in range(len(times) - 1):
        durations = more.durations[i * multiple : (i + 1) * multiple]
        assert set(durations) == {times.durations[i] / multiple}


def test_no_frames_can_be_taken_away_by_interpolation():
    with pytest.raises(VideoError, match="1 or more, got 0"):
        FrameTimes.constant(3, 25).interpolated(0)
