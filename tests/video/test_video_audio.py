"""Sound stays with the picture: beeps on whole seconds are found again where they belong."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from helpers.video_helpers import beep_times, beeps, copy, moving, packets, save

from fvr.cli.batch import named_outputs
from fvr.video import AudioTrack, FrameTimes, SourceInfo, VideoError, open_sink, open_source, probe, read_audio

FRAME = 1 / 25


def on_whole_seconds(times: list[float], tolerance: float = FRAME) -> bool:
    return bool(times) and all(abs(t - round(t)) < tolerance for t in times)


@pytest.fixture(scope="module")
def tone(tmp_path_factory):
    """Four seconds at 25 frames a second with a beep at 1, 2 and 3 seconds."""
    path = tmp_path_factory.mktemp("tone") / "tone.mp4"
    return save(path, moving(100, 32, 32), audio=AudioTrack(beeps(4), 48000))


def test_a_waveform_is_encoded_in_sync(tone):
    assert len(beep_times(tone)) == 3 and on_whole_seconds(beep_times(tone), 0.01)


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_untouched_sound_is_copied_bit_by_bit(tone, tmp_path, suffix):
    source = open_source(tone)
    assert packets(copy(source, tmp_path / f"copy{suffix}", audio=source)) == packets(tone)


def test_sound_that_is_no_number_is_refused_before_the_work():
    """FFmpeg's encoder refuses it with its last packet, when all frames are written."""
    with pytest.raises(VideoError, match="no numbers"):
        AudioTrack(torch.tensor([[0.0, float("nan")]]), 8000)


def test_the_sound_of_television_and_discs_is_copied_into_matroska(tmp_path):
    """MPEG-1 layer 2, as DVB and DVD have it."""
    with av.open(str(tmp_path / "tv.ts"), "w") as out:
        picture, sound = out.add_stream("mpeg2video", rate=25), out.add_stream("mp2", rate=48000)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        for number in range(10):
            out.mux(picture.encode(av.VideoFrame.from_ndarray(np.full((72, 64), 100 + number, np.uint8), format="yuv420p")))
            block = av.AudioFrame.from_ndarray((beeps(0.04) * 9000).short().numpy().T.reshape(1, -1).copy(), format="s16", layout="stereo")
            block.sample_rate, block.pts = 48000, number * 1920
            out.mux(sound.encode(block))
        for stream in (picture, sound):
            out.mux(stream.encode(None))
    source = open_source(tmp_path / "tv.ts")
    copied = copy(source, tmp_path / "copy.mkv", audio=source)
    assert [data for _, data in packets(copied)] == [data for _, data in packets(tmp_path / "tv.ts")]


def samples(path):
    """All samples of a file's first sound track, by FFmpeg alone."""
    with av.open(str(path)) as container:
        return np.concatenate([np.atleast_2d(frame.to_ndarray()) for frame in container.decode(audio=0)], 1)


@pytest.mark.parametrize(
    ("codec", "before", "after"),
    [
        ("pcm_u8", ".avi", ".mkv"),
        ("pcm_u8", ".avi", ".mov"),
        ("pcm_s8", ".mov", ".mov"),
        ("pcm_s16be", ".mov", ".mkv"),
        ("pcm_s32le", ".mkv", ".mov"),
        ("pcm_f32be", ".mov", ".mov"),
        ("pcm_f64le", ".mkv", ".mkv"),
        ("pcm_alaw", ".avi", ".mov"),
        ("pcm_mulaw", ".mov", ".mov"),
        ("adpcm_ima_qt", ".mov", ".mov"),
        ("wavpack", ".mkv", ".mkv"),
        ("tta", ".mkv", ".mkv"),
        ("alac", ".mkv", ".mp4"),
        ("alac", ".mkv", ".mov"),
    ],
)
def test_sound_without_loss_stays_without_loss(tmp_path, codec, before, after):
    """To the last sample, also where packets do not say how long they last."""
    path = tmp_path / f"in{before}"
    with av.open(str(path), "w") as out:
        video, audio = out.add_stream("mpeg4", rate=25), out.add_stream(codec, rate=16000, layout="mono")
        video.width = video.height = 32
        video.pix_fmt = "yuv420p"
        for index in range(20):
            out.mux(video.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), index, np.uint8), format="rgb24")))
        resampler = av.AudioResampler(audio.codec_context.format.name, "mono", 16000, frame_size=audio.codec_context.frame_size or 1024)
        frame = av.AudioFrame.from_ndarray((beeps(0.8, 16000, 0.7)[:1] * 0.9).numpy(), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        for block in (*resampler.resample(frame), *resampler.resample(None)):
            out.mux(audio.encode(block))
        out.mux(audio.encode(None))
        out.mux(video.encode(None))
    source = open_source(path)
    copied = copy(source, tmp_path / f"out{after}", audio=source)
    assert np.array_equal(samples(copied), samples(path)) and samples(path).std() > 0
    assert probe(copied).audio_streams[0].codec == codec


def test_the_shared_clip_beeps_on_whole_seconds(shared, tmp_path):
    """The Proof's measure, through a whole copy and through a part that starts at second 1.5 (beeps move to .5)."""
    name = shared("clean_face_480_tone.mp4")
    before = beep_times(name)
    whole = open_source(name)
    assert beep_times(copy(whole, tmp_path / "whole.mp4", audio=whole)) == pytest.approx(before, abs=0.002)
    part = open_source(name, start=45, stop=110)
    after = beep_times(copy(part, tmp_path / "part.mp4", audio=part))
    assert after == pytest.approx([0.5, 1.5], abs=1 / 30)


@pytest.mark.parametrize("suffix, codec, sound", [(".mkv", "h264", "aac"), (".webm", "vp9", "opus"), (".mov", "prores", "aac")])
@pytest.mark.parametrize("start", [0, 30])
def test_other_containers_stay_in_sync(tone, tmp_path, suffix, codec, sound, start):
    """Copied where the container takes AAC, Opus in WebM; a cut at second 1.2 moves the beeps to .8."""
    source = open_source(tone, start=start)
    path = copy(source, tmp_path / f"clip{suffix}", codec=codec, audio=source)
    assert probe(path).audio_streams[0].codec == sound
    shifted = [t + start / 25 for t in beep_times(path)]
    assert len(shifted) == (3 if start == 0 else 2) and on_whole_seconds(shifted)


@pytest.mark.parametrize("origin", [Fraction(0), Fraction(3, 10)])
def test_a_picture_that_begins_late_keeps_its_distance_to_the_sound(tmp_path, origin):
    """Video from 0.3 s, audio from 0: after two copies the beeps are still on whole seconds and the frames where they were."""
    times = FrameTimes.constant(75, 25).shifted(origin)
    like = SourceInfo(None, 32, 32, start=origin, time_base=Fraction(1, 12800))
    first = save(tmp_path / "first.mp4", moving(75, 32, 32), times, like, audio=AudioTrack(beeps(4, start=float(origin)), 48000))
    source = open_source(first)
    second = copy(source, tmp_path / "second.mp4", audio=source)
    assert open_source(second).times().starts == times.starts
    assert on_whole_seconds(beep_times(first)) and beep_times(second) == pytest.approx(beep_times(first), abs=0.002)


@pytest.mark.parametrize("codec", ["pcm_s16le", "mp2"])
def test_sound_that_the_container_refuses_is_encoded_anew(tmp_path, codec):
    """What MP4 does not take becomes AAC there, which is said, cut to the frames and in sync; of a folder's clips it chooses where they go."""
    path = tmp_path / "clip.avi"
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width = video.height = 32
        audio = out.add_stream(codec, rate=44100, layout="stereo")
        for index in range(100):
            out.mux(video.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), index, np.uint8), format="rgb24")))
        block = (beeps(4, 44100).numpy().T * 32767).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="s16", layout="stereo")
        frame.sample_rate, frame.pts = 44100, 0
        out.mux(audio.encode(frame))
        out.mux(video.encode(None))
        out.mux(audio.encode(None))
    source = open_source(path, start=10, stop=60)
    sink = open_sink(tmp_path / "out.mp4", source.info, audio=source)
    sink.abort()
    assert sink.warnings == [f"{sink.path} will not have: sound track 1 as {codec} (AAC is written); an .mkv file keeps more"]
    assert named_outputs([path], tmp_path / "copies", None, False) == [tmp_path / "copies" / "clip.mkv"]
    after = copy(source, tmp_path / "out.mp4", audio=source)
    info = probe(after)
    assert (info.audio_streams[0].codec, info.audio_streams[0].rate) == ("aac", 44100)
    assert beep_times(after) == pytest.approx([0.6, 1.6], abs=FRAME)
    assert float(info.audio_streams[0].duration or 0) == pytest.approx(2, abs=0.06)


def test_trimmed_sound_ends_with_the_frames(tone, tmp_path):
    source = open_source(tone, stop=50)
    for audio in (source, source.info):
        info = probe(copy(source, tmp_path / "clip.mp4", audio=audio, overwrite=True))
        assert float(info.audio_streams[0].duration or 0) == pytest.approx(2, abs=0.05)


def test_sound_read_for_a_range_starts_with_its_first_frame(tone):
    """Sample 0 belongs to the first frame: from frame 40 (1.6 s) the beeps are at 0.4 and 1.4 s."""
    times = open_source(tone, start=40).times()
    track = read_audio(tone, times)
    assert track is not None
    assert track.waveform.shape[1] == pytest.approx(float(times.duration) * track.rate, abs=1)
    loud = track.waveform[0].abs() > 0.1
    first = int(torch.nonzero(loud)[0, 0]) / track.rate
    assert first == pytest.approx(0.4, abs=0.005)


def test_a_silent_clip_has_no_sound(tmp_path):
    path = save(tmp_path / "silent.mp4", moving(3))
    assert read_audio(path) is None
    source = open_source(path)
    assert not probe(copy(source, tmp_path / "out.mp4", audio=source)).audio


@pytest.mark.parametrize("channels, rate", [(1, 16000), (6, 48000), (2, 37000)])
def test_any_waveform_can_be_stored(tmp_path, channels, rate):
    """Rates that AAC does not have are resampled; the beep stays on its second."""
    track = AudioTrack(beeps(2, rate)[:1].expand(channels, -1), rate)
    path = save(tmp_path / "clip.mp4", moving(50, 32, 32), audio=track)
    assert beep_times(path) == pytest.approx([1.0], abs=0.01)


def test_a_waveform_without_channels_is_refused():
    with pytest.raises(VideoError, match="channels"):
        AudioTrack(torch.zeros(100), 48000)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".webm"])
def test_sound_that_an_edit_list_hides_stays_hidden(case, tmp_path, suffix):
    """Matroska has no such lists; copied packets may begin 30 ms early, not 521."""
    source = open_source(case("edit_list_cut.mp4"))
    shown = read_audio(source)
    again = read_audio(copy(source, tmp_path / f"out{suffix}", codec="vp9" if suffix == ".webm" else "h264", audio=source))
    assert float(again.duration - shown.duration) == pytest.approx(0, abs=0.03)
