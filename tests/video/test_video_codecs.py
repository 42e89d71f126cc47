"""Every codec in every container it may go into, and one clear sentence for the rest."""

from __future__ import annotations

import io

import av
import pytest
import torch
import torch.nn.functional as F
from helpers.video_helpers import moving, psnr, save

from fvr.demo import moving_portrait
from fvr.video import CODECS, FrameTimes, VideoError, open_sink, probe, read_frames

SUFFIX = {"mp4": ".mp4", "mov": ".mov", "matroska": ".mkv", "webm": ".webm"}
PAIRS = [(name, container) for name, codec in CODECS.items() for container in sorted(codec.containers)]
DECODED = {"h265": "hevc"}


@pytest.mark.parametrize("name, container", PAIRS)
def test_each_pair_keeps_the_picture(tmp_path, name, container):
    frames = moving(4, 64, 80)
    path = save(tmp_path / f"clip{SUFFIX[container]}", frames, codec=name, crf=10)
    assert probe(path).codec == DECODED.get(name, name)
    assert psnr(read_frames(path)[0], frames) > 32


@pytest.mark.parametrize("name", list(CODECS))
def test_each_pixel_format_is_what_was_asked(tmp_path, name):
    codec = CODECS[name]
    container = SUFFIX[sorted(codec.containers)[0]]
    for pixel_format in codec.pixel_formats:
        path = save(tmp_path / f"clip{container}", moving(2, 64, 64), codec=name, pixel_format=pixel_format, overwrite=True)
        seen = probe(path).pix_fmt
        assert seen == pixel_format or (name == "prores" and seen == pixel_format.replace("10", "12"))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_shortest_clips_can_be_written(tmp_path, count):
    """x265 invents decoding times for clips shorter than its reordering; a quarter of such files failed before we set them."""
    for _ in range(6):
        path = save(tmp_path / "clip.mp4", moving(count, 64, 64), codec="h265", preset="medium", overwrite=True)
        assert read_frames(path)[1].starts == FrameTimes.constant(count, 25).starts


def test_quality_is_a_choice(tmp_path):
    """A smaller crf gives a better picture and a larger file."""
    frames = moving(8, 96, 96)
    fine, coarse = (save(tmp_path / f"{crf}.mp4", frames, crf=crf) for crf in (5, 45))
    assert fine.stat().st_size > coarse.stat().st_size
    assert psnr(read_frames(fine)[0], frames) > psnr(read_frames(coarse)[0], frames) + 6


def test_the_default_plays_in_browsers(tmp_path):
    """H.264 in 8-bit 4:2:0, with the index before the pictures."""
    path = save(tmp_path / "clip.mp4", moving(3))
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    info = probe(path)
    assert (info.codec, info.pix_fmt) == ("h264", "yuv420p")


def test_tags_can_be_written(tmp_path):
    path = save(tmp_path / "clip.mp4", moving(2), metadata={"prompt": '{"1": "FVR"}', "title": "a clip"})
    with av.open(str(path)) as container:
        assert container.metadata["prompt"] == '{"1": "FVR"}' and container.metadata["title"] == "a clip"


def test_bytes_in_memory_are_written_when_complete(tmp_path):
    frames = moving(3)
    data = io.BytesIO()
    save(data, frames, container="mp4")
    assert psnr(read_frames(data)[0], frames) > 30


@pytest.mark.parametrize(
    "name, choices, words",
    [
        ("clip.mp4", {"codec": "prores"}, "prores does not go into mp4"),
        ("clip.webm", {"codec": "h264"}, "h264 does not go into webm"),
        ("clip.mp4", {"codec": "h266"}, "codec must be one of"),
        ("clip.mp4", {"pixel_format": "rgb24"}, "takes pixel formats"),
        ("clip.mov", {"codec": "prores", "pixel_format": "yuv420p"}, "takes pixel formats"),
        ("clip.mp4", {"crf": 52}, "crf must be"),
        ("clip.mp4", {"preset": "warp"}, "preset must be"),
        ("clip.xyz", {}, "container '.xyz'"),
        ("clip.png", {}, "names one image"),
        ("missing/clip.mp4", {}, "is not a folder"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is(tmp_path, name, choices, words):
    with pytest.raises(VideoError, match=words):
        open_sink(tmp_path / name, **choices)
    assert not list(tmp_path.iterdir())


def test_a_missing_encoder_is_named(tmp_path, monkeypatch):
    """PyAV builds differ; the sentence names the encoders looked for."""
    codec = type(CODECS["av1"])("av1", ("libnothing",), CODECS["av1"].containers, ("yuv420p",))
    monkeypatch.setitem(CODECS, "av1", codec)
    with pytest.raises(VideoError, match=r"no encoder for av1 \(libnothing\)"):
        open_sink(tmp_path / "clip.mp4", codec="av1")


def test_the_same_frames_give_the_same_file_every_time(tmp_path):
    """At a width, and with the kind of picture, where x264 is known to slip without our options."""
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    blurred = F.avg_pool2d(moving_portrait(5), 5, 1, 2, count_include_pad=False)
    frames = (blurred + 0.03 * torch.randn(blurred.shape, generator=torch.Generator().manual_seed(5))).clamp(0, 1)
    files = [save(tmp_path / f"{n}.mp4", frames, crf=17) for n in range(8)]
    assert len({file.read_bytes() for file in files}) == 1


@pytest.mark.parametrize("moment", [1, 20, 26])
def test_every_frame_that_is_written_can_be_interrupted(tmp_path, moment):
    """Those too that the encoder holds back until the file is closed; nothing is left."""
    beats = []

    def check_interrupt():
        beats.append(1)
        if len(beats) == moment:
            raise KeyboardInterrupt

    frames, times = moving(24, 64, 64), FrameTimes.constant(24, 25)
    with pytest.raises(KeyboardInterrupt), open_sink(tmp_path / "clip.mp4", check_interrupt=check_interrupt) as sink:
        sink.write(frames, times.starts, times.ends)
    assert sink.count == min(moment - 1, 24) and not list(tmp_path.iterdir())
