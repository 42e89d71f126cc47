"""Clips that are no files keep their sound: bytes in memory, and frames with samples beside them."""

from __future__ import annotations

import io
from fractions import Fraction

import pytest
import torch
from helpers.video_helpers import beep_times, beeps, moving, packets, save

from fvr import host
from fvr.nodes.video import LoadVideoFrames, SaveVideoFrames
from fvr.video import AudioTrack, FramesSource, FrameTimes, Selection, open_sink, open_source, read_audio, read_frames


@pytest.fixture(scope="module")
def tone(tmp_path_factory):
    """Three seconds at 25 frames a second with a beep at 1 and 2 seconds."""
    path = tmp_path_factory.mktemp("tone") / "tone.mp4"
    return save(path, moving(75, 32, 32), audio=AudioTrack(beeps(3), 48000))


@pytest.mark.parametrize("first", [0, 10])
def test_times_of_bytes_in_memory_keep_the_sound(tone, tmp_path, first):
    """Copied bit by bit; cut where the frames are cut."""
    frames, times = read_frames(io.BytesIO(tone.read_bytes()))
    assert times.source is not None and times.source.audio
    out = save(tmp_path / "out.mp4", frames[first:], times[first:], times.source, audio=times.source)
    if first == 0:
        assert packets(out) == packets(tone)
    assert beep_times(out) == pytest.approx([t - first / 25 for t in beep_times(tone)], abs=0.002)


@pytest.mark.parametrize("first", [0, 10])
@pytest.mark.parametrize("start", [0, 20])
def test_samples_beside_frames_stay_with_them(tmp_path, first, start):
    """The clip begins at frame `start` of the frames given, and what is saved at frame `first` of that."""
    sound = AudioTrack(beeps(3), 48000)
    source = FramesSource(moving(75, 32, 32), FrameTimes.constant(75, 25), selection=Selection(start), sound=sound)
    frames, times = read_frames(source)
    begin = (start + first) / 25
    out = save(tmp_path / "out.mp4", frames[first:], times[first:], times.source, audio=times.source)
    assert beep_times(out) == pytest.approx([t - begin for t in (1, 2) if t > begin], abs=0.01)
    track = read_audio(source, times[first:])
    assert track is not None and torch.equal(track.waveform, sound.waveform[:, round(begin * 48000) :])


def test_frames_that_outlast_their_sound_are_silent_at_the_end(tmp_path):
    source = FramesSource(moving(75, 32, 32), FrameTimes.constant(75, 25), sound=AudioTrack(beeps(1), 48000))
    frames, times = read_frames(source)
    out = save(tmp_path / "out.mp4", frames[50:], times[50:], times.source, audio=times.source)
    assert len(open_source(out).times()) == 25


def test_frames_without_sound_can_be_copied(tmp_path):
    source = FramesSource(moving(5, 32, 32), FrameTimes.constant(5, 25))
    with open_sink(tmp_path / "out.mp4", source.info, audio=source) as sink:
        for chunk in source.chunks():
            sink.write(chunk.frames, chunk.starts, chunk.ends)
    assert not open_source(tmp_path / "out.mp4").info.audio and read_audio(source) is None


class Held:
    """A VIDEO whose file is bytes in memory, as ComfyUI hands it over."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def get_stream_source(self):
        return io.BytesIO(self.data)

    def get_active_trim_window(self):
        return 0.0, 0.0


def test_a_video_in_memory_goes_through_the_nodes_with_its_sound(tone, tmp_path):
    """Load Video Frames to Save Video Frames with only frames and times wired."""
    with host.workspace(output=tmp_path):
        loaded = LoadVideoFrames.execute(video=Held(tone.read_bytes()))
        saved = SaveVideoFrames.execute(frames=loaded.args[0], times=loaded.args[1])
    assert packets(saved.args[1]) == packets(tone)
    assert Fraction(loaded.args[1].end) == 3


def test_nodes_say_what_is_known_before_they_work(tmp_path, capsys):
    """On stderr here, on the node inside ComfyUI: the source's warnings, and the copy's."""
    path = save(tmp_path / "deep.mp4", moving(3), pixel_format="yuv420p10le")
    whole = path.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole + b"\0\0\xff\xffmdat")
    with host.workspace(input=tmp_path, output=tmp_path):
        frames, times, *_ = LoadVideoFrames.execute("cut.mp4").args
        assert "is cut short" in capsys.readouterr().err
        SaveVideoFrames.execute(frames, times=times)
    assert "10 bits per channel" in capsys.readouterr().err
