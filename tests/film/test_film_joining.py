"""Segments become one film: the film that is restored in one go, whatever the codec, the times and the disk."""

from __future__ import annotations

from fractions import Fraction

import av
import pytest
import torch
from helpers.small_film import LOSSLESS, SHOT, SIZE, Remembering, done_at, in_one_go, make_film, make_room, planned, run, same, shot, tools
from helpers.video_helpers import packets

from fvr.film.executors import work
from fvr.film.join import join, join_once
from fvr.film.segment import restore_segment
from fvr.methods.base import WarmUp
from fvr.video import VideoError, open_sink, open_source, probe, read_frames

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_joined_film_is_the_film_in_one_go(clip, whole, tmp_path):
    run(tmp_path / "job", clip, tmp_path / "out.mkv")
    same(tmp_path / "out.mkv", whole)
    job = planned(tmp_path / "job", clip)
    assert [(s.first, s.stop) for s in job.segments] == [(n, n + SHOT) for n in range(0, 6 * SHOT, SHOT)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["job", "out.mkv"]

    before = done_at(tmp_path / "job")
    (tmp_path / "out.mkv").unlink()
    run(tmp_path / "job", clip, tmp_path / "out.mkv")
    same(tmp_path / "out.mkv", whole)
    assert done_at(tmp_path / "job") == before and len(before) == 6


def test_a_full_disk_under_the_film_is_said_and_no_segment_is_blamed(clip, whole, tmp_path, disk):
    job = planned(tmp_path / "job", clip)
    work(job, lambda: tools(job.frames))
    done = done_at(tmp_path / "job")
    sentence = r"out\.mkv could not be (written|finished), as its disk is full; make room and give the same command again$"
    for write in (lambda: join_once(job, disk / "out.mkv"), lambda: in_one_go(clip, disk / "out.mkv")):
        with pytest.raises(VideoError, match=sentence):
            write()
        assert list(disk.iterdir()) == []
    make_room(disk)
    join_once(job, disk / "out.mkv")
    assert done_at(tmp_path / "job") == done
    same(disk / "out.mkv", whole)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_broadcast_whose_sound_begins_before_its_picture_can_be_joined(suffix, tmp_path):
    """The film's zero is then none of the picture's ticks, and only the first segment used to count from there."""
    clip, out, one = tmp_path / "in.ts", tmp_path / f"out{suffix}", tmp_path / f"one{suffix}"
    make_film(tmp_path / "in.mp4", (6, 6, 6))
    with av.open(str(tmp_path / "in.mp4")) as source, av.open(str(clip), "w") as sink:
        lanes = {stream.index: sink.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.size:
                later = round((1 if packet.stream.type == "video" else 1 + Fraction(27, 8000)) / packet.time_base)
                packet.pts, packet.dts = packet.pts + later, packet.dts + later
                packet.stream = lanes[packet.stream.index]
                sink.mux(packet)
    info = open_source(clip).info
    assert info.origin < info.start == 1 and info.origin * 25 % 1
    encoding = {**LOSSLESS, "codec": "h264", "container": suffix[1:].replace("mkv", "matroska")}
    run(tmp_path / "job", clip, out, encoding=encoding)
    in_one_go(clip, one, encoding=encoding)
    (frames, times), (others, other_times) = read_frames(out), read_frames(one)
    assert times.durations == other_times.durations and len(frames) == len(others) == 18
    assert packets(out) == packets(one) and abs(times.starts[0] - other_times.starts[0]) <= Fraction(1, 1000)


@pytest.mark.parametrize("codec", ["ffv1", "h264"])
def test_a_joined_matroska_file_has_the_rate_and_the_end_of_one_in_one_go(codec, tmp_path):
    """Its last frame lasts twice as long as the others."""
    clip, out, one = tmp_path / "in.mp4", tmp_path / "out.mkv", tmp_path / "one.mkv"
    times = [Fraction(number, 25) for number in (*range(12), 13)]
    with open_sink(clip, None, size=SIZE) as sink:
        for number in (0, 1):
            here = slice(6 * number, 6 * number + 6)
            sink.write(shot(number, 6), times[here], times[here.start + 1 : here.stop + 1])
    encoding = {**LOSSLESS, "codec": codec}
    run(tmp_path / "job", clip, out, encoding=encoding)
    in_one_go(clip, one, encoding=encoding)
    assert probe(out).rate == probe(one).rate == probe(clip).rate
    assert read_frames(out)[1].ends == read_frames(one)[1].ends == read_frames(clip)[1].ends


@pytest.mark.parametrize(("codec", "suffix", "start"), [("h264", ".mp4", 0), ("h265", ".mkv", 0), ("prores", ".mov", 2), ("vp9", ".webm", 0)])
def test_every_codec_joins_with_its_times_and_sound(codec, suffix, start, tmp_path):
    """Segments of one and of several frames, with frames that are stored out of order; a film that begins late."""
    clip, out, one = tmp_path / "in.mkv", tmp_path / f"out{suffix}", tmp_path / f"one{suffix}"
    make_film(clip, (9, 1, 5), start=Fraction(start, 7), codec="ffv1")
    encoding = dict(codec=codec, crf=12, pixel_format=None, container={".mkv": "matroska"}.get(suffix, suffix[1:]))
    run(tmp_path / "job", clip, out, encoding=encoding)
    in_one_go(clip, one, encoding=encoding)
    (frames, times), (others, other_times) = read_frames(out), read_frames(one)
    assert times.starts == other_times.starts and times.end == other_times.end
    assert (frames - others).abs().mean() < 0.02
    a, b = probe(out), probe(one)
    assert (a.colour, a.pix_fmt, a.rate, a.time_base, a.start, a.duration) == (b.colour, b.pix_fmt, b.rate, b.time_base, b.start, b.duration)
    assert [s.duration for s in a.audio_streams] == [s.duration for s in b.audio_streams]


def test_a_film_with_a_segment_missing_or_cut_is_not_published(clip, tmp_path):
    job = planned(tmp_path / "job", clip)
    work(job, lambda: tools(job.frames))
    (job.parts / "00003.json").unlink()
    with pytest.raises(ValueError, match=r"segment 3 of .* is not done; restore it with: fvr segment"):
        join(job, tmp_path / "out.mkv")
    restore_segment(job, job.segments[3], tools(job.frames))
    file, size = job.file(job.segments[3]), job.file(job.segments[3]).stat().st_size
    file.write_bytes(file.read_bytes()[: size // 2].ljust(size, b"\0"))
    with pytest.raises(ValueError, match=r"00003\.mkv|other times"):
        join(job, tmp_path / "out.mkv")
    assert [path.name for path in tmp_path.iterdir()] == ["job"]


def test_a_long_shot_is_split_and_warmed_up(tmp_path):
    """Exact where the method's memory ends, near where it fades; segments begin at whole chunks."""
    clip = tmp_path / "in.mkv"
    make_film(clip, (30, 5), codec="ffv1")
    in_one_go(clip, tmp_path / "whole.mkv")
    expected, _ = read_frames(tmp_path / "whole.mkv")
    for name, warm_up in (("all", None), ("some", WarmUp(before=10, exact=False))):
        job = planned(tmp_path / name, clip, Remembering(warm_up=warm_up), seconds=0.5)
        assert [(s.first, s.stop) for s in job.segments] == [(0, 8), (8, 16), (16, 30), (30, 35)]
        assert job.plan["exact"] == (warm_up is None)
        made = tools(job.frames, Remembering(warm_up=warm_up))
        work(job, lambda made=made: made)
        out, _ = join(job, tmp_path / f"{name}.mkv")
        frames, _ = read_frames(out)
        error = (frames - expected).square().mean((1, 2, 3))
        assert torch.equal(frames, expected) if warm_up is None else error.max() < 1e-5  # 50 dB


def test_a_selection_of_frames_is_a_job_too(clip, tmp_path):
    chosen = {"start": 5, "count": 9, "stride": 3}
    job = planned(tmp_path / "job", clip, selection=chosen, seconds=0.3)
    made = tools(job.frames)
    assert len(job.segments) > 1
    work(job, lambda: made)
    join(job, tmp_path / "out.mkv")
    in_one_go(clip, tmp_path / "one.mkv", source=open_source(clip, **chosen))
    same(tmp_path / "out.mkv", tmp_path / "one.mkv")
