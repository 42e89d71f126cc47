"""The command line as a user meets it: a clip in, a clip out, one sentence when something is wrong."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from fvr import pipeline
from fvr.cli import main, sentence_of
from fvr.demo import moving_portrait
from fvr.film.executors import DiskFull
from fvr.video import AudioTrack, FrameTimes, open_sink, open_source, probe, read_frames

FAST = ["--method", "flair", "--weights", "none", "--set", "steps=2"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Six frames with a face, at a variable rate, with a tone."""
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    path = tmp_path_factory.mktemp("cli") / "in.mp4"
    starts = tuple(Fraction(n, 30) for n in (0, 1, 2, 4, 6, 7))
    tone = AudioTrack(torch.sin(torch.arange(16000 * 8 // 30) * 0.2)[None] * 0.3, 16000)
    with open_sink(path, None, size=(320, 320), audio=tone) as sink:
        sink.write(moving_portrait(6), starts, (*starts[1:], Fraction(8, 30)))
    return path


def test_restore_changes_nothing_but_the_face(clip, tmp_path, capsys):
    out, report = tmp_path / "out.mp4", tmp_path / "report.json"
    assert main(["restore", str(clip), str(out), "--report", str(report), "--degradation", "gaussian_blur(sigma=1) + noise(sigma=0.01)", *FAST]) == 0
    before, times = read_frames(clip)
    after, after_times = read_frames(out)
    assert after_times.starts == times.starts and after_times.end == times.end
    assert probe(out).audio_streams[0].codec == probe(clip).audio_streams[0].codec
    info = json.loads(report.read_text())
    assert info["frames"] == 6 and len(info["faces"]["people"]) == 1
    changed = (after - before).abs().mean((0, 1))
    assert changed[60:160, 110:210].mean() > 2 * changed[280:, :].mean()
    assert "1 person" in capsys.readouterr().out


def test_a_seed_gives_the_same_pixels_again(clip, tmp_path):
    outs = [tmp_path / name for name in ("a", "b")]
    for out in outs:
        assert main(["restore", str(clip), str(out), "--seed", "3", "--count", "1", *FAST]) == 0
    a, b = (read_frames(out)[0] for out in outs)
    assert torch.equal(a, b)


def test_aligned_folders_become_512_frames(tmp_path):
    with open_sink(tmp_path / "small", None, size=(128, 128)) as sink:
        times = FrameTimes.constant(3, 25)
        sink.write(torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3, times.starts, times.ends)
    assert main(["restore", "--aligned", str(tmp_path / "small"), str(tmp_path / "large"), "--degradation", "bicubic(factor=4)", *FAST]) == 0
    large, _ = read_frames(tmp_path / "large")
    small, _ = read_frames(tmp_path / "small")
    assert large.shape == (3, 3, 512, 512)
    from fvr.physics import BicubicDownsample

    assert (BicubicDownsample(4).forward(large) - small).abs().mean() < 0.02


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["restore", "absent.mp4", "out.mp4"], "absent.mp4"),
        (["restore", "CLIP", "out.mp4", "--method", "flare"], "did you mean 'flair'"),
        (["restore", "CLIP", "out.mp4", "--method", "KEEP"], "did you mean 'keep'"),
        (["restore", "CLIP", "out.mp4", "--method", "gfpgan"], "name the file, as its weights"),
        (["restore", "CLIP", ""], "an empty name was given"),
        (["restore", "CLIP", "-"], "- names what is piped"),
        (["restore", "-", "out.mp4"], "- names what is piped"),
        (["restore", "CLIP", "out.mp4", "--method", "flair", "--set", "stepps=3"], "did you mean 'steps'"),
        (["restore", "CLIP", "out.mp4", "--set", "steps"], "NAME=VALUE"),
        (["restore", "CLIP", "out.mp4", "--degradation", "blurr(3)"], "gaussian_blur"),
        (["restore", "CLIP", "out.mp4", "--faces", "7", *FAST], "7"),
        (["restore", "CLIP", "out.mp4", "--device", "abacus"], "abacus"),
        (["restore", "CLIP", "CLIP"], "exists"),
        (["restore", "CLIP", "out.mp4", "--start", "600"], "600"),
        (["restore", "CLIP", "y" * 300 + ".mp4"], "y.mp4 cannot be used (File name too long); check its name, place and permissions"),
        (["restore", "CLIP", "out.mp4", "--codec", "mjpeg"], "h264"),
        (["restore", "CLIP", "out.mp4", "--frame-rate", "50"], "is a video, which keeps its own times; leave it out"),
        (["restore", "CLIP", "out", "--codec", "h265", "--crf", "20"], "--codec h265 and --crf 20 would change nothing, as out is for images"),
        (["restore", "CLIP", "out", "--pixel-format", "yuv444p"], "is for images, which are rgb24 or rgb48; leave it out"),
        (["restore", "CLIP", "out.mkv", "--codec", "ffv1", "--crf", "20"], "--crf 20 would change nothing, as ffv1 has no such scale"),
        (["restore", "CLIP", "out.avi"], ".avi"),
        (["restore", "CLIP", "out.mp4", "--weights", "nowhere.pth"], "nowhere.pth"),
        (["restore", "CLIP", "out.mp4", "--report", "nowhere/report.json", *FAST], "nowhere"),
        (["restore", "CLIP", "out.mp4", "--report", "CLIP", *FAST], "is the clip itself"),
        (["run", "nothing"], "restore_face_video"),
        (["run", "restore_face_video", "--set", "9.file=x"], "9"),
    ],
)
def test_an_error_is_one_sentence_and_leaves_no_file(arguments, sentence, clip, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([str(clip) if argument == "CLIP" else argument for argument in arguments]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("fvr: ") and sentence in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full disk")
def test_a_full_disk_says_what_to_do():
    """The system's own error names no file; one of ours that says more is left as it is."""
    with pytest.raises(OSError) as raw:
        Path("/dev/full").write_text("x")
    assert sentence_of(raw.value) == "a file could not be written (No space left on device); make room on its disk and give the same command again"
    assert sentence_of(DiskFull(errno.ENOSPC, "the disk of work is full")) == "the disk of work is full"


@pytest.mark.skipif(os.name != "posix", reason="needs limits of POSIX")
def test_a_disk_without_room_for_the_report_is_found_before_the_work(clip, tmp_path, capsys):
    """The limit on the size of files stands for a full disk: writing fails, and only then."""
    import resource

    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    report = tmp_path / "report.json"
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        assert main(["restore", str(clip), str(tmp_path / "out.mp4"), "--report", str(report), *FAST]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert f"fvr: --report {report} cannot be written (File too large); make room" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("output", ["pics/restored_%04d.png", "pics", "pics/photo_restored.png"])
def test_overwriting_leaves_other_pictures_alone(output, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pics").mkdir()
    others = {name: name.encode() for name in ("holiday.jpg", "wedding.jpg")}
    for name, content in others.items():
        (tmp_path / "pics" / name).write_bytes(content)
    photo = "photo.jpg" if output == "pics" else "pics/photo.jpg"
    cv2.imwrite(photo, np.full((64, 64, 3), 90, np.uint8))
    before = (tmp_path / photo).read_bytes()
    for _ in range(2):
        assert main(["restore", photo, output, "--method", "codeformer", "--overwrite"]) == 0
    assert {name: (tmp_path / "pics" / name).read_bytes() for name in others} == others
    assert (tmp_path / photo).read_bytes() == before
    assert len(list((tmp_path / "pics").glob("*.png"))) == 1


def test_a_folder_of_videos_is_restored_one_by_one(tmp_path, monkeypatch, capsys):
    """Into a folder, with one report; what fails is told and the others are there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    times = FrameTimes.constant(2, 25)
    for name in ("two.mp4", "ten.mkv"):
        with open_sink(tmp_path / "clips" / name, None, size=(64, 64)) as sink:
            sink.write(torch.full((2, 3, 64, 64), 0.4), times.starts, times.ends)
    (tmp_path / "clips" / "broken.avi").write_bytes(b"no video")
    (tmp_path / "clips" / "notes.txt").write_text("x")
    for output, words in (("out.mp4", "name a folder"), ("clips", "would be lost")):
        assert main(["restore", "clips", output, "--method", "codeformer"]) == 1 and words in capsys.readouterr().err
    for wrong, words in (("--codec=ffv1 --crf=9", "would change nothing"), ("--codec=mjpeg", "codec must be"), ("--crf=60", "0 to 51")):
        assert main(["restore", "clips", "out", *wrong.split()]) == 1 and not Path("out").exists()
        said = capsys.readouterr().err
        assert said.startswith("fvr: ") and words in said and said.count("\n") == 1
    assert main(["restore", "clips", "out", "--method", "codeformer", "--report", "report.json"]) == 1
    said = capsys.readouterr()
    assert "2 of 3 clips restored into out" in said.out and "broken.avi failed" in said.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["ten.mkv", "two.mp4"]
    info = json.loads((tmp_path / "report.json").read_text())
    assert [one.get("frames") for one in info["clips"]] == [None, 2, 2] and "cannot be read" in info["clips"][0]["error"]
    assert main(["restore", "clips", "out", "--method", "codeformer"]) == 1 and "already exists" in capsys.readouterr().err


def test_a_folder_of_videos_that_was_stopped_goes_on(tmp_path, monkeypatch, capsys):
    """What is done stays byte for byte, and is in the report of both."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    times = FrameTimes.constant(2, 25)
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        with open_sink(tmp_path / "clips" / name, None, size=(64, 64)) as sink:
            sink.write(torch.full((2, 3, 64, 64), 0.4), times.starts, times.ends)
    opened = []

    def stopped(*given, **named):
        opened.append(given)
        if len(opened) == 2:
            raise KeyboardInterrupt
        return real(*given, **named)

    real, command = pipeline.restore_clip_in_frames, ["restore", "clips", "out", "--method", "codeformer", "--report", "report.json"]
    monkeypatch.setattr(pipeline, "restore_clip_in_frames", stopped)
    assert main(command) == 130 and "1 of 3 clips are done; the same command with --resume goes on" in capsys.readouterr().err
    assert [Path(one["output"]).name for one in json.loads(Path("report.json").read_text())["clips"]] == ["a.mp4"]
    before = Path("out/a.mp4").stat().st_mtime_ns
    assert main(command) == 1 and "already exists" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    assert Path("out/a.mp4").stat().st_mtime_ns == before and len(list(Path("out").iterdir())) == 3
    assert [one.get("skipped", False) for one in json.loads(Path("report.json").read_text())["clips"]] == [True, False, False]
    for wrong in (["restore", "clips", "out", "--overwrite"], ["restore", "clips/a.mp4", "d.mp4"]):
        assert main([*wrong, "--resume"]) == 1 and "--resume" in capsys.readouterr().err


def test_warnings_are_printed_before_the_work(clip, tmp_path, monkeypatch, capsys):
    def refuse(*_, **__):
        raise ValueError(f"before: {capsys.readouterr().err}")

    deep = tmp_path / "deep.mkv"
    times = FrameTimes.constant(2, 25)
    with open_sink(deep, None, size=(64, 64), pixel_format="yuv420p10le") as sink:
        sink.write(torch.full((2, 3, 64, 64), 0.4), times.starts, times.ends)
    monkeypatch.setattr("fvr.pipeline.follow_faces", refuse)
    assert main(["restore", str(deep), str(tmp_path / "out.mp4"), "--method", "codeformer"]) == 1
    assert "before: warning: the source has 10 bits" in capsys.readouterr().err


def test_a_file_address_is_a_path(clip, tmp_path, capsys):
    named = tmp_path / "my clip%1.mp4"
    named.write_bytes(clip.read_bytes())
    assert main(["restore", named.as_uri(), (tmp_path / "out put.mp4").as_uri(), "--method", "codeformer", "--count", "1"]) == 0
    assert (tmp_path / "out put.mp4").is_file()
    assert main(["restore", "https://example.org/clip.mp4", "out.mp4"]) == 1 and "nothing is fetched" in capsys.readouterr().err


def test_lossless_in_and_out_leaves_frames_without_a_face_bit_by_bit(tmp_path):
    """Noise between two shots of a face, in 4:2:0, where a trip through RGB would round."""
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    noise = torch.rand(1, 3, 320, 320, generator=torch.Generator().manual_seed(0)).expand(12, -1, -1, -1)
    frames = torch.cat([moving_portrait(2), noise, moving_portrait(2)])
    times = FrameTimes.constant(16, 25)
    with open_sink(tmp_path / "in.mkv", None, size=(320, 320), codec="ffv1") as sink:
        sink.write(frames, times.starts, times.ends)
    assert main(["restore", str(tmp_path / "in.mkv"), str(tmp_path / "out.mkv"), "--codec", "ffv1", "--method", "codeformer"]) == 0
    planes = []
    for name in ("in.mkv", "out.mkv"):
        with av.open(str(tmp_path / name)) as container:
            planes.append([frame.to_ndarray() for frame in container.decode(video=0)])
    assert [bool((before == after).all()) for before, after in zip(*planes, strict=True)] == [False] * 2 + [True] * 12 + [False] * 2


def heeding() -> None:
    """Tests that run in the background of a shell inherit "ignore"."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_a_stop_request_is_obeyed_within_two_seconds_and_leaves_no_file(clip, tmp_path):
    """SIGTERM here, Ctrl-C below."""
    looped = tmp_path / "long.mp4"
    frames = moving_portrait(6)
    times = FrameTimes.constant(60, 25)
    with open_sink(looped, None, size=(320, 320)) as sink:
        for n in range(10):
            sink.write(frames, times.starts[6 * n : 6 * n + 6], times.ends[6 * n : 6 * n + 6])
    command = [sys.executable, "-m", "fvr.cli", "restore", str(looped), str(tmp_path / "out.mp4")]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=heeding,
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".out*.part")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert time.monotonic() - sent < 10, "the promise is 2 s on an idle machine"
    assert [path.name for path in tmp_path.iterdir()] == ["long.mp4"]


def test_a_truncated_file_gives_its_frames_and_one_warning(clip, tmp_path, capsys):
    whole = tmp_path / "whole.mkv"
    frames = moving_portrait(6)
    times = FrameTimes.constant(6, 25)
    with open_sink(whole, None, size=(320, 320), codec="ffv1") as sink:
        sink.write(frames, times.starts, times.ends)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    out = tmp_path / "out.mp4"
    assert main(["restore", str(cut), str(out), *FAST]) == 0
    readable = sum(len(chunk) for chunk in open_source(cut).chunks())
    assert 0 < readable < 6
    assert sum(len(chunk) for chunk in open_source(out).chunks()) == readable
    assert sum("cut.mkv" in line for line in capsys.readouterr().out.splitlines()) == 1


SWALLOWED = """
import os, signal, sys
class Eager:
    def find_spec(self, name, path, target=None):
        if name == "cv2":
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except BaseException:
                pass
sys.meta_path.insert(0, Eager())
from fvr.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""Ctrl-C while a library is imported that lets no exception out."""


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_works_although_a_library_swallows_it(clip, tmp_path):
    command = [sys.executable, "-c", SWALLOWED, "restore", str(clip), str(tmp_path / "out.mp4"), "--count", "1", *FAST]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=heeding, timeout=120)
    assert done.returncode == 130 and "stopped" in done.stderr and list(tmp_path.iterdir()) == []


def test_a_terminal_without_the_letters_of_a_name_fails_no_job(clip, tmp_path, monkeypatch):
    out, report = tmp_path / "Übung 映像.mp4", tmp_path / "Bericht.json"
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["restore", str(clip), str(out), "--count", "1", "--report", str(report), *FAST]) == 0
    terminal.flush()
    assert out.is_file() and json.loads(report.read_text(encoding="utf-8"))["output"] == str(out)
    assert rb"\xdcbung" in terminal.buffer.getvalue()


def test_a_demo_without_its_portrait_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "skimage", None)
    assert main(["demo", "--output-dir", str(tmp_path / "demo")]) == 1
    _, line = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("fvr: the demo needs the portrait in scikit-image") and not (tmp_path / "demo").exists()
