"""Range, stride, count and window pick exactly the frames they name, in any chunking, any number of times."""

from __future__ import annotations

import io
from fractions import Fraction
from itertools import islice

import av
import numpy as np
import pytest
import torch
from helpers.video_helpers import moving, save
from hypothesis import given, settings
from hypothesis import strategies as st

from fvr.video import FrameTimes, VideoError, open_source, read_frames
from fvr.video.reading.decode import VideoSource

COUNT = 23


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A clip with B-frames and several key frames."""
    return save(tmp_path_factory.mktemp("clip") / "clip.mp4", moving(COUNT), preset="fast")


@pytest.fixture(scope="module")
def whole(clip):
    return read_frames(clip)


@settings(max_examples=25, deadline=None)
@given(
    start=st.integers(0, COUNT - 1), length=st.none() | st.integers(1, 30), stride=st.integers(1, 6), count=st.none() | st.integers(1, 30),
    size=st.sampled_from([1, 2, 5, 40]),
)  # fmt: skip
def test_selection_is_a_slice(clip, whole, start, length, stride, count, size):
    """chunks(start, stop, stride, count) = frames[start:stop:stride][:count], with the times of that slice."""
    stop = None if length is None else start + length
    source = open_source(clip, start=start, stop=stop, stride=stride, count=count)
    chunks = list(source.chunks(size))
    got = torch.cat([chunk.frames for chunk in chunks])
    want = whole[0][start:stop:stride][:count]
    assert torch.equal(got, want)
    assert source.expected == len(want)
    last = min(n for n in (COUNT, stop, None if count is None else start + count * stride) if n is not None)
    times = whole[1][start:last:stride]
    assert tuple(t for chunk in chunks for t in chunk.starts) == times.starts
    assert tuple(t for chunk in chunks for t in chunk.ends) == times.ends
    assert [chunk.index for chunk in chunks] == list(range(0, len(want), size))
    assert source.times() == times


@pytest.mark.parametrize("start", [64, 100, 149])
def test_a_late_start_is_frame_exact(shared, start):
    """Past the threshold the file is sought, and the frame is still the one a decode from the beginning gives."""
    path = shared("clean_face_480_tone.mp4")
    sought = next(iter(open_source(path, start=start).chunks(1)))
    start_of, _, picture = next(islice(open_source(path).timed(), start, None))
    assert torch.equal(sought.frames[0], picture())
    assert sought.starts == (start_of,)


@settings(max_examples=25, deadline=None)
@given(begin=st.integers(0, 85), length=st.none() | st.integers(4, 100), skip=st.integers(0, 2))
def test_a_window_takes_the_frames_that_begin_in_it(clip, whole, begin, length, skip):
    """start <= presentation < start + duration, in hundredths of a second at 25 frames a second."""
    window = (Fraction(begin, 100), None if length is None else Fraction(length, 100))
    wanted = [t for t in whole[1].starts if t >= window[0] and (window[1] is None or t < sum(window))][skip:]
    if not wanted:
        with pytest.raises(VideoError, match="no frame"):
            open_source(clip, window=window, start=skip).times()
        return
    times = open_source(clip, window=window, start=skip).times()
    assert list(times.starts) == wanted
    assert times.duration == len(wanted) / Fraction(25)


def test_a_late_window_is_sought_exactly(shared):
    path = shared("clean_face_480_tone.mp4")
    part = read_frames(path, window=(4.0, 0.5))
    assert part[1].starts[0] == 4 and len(part[1]) == 15
    assert torch.equal(part[0][:2], read_frames(path, start=120, count=2)[0])


@pytest.mark.parametrize("name, codec", [("in.ts", "libx264"), ("in.mpg", "mpeg2video"), ("in.mjpeg", "mjpeg"), ("in.h264", "libx264")])
def test_a_late_window_is_exact_where_seeking_is_not(tmp_path, monkeypatch, name, codec):
    """Transport and program streams are sought behind the time asked for, and found without decoding all before; streams without one are not."""
    decoded, begun = VideoSource.decoded, []
    monkeypatch.setattr(VideoSource, "decoded", lambda self, seek_to=None: begun.append(seek_to) or decoded(self, seek_to))
    pictures = moving(150, 64, 64)
    with av.open(str(tmp_path / name), "w") as out:
        stream = out.add_stream(codec, rate=25, options={} if codec == "mjpeg" else {"g": "20", "bf": "2"})
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for picture in pictures:
            pixels = np.ascontiguousarray((picture.permute(1, 2, 0).numpy() * 255).astype(np.uint8))
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=stream.pix_fmt)))
        out.mux(stream.encode(None))
    whole, times = read_frames(tmp_path / name)
    assert len(whole) == 150
    for first in (70, 99, 100, 101, 119, 120, 138):
        some, when = read_frames(tmp_path / name, window=(times.starts[first], Fraction(1, 10)))
        assert when.starts[0] == times.starts[first] and torch.equal(some, whole[first : first + len(some)])
        assert (begun[-1] is None) == (name not in ("in.ts", "in.mpg"))
        assert torch.equal(read_frames(tmp_path / name, start=first, count=2)[0], whole[first : first + 2])


@pytest.mark.parametrize("window", [(0.0, 0.0), (0, None)])
def test_a_window_of_the_whole_clip_is_none(clip, window):
    """What a VIDEO of ComfyUI says that nobody has trimmed."""
    assert open_source(clip, window=window, start=2).selection == open_source(clip, start=2).selection


def test_a_negative_window_counts_from_the_end(clip):
    assert open_source(clip, window=(-0.2, None)).times().starts == FrameTimes.constant(COUNT, 25).starts[-5:]


def test_reading_twice_gives_the_same(clip, whole):
    """A source is not used up, and two readers of one source do not disturb each other."""
    source = open_source(clip)
    first, second = source.chunks(4), source.chunks(4)
    pairs = [(next(first), next(second)) for _ in range(3)]
    assert all(torch.equal(a.frames, b.frames) for a, b in pairs)
    assert torch.equal(torch.cat([c.frames for c in source.chunks(7)]), whole[0])


def test_bytes_in_memory_read_like_the_file(clip, whole):
    data = io.BytesIO(clip.read_bytes())
    data.seek(5)
    source = open_source(data)
    assert source.info.path is None
    assert torch.equal(read_frames(source)[0], whole[0])


def test_frames_are_counted_one_by_one(clip):
    ticks = []
    read_frames(clip, on_frame=lambda: ticks.append(1))
    assert len(ticks) == COUNT


@pytest.mark.parametrize("choice", [{"start": -1}, {"stride": 0}, {"count": 0}, {"start": 5, "stop": 5}])
def test_impossible_selections_are_refused(clip, choice):
    with pytest.raises(VideoError, match="must be"):
        open_source(clip, **choice)


def test_a_start_past_the_end_is_one_clear_error(clip):
    with pytest.raises(VideoError, match=f"no frame {COUNT}"):
        open_source(clip, start=COUNT).times()
