"""Broadcast recordings: clocks that start anywhere, and anew where files were joined; the picture that is the clip."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from av.stream import Disposition
from helpers.video_helpers import beep_times, beeps, copy, moving, save

from fvr.video import FrameTimes, SourceInfo, VideoError, open_sink, open_source, read_audio, read_frames
from fvr.video.reading.health import readable
from fvr.video.reading.timestamp_discontinuity import RunningClock
from fvr.video.streams.audio import plan_lanes
from fvr.video.writing.boxes import Box, boxes, find

RATE = 48000


def recording(
    path, seconds: int = 2, *, start: int = 0, sound: str | None = "aac", encoder: str = "libx264", layout: str = "stereo", rate: int = RATE
):
    """A transport stream at 25 frames a second on a clock that stands at `start` seconds; its 1 kHz tone sounds from 1.0 to 1.1 s."""
    with av.open(str(path), "w", format="mpegts") as out:
        video = out.add_stream(encoder, rate=25, options={"preset": "ultrafast", "bf": "2"})
        video.width = video.height = 32
        lanes = [out.add_stream(sound, rate=rate, layout=layout)] if sound else []
        tone = np.zeros((av.AudioLayout(layout).nb_channels, seconds * rate), np.float32)
        tone[:2] = beeps(seconds, rate).numpy()[: len(tone)]
        for index, picture in enumerate(moving(25 * seconds, 32, 32)):
            pixels = (picture.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index + 25 * start, Fraction(1, 25)
            out.mux(video.encode(frame))
            for lane in lanes:
                block, kind = tone[:, index * rate // 25 : (index + 1) * rate // 25], lane.codec_context.format.name
                block = block if kind == "fltp" else (block.T * 32767).astype(np.int16).reshape(1, -1)
                heard = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format=kind, layout=layout)
                heard.sample_rate, heard.pts, heard.time_base = rate, (index + 25 * start) * rate // 25, Fraction(1, rate)
                out.mux(lane.encode(heard))
        for stream in (video, *lanes):
            out.mux(stream.encode(None))
    return path


def joined(folder, count: int = 3, **choices):
    one = recording(folder / "one.ts", **choices)
    path = folder / "joined.ts"
    path.write_bytes(one.read_bytes() * count)
    return path


@pytest.mark.parametrize("sound", ["aac", "mp2"])
def test_joined_recordings_run_on(tmp_path, sound):
    """Every frame keeps its length, and the tone of each part sounds a second after that part begins; AAC is copied, MP2 encoded anew."""
    source = open_source(joined(tmp_path, sound=sound))
    times = source.times()
    assert len(times) == 150 and set(times.durations) == {Fraction(1, 25)}
    assert len(source.warnings) == 1 and "starts its clock anew" in source.warnings[0]
    single = beep_times(copy(open_source(tmp_path / "one.ts"), tmp_path / "one.mp4", audio=tmp_path / "one.ts"))
    delay = single[0] - float(open_source(tmp_path / "one.mp4").times().starts[25])
    out = copy(source, tmp_path / "out.mp4", audio=source)
    after = open_source(out).times()
    assert set(after.durations) == {Fraction(1, 25)}
    tones = [float(after.starts[50 * part + 25]) + delay for part in range(3)]
    assert beep_times(out) == pytest.approx(tones, abs=0.025)
    with av.open(str(out)) as container:
        stamps = [packet.dts for packet in container.demux(audio=0) if packet.size]
    assert all(now < then for now, then in pairwise(stamps))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("sound, then", [("aac", {"layout": "5.1"}), ("aac", {"rate": 44100}), ("mp2", {"layout": "mono"}), ("mp2", {"rate": 44100})])
def test_sound_that_changes_its_form_is_heard_to_the_end(tmp_path, suffix, sound, then):
    """As where a broadcast goes on to a film in 5.1: copies of AAC packets were silent from there, and encoding anew failed."""
    parts = [recording(tmp_path / "one.ts", sound=sound), recording(tmp_path / "two.ts", sound=sound, **then)]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    source = open_source(path)
    with open_sink(tmp_path / f"out{suffix}", source.info, audio=source) as sink:
        for chunk in source.chunks():
            sink.write(chunk.frames, chunk.starts, chunk.ends)
    assert sum("change on the way" in sentence for sentence in sink.warnings) == (sound == "aac")
    start = float(open_source(sink.path).info.start)
    assert beep_times(sink.path) == pytest.approx([start + 1, start + 3], abs=0.05)
    track = read_audio(source, source.times())
    assert track is not None and float(track.duration) == pytest.approx(4, abs=0.1)


def test_a_long_recording_is_read_whole_once_to_be_planned(tmp_path, monkeypatch):
    """Its losses are told and its sound is written by the same answer, which a changed file asks for anew."""
    path, demuxed = recording(tmp_path / "one.ts"), []
    monkeypatch.setattr("fvr.video.streams.audio.readable", lambda packets: demuxed.append(1) or readable(packets))
    changes = [bool(plan_lanes(path, container)[1]) for container in ("mp4", "matroska", "mp4")]
    assert changes == [False] * 3 and len(demuxed) == 1
    path.write_bytes(path.read_bytes() + recording(tmp_path / "two.ts", layout="5.1").read_bytes())
    assert plan_lanes(path, "mp4")[1] and len(demuxed) == 2


def transport_packets(path) -> list[bytes]:
    data = path.read_bytes()
    return [data[at : at + 188] for at in range(0, len(data), 188)]


def is_sound(packet: bytes) -> bool:
    """Whether a packet of a `recording` is of its second stream, by its identifier."""
    return int.from_bytes(packet[1:3], "big") & 0x1FFF == 0x101


def test_sound_that_begins_late_is_kept(tmp_path):
    """FFmpeg looks for seven seconds what an announced track is."""
    packets = transport_packets(recording(tmp_path / "whole.ts", seconds=11))
    silent = [number for number, packet in enumerate(packets) if is_sound(packet)]
    gone = set(silent[: len(silent) * 9 // 11])
    (tmp_path / "in.ts").write_bytes(b"".join(packet for number, packet in enumerate(packets) if number not in gone))
    source = open_source(tmp_path / "in.ts")
    out = copy(source, tmp_path / "out.mp4", audio=source)
    whole = beep_times(copy(open_source(tmp_path / "whole.ts"), tmp_path / "whole.mp4", audio=tmp_path / "whole.ts"))
    starts = [open_source(tmp_path / name).info.start for name in ("out.mp4", "whole.mp4")]
    assert beep_times(out)[-1] - starts[0] == pytest.approx(whole[-1] - starts[1], abs=0.03)


@pytest.mark.parametrize("sound", ["aac", "mp2"])
def test_an_announced_track_without_sound_costs_no_clip(tmp_path, sound):
    """Broadcasts announce languages that are on air at times only, recorders a microphone that is off."""
    whole = recording(tmp_path / "whole.ts", sound=sound)
    (tmp_path / "in.ts").write_bytes(b"".join(packet for packet in transport_packets(whole) if not is_sound(packet)))
    source = open_source(tmp_path / "in.ts")
    assert not source.info.audio and read_audio(source) is None
    with open_sink(tmp_path / "out.mp4", source.info, audio=source) as sink:
        for chunk in source.chunks():
            sink.write(chunk.frames, chunk.starts, chunk.ends)
    assert sink.count == 50 and "sound track 1, which is empty or begins late" in sink.warnings[0]


@pytest.mark.parametrize("choice", [{"start": 80, "count": 30}, {"window": (Fraction(33, 10), 1)}])
def test_a_part_of_joined_recordings_is_found(tmp_path, choice):
    """Where one stated time means three places, nothing is sought: the frames are those of a pass from the start, the sound too."""
    path = joined(tmp_path)
    frames, times = read_frames(path)
    some, when = read_frames(path, **choice)
    first = times.starts.index(when.starts[0])
    assert abs(first - 80) < 6
    assert (some == frames[first : first + len(some)]).all()
    track = read_audio(path, when)
    assert track is not None
    whole = read_audio(path, times)
    begin = round(float(when.starts[0] - times.starts[0]) * RATE)
    assert (track.waveform - whole.waveform[:, begin : begin + track.waveform.shape[1]]).abs().max() < 0.02


def test_one_time_out_of_order_is_no_join(tmp_path):
    """As after damage: what follows keeps its own times, and so its sound."""
    path = recording(tmp_path / "one.ts")
    with av.open(str(path)) as container:
        clock = RunningClock(path, container)
    frame = Fraction(1, 25)
    assert [clock(Fraction(stated), frame) for stated in (1, "3/2", "1/4", "31/20")] == [1, Fraction(3, 2), Fraction(1, 4), Fraction(31, 20)]
    assert not clock.jumps


STAMPS = {
    "ahead and on": ([1, 1.5, 47722, 47722.5], [1, 1.5, 2, 2.5]),
    "ahead and back": ([1, 1.5, 47722, 1.8], [1, 1.5, 2, 1.8]),
    "ahead, further ahead and back": ([1, 1.5, 900, 47722, 1.7], [1, 1.5, 2, 2.5, 1.7]),
    "from the first on": ([47722, 1.5, 1.6], [None, 1.5, 1.6]),
}


@pytest.mark.parametrize("stated, meant", STAMPS.values(), ids=STAMPS)
def test_sound_stated_where_there_is_no_picture_goes_on_behind_itself(tmp_path, stated, meant):
    path, warned = recording(tmp_path / "one.ts"), []
    with av.open(str(path)) as container:
        clock = RunningClock(path, container, sound=True, warn=warned.append)
    given = [float(clock(Fraction(time).limit_denominator(100), Fraction(1, 2))) for time in stated]
    assert all(wanted is None or now == pytest.approx(wanted) for now, wanted in zip(given, meant, strict=True)) and max(given) < 4
    assert len(set(warned)) == 1 and "damaged time stamps" in warned[0]


def test_a_silence_while_there_is_a_picture_is_meant(tmp_path):
    path = recording(tmp_path / "one.ts")
    with av.open(str(path)) as container:
        clock, begin = RunningClock(path, container, sound=True), container.streams.video[0].start_time * Fraction(1, 90000)
    assert [clock(begin + after, Fraction(1, 50)) - begin for after in (0, Fraction(7, 4))] == [0, Fraction(7, 4)]
    assert not clock.jumps


def gapped(path, gap: float, seconds: float = 1.0):
    """Two seconds of picture; sound of twice `seconds` that leaves out `gap` in its middle."""
    with av.open(str(path), "w") as out:
        video, sound = out.add_stream("mpeg4", rate=25), out.add_stream("pcm_s16le", rate=8000, layout="mono")
        video.width = video.height = 32
        for index in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), index, np.uint8), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(video.encode(frame))
        for index in range(round(20 * seconds)):
            heard = av.AudioFrame.from_ndarray(np.full((1, 800), 1000, np.int16), format="s16", layout="mono")
            heard.sample_rate, heard.time_base = 8000, Fraction(1, 8000)
            heard.pts = 800 * index + (round(8000 * gap) if index >= 10 * seconds else 0)
            out.mux(sound.encode(heard))
        for stream in (video, sound):
            out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix, codec", [(".mp4", "h264"), (".mkv", "h264")])
@pytest.mark.parametrize("gap, length", [(0.5, 2.5), (30_000, 2.0)])
def test_a_gap_that_outlasts_the_picture_is_not_filled(tmp_path, suffix, codec, gap, length):
    """PCM becomes AAC in MP4 and is copied in Matroska."""
    source = open_source(gapped(tmp_path / "gap.mkv", gap))
    with open_sink(tmp_path / f"out{suffix}", source.info, audio=source, codec=codec, preset="ultrafast") as sink:
        for chunk in source.chunks():
            sink.write(chunk.frames, chunk.starts, chunk.ends)
    track = read_audio(tmp_path / f"out{suffix}")
    assert float(track.duration) == pytest.approx(length, abs=0.2)
    assert float(read_audio(source).duration) == pytest.approx(length, abs=0.05)
    assert sum("damaged time stamps" in sentence for sentence in sink.warnings) == (gap > 1)


def test_sound_can_be_interrupted(tmp_path):
    """Ten minutes of it behind two seconds of picture are written when the sink is closed."""
    source = open_source(gapped(tmp_path / "long.mkv", 0, 300))
    beats = []

    def check_interrupt():
        beats.append(1)
        if len(beats) > 300:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), open_sink(tmp_path / "out.mp4", source.info, audio=source, check_interrupt=check_interrupt) as sink:
        for chunk in source.chunks():
            sink.write(chunk.frames, chunk.starts, chunk.ends)
    assert sink.count == 50 and [path.name for path in tmp_path.iterdir()] == ["long.mkv"]
    with pytest.raises(KeyboardInterrupt):
        read_audio(source, check_interrupt=check_interrupt)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_damaged_time_stamp_of_sound_costs_nothing(case, tmp_path, suffix):
    """Not thirteen hours of silence."""
    source = open_source(case("audio_pts_jump.mpg"))
    with open_sink(tmp_path / f"out{suffix}", source.info, audio=source, preset="ultrafast") as sink:
        for chunk in source.chunks():
            sink.write(chunk.frames, chunk.starts, chunk.ends)
    with av.open(str(sink.path)) as container:
        assert container.duration / 1e6 < 0.6
    assert sum("damaged time stamps" in warning for warning in sink.warnings) == 1
    assert float(read_audio(source).duration) < 1.2


def test_a_picture_whose_clock_jumps_ahead_runs_on(tmp_path):
    """As where a recording was joined to one that began hours later."""
    one, two = (recording(tmp_path / f"{name}.ts", start=start) for name, start in (("one", 0), ("two", 7200)))
    (tmp_path / "both.ts").write_bytes(one.read_bytes() + two.read_bytes())
    source = open_source(tmp_path / "both.ts")
    times = source.times()
    assert len(times) == 100 and set(times.durations) == {Fraction(1, 25)} and "starts its clock anew" in source.warnings[0]
    single = beep_times(copy(open_source(one), tmp_path / "one.mp4", audio=one))
    out = copy(source, tmp_path / "out.mp4", audio=source)
    assert beep_times(out) == pytest.approx([single[0], single[0] + 2], abs=0.03)


@pytest.mark.parametrize("begin", [0, 7200])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_recording_begins_at_zero_in_its_copy(tmp_path, begin, suffix):
    """As players show it, whatever its clock; picture and sound keep their distance."""
    path = recording(tmp_path / "late.ts", start=begin)
    source = open_source(path)
    with av.open(str(path)) as container:
        first, heard = (float(stream.start_time * stream.time_base) for stream in (container.streams.video[0], container.streams.audio[0]))
    assert first > begin - 1
    out = copy(source, tmp_path / f"out{suffix}", audio=source)
    with av.open(str(out)) as container:
        shown, sounds = (float(stream.start_time * stream.time_base) for stream in (container.streams.video[0], container.streams.audio[0]))
        assert container.duration / 1e6 < 2.2
    assert shown == pytest.approx(first - min(first, heard), abs=0.002)
    assert shown - sounds == pytest.approx(first - heard, abs=0.002)


@pytest.mark.parametrize("suffix", [".ts", ".mkv"])
def test_a_late_recording_is_as_long_as_it_shows(tmp_path, suffix):
    """Matroska states where it ends; the file's two seconds at five hours are no five hours, and its last half second is found."""
    path = recording(tmp_path / "late.ts", start=18000, sound=None)
    if suffix == ".mkv":
        path = tmp_path / "late.mkv"
        with av.open(str(tmp_path / "late.ts")) as source, av.open(str(path), "w") as out:
            stream = out.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
    source = open_source(path)
    assert source.info.start > 17999
    assert float(source.info.duration) == pytest.approx(2, abs=0.1) and 48 <= source.expected <= 52
    assert len(open_source(path, window=(-0.5, None)).times()) in (12, 13)


def test_sound_of_another_clock_begins_with_the_picture(tmp_path):
    """An ordinary picture with the sound of a late recording: both from their beginnings."""
    late = recording(tmp_path / "late.ts", start=7200)
    source = open_source(save(tmp_path / "plain.mp4", moving(50, 32, 32)))
    out = copy(source, tmp_path / "out.mp4", audio=late)
    assert beep_times(out) == pytest.approx([1.0], abs=0.03)


def test_an_intended_late_beginning_stays(tmp_path):
    """An MP4 whose picture begins after 0.3 s is copied as it is."""
    times = FrameTimes.constant(10, 25).shifted(Fraction(3, 10))
    like = SourceInfo(None, 64, 48, start=times.starts[0], time_base=Fraction(1, 12800))
    source = open_source(save(tmp_path / "late.mp4", moving(10), times, like))
    assert source.info.origin == 0
    assert open_source(copy(source, tmp_path / "out.mp4")).times().starts == times.starts


def with_cover(path, *, clip: bool = True):
    """An MP4 with a cover picture of 16x16 before the clip of 32x32 (or sound alone), which FFmpeg writes last but others first."""
    with av.open(str(path), "w", format="mp4") as out:
        other = out.add_stream("libx264", rate=25) if clip else out.add_stream("aac", rate=RATE, layout="stereo")
        if clip:
            other.width = other.height = 32
        cover = out.add_stream("png", rate=1)
        cover.width = cover.height = 16
        cover.pix_fmt, cover.disposition = "rgb24", Disposition.attached_pic.value
        for index in range(5):
            if clip:
                frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 40 * index, np.uint8), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 25)
            else:
                frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
                frame.sample_rate, frame.pts = RATE, 1024 * index
            out.mux(other.encode(frame))
        out.mux(other.encode(None))
        picture = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 99, np.uint8), format="rgb24")
        picture.pts, picture.time_base = 0, Fraction(1)
        out.mux([*cover.encode(picture), *cover.encode(None)])
    with path.open("rb") as file:
        moov = find(file, Box(b"", 0, path.stat().st_size), b"moov")
        inside = sorted(boxes(file, moov.start, moov.stop), key=lambda box: (box.kind != b"mvhd", box.kind != b"udta"))
    data = path.read_bytes()
    path.write_bytes(data[: moov.start] + b"".join(data[box.start - 8 : box.stop] for box in inside) + data[moov.stop :])
    return path


def test_a_cover_picture_is_not_the_clip(tmp_path):
    path = with_cover(tmp_path / "covered.mp4")
    with av.open(str(path)) as container:
        assert container.streams.video[0].disposition & Disposition.attached_pic
    frames, _ = read_frames(path)
    assert frames.shape == (5, 3, 32, 32)
    assert len(read_frames(path, start=2)[0]) == 3


def test_a_song_with_a_cover_is_no_clip(tmp_path):
    with pytest.raises(VideoError, match="no video stream, only a cover picture, audio"):
        open_source(with_cover(tmp_path / "song.m4a", clip=False))
