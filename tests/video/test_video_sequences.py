"""Folders of images, in and out."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
from helpers.video_helpers import enormous, moving, save

from fvr.video import FrameTimes, VideoError, open_sink, open_source, probe, read_frames


def grey(path, level, size=(16, 24), channels=3, kind=np.uint8):
    cv2.imwrite(str(path), np.full((*size, channels) if channels > 1 else size, level, kind))


def test_numbers_sort_as_numbers(tmp_path):
    """frame2 comes before frame10, whatever the zeros."""
    for number in (10, 2, 1, 100, 9):
        grey(tmp_path / f"frame{number}.png", number)
    frames, times = read_frames(tmp_path)
    assert frames[:, 0, 0, 0].mul(255).round().tolist() == [1, 2, 9, 10, 100]
    assert times == replace(FrameTimes.constant(5, 25), source=times.source)


@pytest.mark.parametrize("rate", [25, 12.5, 29.97])
def test_the_rate_is_the_callers(tmp_path, rate):
    for number in range(4):
        grey(tmp_path / f"{number}.png", number)
    assert read_frames(tmp_path, rate=rate)[1].starts == FrameTimes.constant(4, rate).starts


def test_selection_is_a_slice(tmp_path):
    for number in range(12):
        grey(tmp_path / f"{number}.png", number)
    picks = [({"start": 3, "stride": 4}, [3, 7, 11]), ({"count": 2}, [0, 1]), ({"stop": 5, "stride": 3}, [0, 3])]
    for choice, want in [*picks, ({"window": (0.2, 0.12)}, [5, 6, 7])]:
        frames, times = read_frames(tmp_path, **choice)
        assert frames[:, 0, 0, 0].mul(255).round().tolist() == want
        assert times.starts == tuple(Fraction(n, 25) for n in want)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "jpg"])
def test_each_format_is_read(tmp_path, suffix):
    frames = moving(2, 40, 56)
    for number, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / f"{number}.{suffix}"), frame.permute(1, 2, 0).mul(255).round().numpy().astype(np.uint8)[..., ::-1])
    assert (read_frames(tmp_path)[0] - frames).abs().mean() * 255 < (3 if suffix in ("webp", "jpg") else 0.3)


def test_alpha_grey_and_sixteen_bits(tmp_path):
    """Alpha is dropped, grey spread over three channels, and 16 bits are not cut to 8."""
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([np.full((16, 24, 3), 100, np.uint8), np.zeros((16, 24), np.uint8)]))
    grey(tmp_path / "b.png", 100, channels=1)
    grey(tmp_path / "c.png", 100 * 257 + 60, kind=np.uint16)
    frames, _ = read_frames(tmp_path)
    assert torch.allclose(frames[:2], torch.tensor(100 / 255))
    assert torch.allclose(frames[2], torch.tensor((100 * 257 + 60) / 65535), atol=1e-6)


def test_one_image_is_a_clip_of_one_frame(tmp_path):
    grey(tmp_path / "portrait.png", 7)
    grey(tmp_path / "other.png", 8, size=(5, 5))
    frames, times = read_frames(tmp_path / "portrait.png")
    assert len(frames) == len(times) == 1 and times.duration == Fraction(1, 25)


def test_a_pattern_picks_its_files(tmp_path):
    for number in (1, 2):
        grey(tmp_path / f"left_{number:04d}.png", number)
        grey(tmp_path / f"right_{number:04d}.png", 50)
    assert read_frames(tmp_path / "left_%04d.png")[0][:, 0, 0, 0].mul(255).round().tolist() == [1, 2]


def test_other_files_in_the_folder_are_ignored(tmp_path):
    grey(tmp_path / "0.png", 3)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.png").write_bytes(b"x")
    assert len(read_frames(tmp_path)[1]) == 1


def test_faults_are_named(tmp_path):
    with pytest.raises(VideoError, match="holds no image"):
        open_source(tmp_path)
    grey(tmp_path / "0.png", 1)
    grey(tmp_path / "1.png", 1, size=(16, 16))
    with pytest.raises(VideoError, match=r"1\.png is 16x16 but 0\.png is 24x16"):
        read_frames(tmp_path)
    (tmp_path / "1.png").write_bytes(b"rubbish")
    with pytest.raises(VideoError, match=r"1\.png cannot be read as an image"):
        read_frames(tmp_path)


@pytest.mark.parametrize("name, pixel_format, step", [("frames", None, 255), ("frames", "rgb48", 65535), ("frames_%03d.tif", "rgb48", 65535)])
def test_frames_written_as_images_come_back(tmp_path, name, pixel_format, step):
    """Up to rounding to 8 or 16 bits, in order."""
    frames = moving(11, 17, 23)
    target = tmp_path / "shots" / name if "%" in name else tmp_path / name
    save(target, frames, pixel_format=pixel_format, preset=None)
    assert (read_frames(target)[0] - frames).abs().max() <= 0.51 / step


@pytest.mark.parametrize(
    "selection, kept", [({}, [0, 1, 4, 5]), ({"start": 1, "stride": 2}, [1, 5]), ({"window": (Fraction(1, 25), None)}, [1, 4, 5])]
)
def test_images_keep_their_depth_and_their_numbers(tmp_path, selection, kept):
    """Of a copy frame 1005 is the source's frame 1005, also where images are missing, in all its bits."""
    levels = {1001 + n: np.full((8, 8, 3), 30001 + n, np.uint16) for n in (0, 1, 4, 5)}
    for number, pixels in levels.items():
        cv2.imwrite(str(tmp_path / f"shot_v2_{number}.tif"), pixels)
    for output in ("out", "out/graded.%04d.png"):
        source = open_source(tmp_path / "shot_v2_%d.tif", **selection)
        with open_sink(tmp_path / output, source.info, audio=source) as sink:
            for chunk in source.chunks(3):
                sink.write(chunk.frames)
        assert not sink.warnings
    names = ["{:06d}.png", "graded.{:04d}.png"]
    expected = {name.format(1001 + n): 30001 + n for name in names for n in kept}
    assert {file.name: cv2.imread(str(file), cv2.IMREAD_UNCHANGED).max() for file in (tmp_path / "out").iterdir()} == expected


def test_a_sequence_becomes_a_video_with_its_rate_and_colours(tmp_path):
    frames = (moving(6, 30, 40) * 255).round() / 255
    folder = save(tmp_path / "frames", frames, preset=None)
    source = open_source(folder, rate=12.5)
    with open_sink(tmp_path / "clip.mp4", source.info, crf=2, pixel_format="yuv444p", audio=source, preset="ultrafast") as sink:
        for chunk in source.chunks():
            sink.write(chunk.frames, chunk.starts, chunk.ends)
    seen, times = read_frames(tmp_path / "clip.mp4")
    assert times.starts == FrameTimes.constant(6, 12.5).starts
    assert (seen - frames).mean((0, 2, 3)).abs().max() * 255 < 0.7
    assert probe(tmp_path / "clip.mp4").colour.matrix == 1


def test_an_image_that_claims_to_be_enormous_is_one_sentence(tmp_path):
    path = enormous(tmp_path / "a.bmp")
    with pytest.raises(VideoError, match=r"a\.bmp cannot be read as an image"):
        open_source(path)


@pytest.mark.skipif(os.name != "posix", reason="needs limits of POSIX")
def test_images_on_a_full_disk_are_one_sentence_and_leave_nothing(tmp_path):
    """The limit on the size of files stands for the full disk: writing fails, and only then."""
    import resource

    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, before[1]))
        with (
            pytest.raises(VideoError, match=r"frames/000000\.png could not be written \(File too large\); make room"),
            open_sink(tmp_path / "frames") as sink,
        ):
            sink.write(noise, (Fraction(0),), (Fraction(1),))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())
