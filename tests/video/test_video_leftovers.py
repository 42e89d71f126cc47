"""What killed and stopped jobs leave: nothing hidden that nobody ever removes, and nothing of a job that still runs is touched."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.video_helpers import moving, save

from fvr.host.signals import stoppable
from fvr.video import FrameTimes, VideoError, open_sink, read_frames
from fvr.video.writing.leftovers import SUFFIX

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs locks and signals of POSIX")
TIMES = FrameTimes.constant(3, 25)
FRAMES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))

JOB = """
import sys, torch
from fvr.video import FrameTimes, open_sink
times = FrameTimes.constant(3, 25)
sinks = [open_sink(path) for path in sys.argv[1:]]
for sink in sinks:
    sink.write(torch.rand(3, 3, 16, 16), times.starts, times.ends)
print("ready", flush=True)
sys.stdin.read()
"""


def job(*outputs):
    """A job that has begun to write and waits."""
    process = subprocess.Popen([sys.executable, "-c", JOB, *map(str, outputs)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def hidden(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def aged(folder):
    """As if written a minute ago."""
    for path in folder.iterdir():
        os.utime(path, (path.stat().st_atime - 60, path.stat().st_mtime - 60))


def test_what_a_killed_job_left_is_swept_and_a_running_job_s_is_not(tmp_path):
    (tmp_path / f".other-{'x' * 8}.part").write_bytes(b"another program's")
    running = job(tmp_path / "a.mp4", tmp_path / "frames_a")
    killed = job(tmp_path / "b.mp4", tmp_path / "frames_b")
    assert len(hidden(tmp_path)) == 5
    killed.kill()
    killed.communicate()
    with open_sink(tmp_path / "now.mp4") as sink:
        assert sink.warnings == [] and len(hidden(tmp_path)) == 6, "too young to tell"
        sink.write(FRAMES, TIMES.starts, TIMES.ends)
    aged(tmp_path)
    with open_sink(tmp_path / "c.mp4") as sink:
        (sentence,) = sink.warnings
        sink.write(FRAMES, TIMES.starts, TIMES.ends)
    assert sentence == f"what 2 killed jobs had left unfinished was removed from {tmp_path}"
    assert sorted(name.split("-")[0] for name in hidden(tmp_path)) == [".a", ".frames_a", ".other"]
    running.kill()
    running.communicate()
    aged(tmp_path)
    with open_sink(tmp_path / "frames_c") as sink:
        assert len(sink.warnings) == 1 and sorted(name.split("-")[0] for name in hidden(tmp_path)) == [".frames_c", ".other"]
        sink.write(FRAMES)
    assert hidden(tmp_path) == [f".other-{'x' * 8}.part"]


def test_a_job_s_own_lock_does_not_hold_after_it(tmp_path):
    """An unlinked file that is still open takes its room on the disk."""
    opened = Path("/proc/self/fd")
    if not opened.is_dir():
        pytest.skip("needs Linux's list of open files")
    before = len(list(opened.iterdir()))
    sink = open_sink(tmp_path / "a.mp4")
    sink.write(FRAMES, TIMES.starts, TIMES.ends)
    sink.abort()
    assert len(list(opened.iterdir())) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_termination_request_inside_the_move_leaves_nothing_hidden(moment, links, overwrite, tmp_path, monkeypatch):
    """Real signals, sent from within the move; `links` is whether the disk knows second names for a file."""
    target = tmp_path / "out.mp4"
    if overwrite:
        target.write_bytes(b"old")

    def stopping(name):
        real = getattr(Path, name)

        def move(self, *where):
            if not links and name == "hardlink_to":
                raise PermissionError(1, "Operation not permitted")
            if moment == "before":
                os.kill(os.getpid(), signal.SIGTERM)
            done = real(self, *where)
            os.kill(os.getpid(), signal.SIGTERM)
            return done

        monkeypatch.setattr(Path, name, move)

    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit), stoppable(), open_sink(target, overwrite=overwrite) as sink:
            sink.write(FRAMES, TIMES.starts, TIMES.ends)
            stopping("replace")
            stopping("hardlink_to")
    finally:
        signal.signal(signal.SIGTERM, before)
    monkeypatch.undo()
    assert hidden(tmp_path) == []
    if target.exists() and target.read_bytes() != b"old":
        assert len(read_frames(target)[1]) == 3, "whole, or not there"


@pytest.mark.parametrize("there", [True, False])
def test_a_termination_request_while_images_are_moved_leaves_the_old_ones(there, tmp_path, monkeypatch):
    folder = tmp_path / "frames"
    if there:
        with open_sink(folder) as sink:
            sink.write(FRAMES * 0)
    real = Path.replace

    def move(self, target):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(self, target)

    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit), stoppable(), open_sink(folder, overwrite=True) as sink:
            sink.write(FRAMES)
            monkeypatch.setattr(Path, "replace", move)
    finally:
        signal.signal(signal.SIGTERM, before)
        monkeypatch.undo()
    assert not list(tmp_path.rglob(f"*{SUFFIX}"))
    assert folder.exists() == there
    if there:
        assert read_frames(folder)[0].max() == 0 and len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("number, words", [(errno.EDQUOT, "as its disk is full; make room"), (errno.EIO, r"by h264 \(input/output error\)")])
def test_a_clip_gets_its_name_when_it_is_on_the_disk(number, words, tmp_path, monkeypatch):
    """A disk elsewhere may take everything and say only then that it was too much; the clip that is there stays."""
    save(tmp_path / "clip.mp4", moving(2))
    before = (tmp_path / "clip.mp4").read_bytes()

    def refuse(handle):
        assert [name.endswith(SUFFIX) for name in hidden(tmp_path)] == [True]
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(VideoError, match=words):
        save(tmp_path / "clip.mp4", moving(3), overwrite=True)
    assert (tmp_path / "clip.mp4").read_bytes() == before and not hidden(tmp_path)
