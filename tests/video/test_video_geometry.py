"""Rotation, pixel aspect and odd sizes: what is shown does not change."""

from __future__ import annotations

from fractions import Fraction

import av
import pytest
from helpers.video_helpers import moving, psnr, save
from hypothesis import given, settings
from hypothesis import strategies as st

from fvr.video import SourceInfo, VideoError, open_sink, open_source, probe, read_frames


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_rotation_makes_the_round_trip(tmp_path, rotation, suffix):
    """The same flag, the same stored size, the same upright picture; FFmpeg itself reads the flag."""
    frames = moving(3, 48, 80)
    like = SourceInfo(None, 80, 48, rotation=rotation)
    path = save(tmp_path / f"clip{suffix}", frames, like=like, crf=1, pixel_format="yuv444p")
    info = probe(path)
    assert (info.width, info.height, info.rotation) == (80, 48, rotation)
    with av.open(str(path)) as container:
        raw = next(container.decode(video=0))
        assert (raw.height, raw.width) == ((80, 48) if rotation % 180 else (48, 80))
        assert raw.rotation % 360 == rotation % 360
    assert psnr(read_frames(path)[0], frames) > 40


@pytest.mark.parametrize(
    ("name", "codec", "kept"),
    [
        ("a.mp4", "h264", True),
        ("a.mkv", "h264", True),
        ("a.mkv", "h265", True),
        ("a.mp4", "vp9", True),
        ("a.mkv", "ffv1", False),
        ("a.webm", "vp9", False),
    ],
)
def test_pixels_that_are_not_square_are_kept_or_it_is_said(tmp_path, name, codec, kept):
    like = SourceInfo(None, 64, 64, sample_aspect=Fraction(16, 11))
    with open_sink(tmp_path / name, like, codec=codec) as sink:
        sink.write(moving(2, 64, 64), [Fraction(0), Fraction(1, 25)], [Fraction(1, 25), Fraction(2, 25)])
    assert (probe(tmp_path / name).sample_aspect == Fraction(16, 11)) == kept
    assert [sentence for sentence in sink.warnings if "squeezed" in sentence] == ([] if kept else sink.warnings[-1:]) and kept == (not sink.warnings)


def test_the_flagged_clip_stands_upright(shared, tmp_path):
    """Stored 908x480, shown 480x908, before and after; the flag is written again."""
    source = open_source(shared("edge_rotation90_flag.mp4"), count=5)
    with open_sink(tmp_path / "out.mp4", source.info, preset="ultrafast", crf=10) as sink:
        for chunk in source.chunks():
            sink.write(chunk.frames, chunk.starts, chunk.ends)
    after = open_source(tmp_path / "out.mp4")
    assert (after.info.width, after.info.height, after.info.rotation) == (480, 908, -90)
    assert psnr(read_frames(after)[0], read_frames(source)[0]) > 38


def test_a_container_without_the_flag_gets_upright_pixels(tmp_path):
    frames = moving(2, 48, 80)
    like = SourceInfo(None, 80, 48, rotation=-90, sample_aspect=Fraction(4, 3))
    with open_sink(tmp_path / "clip.mkv", like, preset="ultrafast", crf=5) as sink:
        sink.write(frames, (Fraction(0), Fraction(1)), (Fraction(1), Fraction(2)))
    info = probe(tmp_path / "clip.mkv")
    assert (info.width, info.height, info.rotation, info.sample_aspect) == (80, 48, 0, Fraction(4, 3))
    assert len(sink.warnings) == 1
    assert psnr(read_frames(tmp_path / "clip.mkv")[0], frames) > 30


@pytest.mark.parametrize("rotation", [0, 90])
@pytest.mark.parametrize("aspect", [Fraction(389, 388), Fraction(4, 3), Fraction(1, 2)])
def test_pixel_aspect_is_kept(tmp_path, rotation, aspect):
    like = SourceInfo(None, 64, 48, rotation=rotation, sample_aspect=aspect)
    assert probe(save(tmp_path / "clip.mp4", moving(2), like=like)).sample_aspect == aspect


def test_old_footage_keeps_its_pixel_aspect(shared, tmp_path):
    info = probe(shared("degraded_single_388x512.mp4"))
    assert info.sample_aspect == Fraction(389, 388)
    assert probe(save(tmp_path / "clip.mp4", moving(2, 512, 388), like=info)).sample_aspect == Fraction(389, 388)


CHOICES = [("h264", ".mp4", None), ("h264", ".mov", "yuv420p10le"), ("h264", ".mkv", None), ("h265", ".mp4", None), ("av1", ".mp4", None)]
CHOICES += [("vp9", ".webm", None), ("prores", ".mov", None), ("ffv1", ".mkv", None), ("h264", ".mp4", "yuv422p")]


@settings(max_examples=25, deadline=None)
@given(height=st.integers(16, 70), width=st.integers(16, 70), choice=st.sampled_from(CHOICES), rotation=st.sampled_from([0, -90, 180]))
def test_any_size_is_shown_as_it_is(tmp_path_factory, height, width, choice, rotation):
    """(H, W) out of the file equals (H, W) in, to the pixel, and nothing moves: the last row and column are still the last."""
    codec, suffix, pixel_format = choice
    if codec in ("h265", "av1"):
        height, width = height + 48, width + 48
    frames = moving(2, height, width)
    like = SourceInfo(None, width, height, rotation=rotation)
    path = save(tmp_path_factory.mktemp("odd") / f"clip{suffix}", frames, like=like, codec=codec, pixel_format=pixel_format, crf=8)
    seen, _ = read_frames(path)
    assert seen.shape == frames.shape
    assert psnr(seen, frames) > 28
    assert (seen[..., -1] - frames[..., -1]).abs().mean() < 0.05
    assert (seen[..., -1, :] - frames[..., -1, :]).abs().mean() < 0.05


@pytest.mark.parametrize("height, width", [(66, 81), (81, 66), (81, 81)])
@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_the_last_odd_row_and_column_are_there(tmp_path, height, width, choice):
    """As good as the rest of the picture."""
    codec, suffix, pixel_format = choice
    frames = moving(2, height, width)
    seen, _ = read_frames(save(tmp_path / f"clip{suffix}", frames, codec=codec, pixel_format=pixel_format, crf=8))
    assert min(psnr(seen, frames), psnr(seen[..., -1], frames[..., -1]), psnr(seen[..., -1, :], frames[..., -1, :])) > 28


def test_an_odd_h264_file_stays_playable(tmp_path):
    """4:2:0 for browsers, coded even, announced odd by the container."""
    path = save(tmp_path / "clip.mp4", moving(3, 35, 33))
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert (frame.width, frame.height, frame.format.name) == (33, 35, "yuv420p")


@pytest.mark.parametrize("codec", ["h265", "av1"])
def test_a_picture_too_small_for_the_encoder_is_refused(tmp_path, codec):
    """Seen with PyAV 18's builds: x265 corrupts memory on some sizes below 64, SVT-AV1 never returns on others."""
    with pytest.raises(VideoError, match="at least 64x64"):
        save(tmp_path / "clip.mp4", moving(2, 68, 23), codec=codec)
    assert not list(tmp_path.iterdir())
