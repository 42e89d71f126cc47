"""What a file carries beside its picture comes along, or is named before the work starts."""

from __future__ import annotations

import io
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from av.stream import Disposition
from helpers.video_helpers import copy, moving, save
from PIL import Image

from fvr.video import FrameTimes, SourceInfo, open_sink, open_source, read_audio, read_frames
from fvr.video.info import ColourTags, Grading
from fvr.video.streams.companions import Companions, advance_timecode, clip_tags

TAGS = {"title": "Interview 1974", "artist": "Archive", "creation_time": "1999-05-01T10:00:00.000000Z", "location": "+48.1000+011.5000/"}
SAID = [(b"Hello", Fraction(1, 10), Fraction(4, 10)), (b"Bye", Fraction(6, 10), Fraction(3, 10))]


def film(path, *, subtitles="subrip", tags=TAGS, timecode="01:00:00:00", options=None):
    """One second of 25 frames with tags, two chapters, subtitles and a timecode."""
    with av.open(str(path), "w", options=options or {}) as out:
        out.metadata.update({**tags, **({"timecode": timecode} if timecode else {})})
        video = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height = 64, 48
        if not hasattr(out, "add_mux_stream"):
            pytest.skip("this PyAV writes no subtitles of its own")
        titles = out.add_mux_stream(subtitles) if subtitles else None
        if titles is not None:
            titles.metadata["language"] = "fra"
        half = [{"start": 0, "end": 500, "title": "one"}, {"start": 500, "end": 1000, "title": "two"}]
        out.set_chapters([{"id": n, "time_base": Fraction(1, 1000), "metadata": {"title": one.pop("title")}, **one} for n, one in enumerate(half)])
        out.start_encoding()
        for text, start, length in SAID if titles is not None else []:
            packet = av.Packet(text)
            packet.pts = packet.dts = round(start * 1000)
            packet.duration, packet.time_base, packet.stream = round(length * 1000), Fraction(1, 1000), titles
            out.mux(packet)
        for picture in moving(25):
            out.mux(video.encode(av.VideoFrame.from_ndarray((picture.permute(1, 2, 0).numpy() * 255).astype(np.uint8), format="rgb24")))
        out.mux(video.encode(None))
    return path


def described(path):
    """Tags, chapters (title, start and end), subtitles (text, start and end) and timecode of a file."""
    with av.open(str(path)) as container:
        chapters = [(one["metadata"]["title"], one["start"] * one["time_base"], one["end"] * one["time_base"]) for one in container.chapters()]
        lines = [
            (
                bytes(packet)[2:] if stream.codec_context.codec.name == "mov_text" else bytes(packet),
                packet.pts * packet.time_base,
                packet.duration * packet.time_base,
            )
            for stream in container.streams.subtitles
            for packet in container.demux(stream)
            if packet.size > 2
        ]
        timecode = next(
            (one for holder in (container, *container.streams) if (one := holder.metadata.get("timecode", holder.metadata.get("TIMECODE")))), None
        )
        tags = {key.lower(): value for key, value in container.metadata.items()}
        if (time := tags.get("creation_time", "").split(";"))[1:] == time[:1]:  # FFmpeg 9 reads it from MP4's header and from its list
            tags["creation_time"] = time[0]
        return tags, chapters, lines, timecode


def test_matroska_keeps_all_of_it(tmp_path):
    source = open_source(film(tmp_path / "in.mkv"))
    with open_sink(tmp_path / "out.mkv", source.info, audio=source) as sink:
        for chunk in source.chunks():
            sink.write(chunk.frames, chunk.starts, chunk.ends)
    assert sink.warnings == []
    tags, chapters, lines, timecode = described(sink.path)
    assert TAGS.items() <= tags.items() and timecode == "01:00:00:00"
    assert chapters == [("one", 0, Fraction(1, 2)), ("two", Fraction(1, 2), 1)] and lines == SAID


FONT = b"\x00\x01\x00\x00 a font"


def attached(path):
    """Bytes of the cover pictures, and names and bytes of the attached files, by FFmpeg alone."""
    with av.open(str(path)) as container:
        covers = [stream for stream in container.streams.video if stream.disposition & Disposition.attached_pic]
        files = {stream.name: bytes(stream.data) for stream in container.streams if stream.type == "attachment"}
        return [bytes(packet) for packet in container.demux(covers) if packet.size] if covers else [], files


@pytest.mark.parametrize("kind", ["jpeg", "png"])
@pytest.mark.parametrize(
    "names, said",
    [
        (("in.mkv", "out.mkv"), ()),
        (("in.mkv", "between.mp4", "out.mkv"), ("the attached file font.ttf",)),
        (("in.mkv", "out.mp4"), ("the attached file font.ttf",)),
        (("in.mkv", "between.mp4", "out.mp4"), ("the attached file font.ttf",)),
        (("in.mkv", "out.mov"), ("its cover picture", "the attached file font.ttf")),
        (("in.mkv", "out.webm"), ("its cover picture", "the attached file font.ttf")),
    ],
)
def test_cover_pictures_and_attached_files_are_kept_or_said(tmp_path, kind, names, said):
    if not hasattr(av.container.OutputContainer, "add_attachment"):
        pytest.skip("this PyAV attaches no files")
    picture = io.BytesIO()
    Image.new("RGB", (40, 60), (200, 10, 10)).save(picture, kind)
    with av.open(str(tmp_path / names[0]), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height = 64, 48
        out.add_attachment("font.ttf", "application/x-truetype-font", FONT)
        out.add_attachment("cover." + kind[:3].replace("jpe", "jpg"), f"image/{kind}", picture.getvalue())
        for number in range(5):
            out.mux(video.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * number, np.uint8), format="rgb24")))
        out.mux(video.encode(None))
    warnings = []
    for before, after in pairwise(names):
        source = open_source(tmp_path / before)
        with open_sink(tmp_path / after, source.info, audio=source, codec="vp9" if after.endswith(".webm") else "h264") as sink:
            warnings += sink.warnings
            for chunk in source.chunks():
                sink.write(chunk.frames, chunk.starts, chunk.ends)
    assert warnings == ([f"{tmp_path / names[1]} will not have: {'; '.join(said)}; an .mkv file keeps more"] if said else [])
    covers, files = attached(tmp_path / names[-1])
    assert covers == ([] if "its cover picture" in said else [picture.getvalue()])
    assert files == ({} if said else {"font.ttf": FONT})
    assert len(read_frames(tmp_path / names[-1])[0]) == 5


def test_cover_pictures_that_are_lost_are_counted():
    covers = Companions(covers=("png", "mjpeg", ""))
    assert [covers.losses(container) for container in ("mp4", "mov")] == [["its cover picture"], ["its 3 cover pictures"]]


@pytest.mark.parametrize("suffix, codec", [(".mp4", "h264"), (".webm", "vp9"), (".mov", "h264")])
def test_a_container_without_a_place_for_subtitles_says_so_first(tmp_path, suffix, codec):
    source = open_source(film(tmp_path / "in.mkv"))
    sink = open_sink(tmp_path / f"out{suffix}", source.info, audio=source, codec=codec)
    assert sink.warnings == [f"{sink.path} will not have: subtitle track 1 (subrip, fra); an .mkv file keeps more"]
    with sink:
        for chunk in source.chunks():
            sink.write(chunk.frames, chunk.starts, chunk.ends)
    tags, chapters, lines, timecode = described(sink.path)
    assert TAGS.items() <= tags.items() and len(chapters) == 2 and timecode == "01:00:00:00"
    assert not {line[0] for line in lines} & {line[0] for line in SAID}


@pytest.mark.parametrize("suffix, kept", [(".mp4", False), (".mov", False), (".mkv", True)])
def test_a_timecode_that_cannot_be_counted_is_left_out_and_costs_no_clip(tmp_path, suffix, kept):
    """FFmpeg writes no timecode track of more than 255 frames a second, and fails at the end of the work."""
    source = open_source(save(tmp_path / "in.mkv", moving(3), FrameTimes.constant(3, 500), metadata={"timecode": "01:00:00:00"}))
    with open_sink(tmp_path / f"out{suffix}", source.info, audio=source) as sink:
        assert [("its timecode 01:00:00:00" in sentence) for sentence in sink.warnings] == [True] * (not kept)
        for chunk in source.chunks():
            sink.write(chunk.frames, chunk.starts, chunk.ends)
    with av.open(str(sink.path)) as container:
        assert container.metadata.get("TIMECODE") == ("01:00:00:00" if kept else None)


def test_raw_dv_has_the_rate_of_its_frames(tmp_path):
    """Its header knows no more than a clock of 60 kHz, and it has a timecode."""
    with av.open(str(tmp_path / "tape.dv"), "w") as out:
        video = out.add_stream("dvvideo", rate=25)
        video.width, video.height, video.pix_fmt = 720, 576, "yuv420p"
        for _ in range(2):
            out.mux(video.encode(av.VideoFrame.from_ndarray(np.full((864, 720), 128, np.uint8), format="yuv420p")))
        out.mux(video.encode(None))
    source = open_source(tmp_path / "tape.dv")
    assert (source.info.rate, source.expected) == (25, 2)
    assert open_source(copy(source, tmp_path / "tape.mp4")).times().durations == (Fraction(1, 25),) * 2


def test_images_say_all_that_they_leave_out(tmp_path):
    source = open_source(film(tmp_path / "in.mkv"))
    sink = open_sink(tmp_path / "frames", source.info, audio=source)
    sink.abort()
    (sentence,) = sink.warnings
    assert all(word in sentence for word in ("subtitle track 1", "2 chapters", "title", "artist", "01:00:00:00"))


@pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov+delay_moov", "faststart"])
def test_chapters_that_are_kept_are_no_lost_data(tmp_path, flags):
    """MP4 also has them as a track of text, which a fragmented file's header says nothing of."""
    path = film(tmp_path / "in.mp4", subtitles=None, timecode=None, options={"movflags": flags})
    with open_sink(tmp_path / "out.mp4", open_source(path).info) as sink:
        assert sink.warnings == [] and len(sink.companions.chapters) == 2
        sink.abort()


def test_a_part_has_its_own_chapters_subtitles_and_timecode(tmp_path):
    """Of frames 10 to 19: 0.4 s to 0.8 s."""
    source = open_source(film(tmp_path / "in.mkv"), start=10, count=10)
    _, chapters, lines, timecode = described(copy(source, tmp_path / "out.mkv", audio=source))
    assert timecode == "01:00:00:10"
    assert chapters == [("one", 0, Fraction(1, 10)), ("two", Fraction(1, 10), Fraction(4, 10))]
    assert lines == [(b"Hello", 0, Fraction(1, 10)), (b"Bye", Fraction(2, 10), Fraction(2, 10))]


def test_a_time_that_ffmpeg_reads_twice_counts_once():
    assert clip_tags({"creation_time": "1999-05-01;1999-05-01", "comment": "a;b;a", "title": "la;la"}) == {
        "creation_time": "1999-05-01",
        "comment": "a;b;a",
        "title": "la;la",
    }


def test_tags_without_a_box_of_their_own_are_kept_in_mp4(tmp_path):
    tags = {**TAGS, "com.apple.quicktime.make": "Apple"}
    source = open_source(film(tmp_path / "in.mkv", tags=tags))
    assert tags.items() <= described(copy(source, tmp_path / "out.mp4"))[0].items()
    with open_sink(tmp_path / "named.mp4", source.info, metadata={"prompt": "{}", "title": "New"}) as sink:
        sink.write(moving(1), (Fraction(0),), (Fraction(1, 25),))
    assert {**tags, "prompt": "{}", "title": "New"}.items() <= described(sink.path)[0].items()


@pytest.mark.parametrize("codec", ["h264", "h265", "av1"])
def test_mastering_display_and_light_level_are_kept(tmp_path, codec):
    primaries = tuple((Fraction(x, 50_000), Fraction(y, 50_000)) for x, y in ((34000, 16000), (13250, 34500), (7500, 3000), (15635, 16450)))
    grading = Grading(primaries, (Fraction(1, 1000), Fraction(1000)), (1000, 400))
    like = SourceInfo(None, 64, 64, colour=ColourTags(9, False, 9, 16), grading=grading)
    found = open_source(save(tmp_path / "out.mp4", moving(3, 64, 64), like=like, codec=codec, pixel_format="yuv420p10le")).info.grading
    assert found.light == grading.light
    values = [value for pair in (*found.primaries, found.luminance) for value in pair]
    assert [float(value) for value in values] == pytest.approx([float(value) for pair in (*primaries, grading.luminance) for value in pair], rel=0.03)
    with open_sink(tmp_path / "grey.mkv", like, codec="ffv1", pixel_format="yuv420p10le") as sink:
        sink.write(moving(1, 64, 64), (Fraction(0),), (Fraction(1, 25),))
    assert any("HDR10 mastering display and light level" in sentence for sentence in sink.warnings)


@pytest.mark.parametrize(
    "layout, suffix, codec", [("quad", ".mp4", "h264"), ("5.1(side)", ".mp4", "h264"), ("4.0", ".mp4", "h264"), ("5.0", ".webm", "vp9")]
)
def test_channels_beyond_stereo_stay_apart(tmp_path, layout, suffix, codec):
    """Each channel has its own tone, and has it still after PCM became AAC or Opus."""
    path = tmp_path / "in.mkv"
    count = av.AudioLayout(layout).nb_channels
    seconds = np.arange(48000) / 48000
    tones = np.stack([np.sin(2 * np.pi * 200 * (channel + 2) * seconds) for channel in range(count)])
    with av.open(str(path), "w") as out:
        video, sound = out.add_stream("libx264", rate=25), out.add_stream("pcm_s16le", rate=48000, layout=layout)
        video.width, video.height = 64, 48
        for picture in moving(25):
            out.mux(video.encode(av.VideoFrame.from_ndarray((picture.permute(1, 2, 0).numpy() * 255).astype(np.uint8), format="rgb24")))
        heard = av.AudioFrame.from_ndarray(np.ascontiguousarray((tones * 9000).T.astype(np.int16).reshape(1, -1)), format="s16", layout=layout)
        heard.sample_rate = 48000
        out.mux(sound.encode(heard))
        for stream in (video, sound):
            out.mux(stream.encode(None))
    source = open_source(path)
    assert len(read_audio(source).waveform) == count
    track = read_audio(copy(source, tmp_path / f"out{suffix}", codec=codec, audio=source))
    spectra = np.abs(np.fft.rfft(track.waveform[:, 4000:44000].numpy())) if track else np.zeros((0, 1))
    heard = sorted(round(peak * 48000 / 40000 / 200) for peak in spectra[:, 50:].argmax(1) + 50)
    assert heard == ([2, 3, 4, 5, 6, 7][:count] if layout != "5.1(side)" else sorted(heard)) and len(heard) == count


def test_timecodes_count_frames():
    assert advance_timecode("01:00:00:00", 26, Fraction(25)) == "01:00:01:01"
    assert advance_timecode("00:09:59;29", 1, Fraction(30000, 1001)) == "00:10:00;00"
    assert advance_timecode("00:00:59;29", 1, Fraction(30000, 1001)) == "00:01:00;02"
    assert advance_timecode("23:59:59:24", 1, Fraction(25)) == "00:00:00:00"
    assert advance_timecode("odd", 1, Fraction(25)) == "odd"


# ---------------------------------------------------------------- the inputs that once lost it


def test_an_interview_keeps_its_companions(case, tmp_path):
    source = open_source(case("meta.mp4"))
    with open_sink(tmp_path / "out.mp4", source.info, audio=source, preset="ultrafast") as sink:
        for chunk in source.chunks():
            sink.write(chunk.frames, chunk.starts, chunk.ends)
    assert sink.warnings == []
    tags, chapters, lines, _ = described(sink.path)
    assert TAGS.items() <= tags.items() and [one[0] for one in chapters] == ["one", "two"]
    assert lines == [(b"Hello", Fraction(1, 10), Fraction(4, 10))]
    with av.open(str(sink.path)) as container:
        assert [stream.metadata["language"] for stream in container.streams.audio] == ["eng", "deu"]
    sink = open_sink(tmp_path / "out.mkv", source.info, audio=source)
    sink.abort()
    assert sink.warnings == [f"{tmp_path / 'out.mkv'} will not have: subtitle track 1 (mov_text, fra)"]


def test_a_graded_clip_keeps_its_grading(case, tmp_path):
    source = open_source(case("pq.mp4"))
    out = copy(source, tmp_path / "out.mp4", codec="h265", pixel_format="yuv420p10le")
    with av.open(str(out)) as container:
        data = next(container.decode(video=0)).side_data
        assert data.get("MASTERING_DISPLAY_METADATA") is not None and data.get("CONTENT_LIGHT_LEVEL") is not None
    assert open_source(out).info.grading.light == (1000, 400)


def test_sound_of_an_unknown_codec_is_said_to_be_left_out(case, tmp_path):
    source = open_source(case("apac2.mov"))
    sink = open_sink(tmp_path / "out.mp4", source.info, audio=source)
    sink.abort()
    assert sink.warnings == [f"{tmp_path / 'out.mp4'} will not have: sound track 2, whose codec is not known here"]
