"""Files that do not say when their pictures are shown: decoding times alone, and Matroska's blocks before second 0."""

from __future__ import annotations

import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from helpers.video_helpers import beep_times, beeps, copy, moving, psnr, save

from fvr.video import AudioTrack, FrameTimes, open_source, read_audio, read_frames

STEP = Fraction(1, 25)


def avi(path, frames, codec="libx264", **options: str):
    """RGB frames by FFmpeg alone."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options=({"preset": "ultrafast", "crf": "10"} if codec == "libx264" else {}) | options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[-2:], "yuv420p"
        for index, picture in enumerate(frames):
            pixels = np.ascontiguousarray((picture.permute(1, 2, 0).numpy() * 255).astype(np.uint8))
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, STEP
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    "options",
    [
        {"bf": "0"},
        {"bf": "2", "x264-params": "b-adapt=0"},
        {"bf": "4", "g": "9", "x264-params": "b-adapt=0:open-gop=1"},
    ],
)
def test_pictures_of_an_avi_are_shown_one_after_the_other(tmp_path, options):
    """FFmpeg's presentation times of H.264 in AVI are those of decoding: out of order where frames look ahead, else one frame late."""
    frames = moving(90, 64, 64)
    path = avi(tmp_path / "in.avi", frames, **options)
    source = open_source(path)
    shown, times = read_frames(source)
    assert times.starts == tuple(number * STEP for number in range(90)) and times.end == 90 * STEP
    assert source.warnings == [] and psnr(shown, frames) > 30
    part, when = read_frames(path, start=70, count=5)
    assert torch.equal(part, shown[70:75]) and when.starts == times.starts[70:75]
    window, _ = read_frames(path, window=(times.starts[80], 3 * STEP))
    assert torch.equal(window, shown[80:83])
    after = open_source(copy(source, tmp_path / "out.mp4")).times()
    assert (after.starts, after.end) == (times.starts, times.end)


def packed(path, target):
    """As DivX and Xvid packed their AVI files: each B-frame lies in the packet of the picture before it, and an empty picture where it was."""
    vop, mark, nothing = b"\0\0\1\xb6", b"\0\0\1\xb2DivX503b1393p", b"\0\0\1\xb6\x51\x0f"
    with av.open(str(path)) as source, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        pictures = [bytes(packet) for packet in source.demux(video=0) if packet.size]
        for place, data in enumerate(pictures):
            after = pictures[place + 1] if place + 1 < len(pictures) else b""
            if (after[after.find(vop) + 4 :] or b"\0")[0] >> 6 == 2:
                data += after
            elif data[data.find(vop) + 4] >> 6 == 2:
                data = nothing
            packet = av.Packet(data.replace(vop, mark + vop, 1) if place == 0 else data)
            packet.pts = packet.dts = place
            packet.time_base, packet.stream = STEP, stream
            packet.is_keyframe = data[data.find(vop) + 4] >> 6 == 0
            out.mux(packet)
    return target


def in_matroska(path, target):
    """An AVI file as mkvmerge takes it over: an AVI header is the codec's data, and times are in decoding order."""
    with av.open(str(path)) as source, av.open(str(target), "w", options={"write_crc32": "0"}) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        extra, (width, height) = bytes(stream.codec_context.extradata or b""), (stream.codec_context.width, stream.codec_context.height)
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts, packet.stream = packet.dts, stream
                out.mux(packet)
    data, header = bytearray(target.read_bytes()), struct.pack("<IiiHH4sIiiII", 40 + len(extra), width, height, 1, 24, b"DIVX", *[0] * 5)

    def resize(at: int, by: int) -> int:
        """Changes an element's size; gives where its content begins."""
        length = 9 - data[at].bit_length()
        data[at : at + length] = (int.from_bytes(data[at : at + length], "big") + by).to_bytes(length, "big")
        return at + length

    tracks = data.rindex(b"\x16\x54\xae\x6b", 0, 1000)
    resize(resize(tracks + 4, 40) + 1, 40)
    private = resize(data.index(b"\x63\xa2", tracks) + 2, 40)
    data[private:private] = header
    data[:] = data.replace(b"V_MPEG4/ISO/ASP", b"V_MS/VFW/FOURCC", 1)
    room = resize(data.index(b"\xec\1\0\0\0") + 1, -40)
    del data[room : room + 40]
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
@pytest.mark.parametrize("form", ["one frame each", "packed"])
def test_pictures_of_divx_are_shown_one_after_the_other(tmp_path, form, suffix):
    """FFmpeg's own times are one frame late, and of a packed file out of order."""
    frames = moving(90, 64, 64)
    path = avi(tmp_path / "in.avi", frames, "mpeg4", bf="1", b_strategy="0", g="12", b="2000000")
    if form == "packed":
        path = packed(path, tmp_path / "packed.avi")
    path = in_matroska(path, tmp_path / "in.mkv") if suffix == ".mkv" else path
    source = open_source(path)
    shown, times = read_frames(source)
    assert times.starts == tuple(number * STEP for number in range(90)) and times.end == 90 * STEP
    assert source.warnings == [] and psnr(shown, frames) > 30
    assert source.can_seek
    part, when = read_frames(path, start=70, count=5)
    assert torch.equal(part, shown[70:75]) and when.starts == times.starts[70:75]
    for first in range(70, 84):
        assert torch.equal(read_frames(path, window=(times.starts[first], 3 * STEP))[0], shown[first : first + 3])


@pytest.mark.parametrize("suffix, codec", [(".h264", "libx264"), (".hevc", "libx265"), (".m2v", "mpeg2video")])
def test_a_stream_without_a_container_has_the_rate_that_it_states(tmp_path, suffix, codec):
    """Recorders write such files; FFmpeg takes all of them for 25 frames a second."""
    with av.open(str(tmp_path / f"in{suffix}"), "w") as out:
        stream = out.add_stream(codec, rate=Fraction(30000, 1001))
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        for picture in moving(20, 64, 64):
            pixels = np.ascontiguousarray((picture.permute(1, 2, 0).numpy() * 255).astype(np.uint8))
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")))
        out.mux(stream.encode(None))
    source = open_source(tmp_path / f"in{suffix}")
    assert source.info.rate == Fraction(30000, 1001) and source.warnings == []
    assert len(source.times()) == 20 and float(source.times().duration) == pytest.approx(20 * 1001 / 30000, abs=1e-4)
    held = open_source(io.BytesIO((tmp_path / f"in{suffix}").read_bytes()))
    assert held.times().durations == source.times().durations


def test_a_lost_picture_of_an_avi_moves_no_later_ones(tmp_path):
    """From the next key frame on, every picture is where it was."""
    frames = moving(48, 64, 64)
    path = avi(tmp_path / "in.avi", frames, bf="2", g="16", **{"x264-params": "b-adapt=0"})
    whole, _ = read_frames(path)
    data = bytearray(path.read_bytes())
    index = data.rfind(b"idx1") + 8
    for number in (3, 4, 5):
        at, size = struct.unpack_from("<II", data, index + 16 * number + 8)
        data[data.find(b"movi") + at + 8 : data.find(b"movi") + at + 8 + size] = bytes(size)
    (tmp_path / "damaged.avi").write_bytes(data)
    source = open_source(tmp_path / "damaged.avi")
    shown, times = read_frames(source)
    assert len(shown) < 48 and any("damaged" in sentence for sentence in source.warnings)
    where = dict(zip(times.starts, shown, strict=True))
    assert all(torch.equal(where[number * STEP], whole[number]) for number in range(16, 48))


def before_zero(path, milliseconds: int):
    """Moves the blocks of a Matroska file's first track back; it must have one cluster. Those before second 0 then have no time for FFmpeg."""
    data = bytearray(path.read_bytes())

    def number(at: int) -> tuple[int, int]:
        width = 9 - data[at].bit_length()
        return int.from_bytes(data[at : at + width], "big") & ~(1 << 7 * width), at + width

    def walk(at: int, stop: int) -> None:
        while at < stop:
            width = 9 - data[at].bit_length()
            kind, (size, inside) = bytes(data[at : at + width]), number(at + width)
            if kind in (b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75", b"\xa0"):
                walk(inside, min(stop, inside + size))
            elif kind in (b"\xa3", b"\xa1") and number(inside)[0] == 1:
                place = number(inside)[1]
                struct.pack_into(">h", data, place, struct.unpack_from(">h", data, place)[0] - milliseconds)
            at = inside + size

    walk(0, len(data))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("encoding", [{}, {"codec": "ffv1"}], ids=["h264", "ffv1"])
def test_frames_before_second_0_keep_their_distance(tmp_path, encoding):
    """They have no time in FFmpeg's hands, and used to collide with the first that has one; the sound stays with the picture."""
    times = FrameTimes.constant(50, 25)
    path = save(tmp_path / "in.mkv", moving(50), times, audio=AudioTrack(beeps(2), 48000), **encoding)
    before = beep_times(path)
    source = open_source(before_zero(path, 80))
    frames, shown = read_frames(source)
    assert shown.starts == tuple((number - 2) * STEP for number in range(50)) and shown.end == 48 * STEP
    assert not any("do not increase" in sentence for sentence in source.warnings)
    out = copy(source, tmp_path / "out.mp4", audio=source)
    after = open_source(out).times()
    assert after.durations == shown.durations and torch.equal(read_frames(path, start=2, count=3)[0], frames[2:5])
    assert beep_times(out)[0] - float(after.starts[0]) == pytest.approx(before[0] + 0.08, abs=0.025)
    heard = read_audio(source, shown)
    assert heard is not None
    first = int((heard.waveform[0].abs() > 0.1).nonzero()[0]) / heard.rate
    assert first == pytest.approx(before[0] + 0.08, abs=0.025)
