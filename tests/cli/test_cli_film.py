"""`fvr restore --job`, `fvr segment` and `fvr job`, with real faces, processes and signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from fvr.cli import build_parser, main
from fvr.cli.film import graceful_interrupt, job_folder
from fvr.cli.tools import request_of
from fvr.demo import moving_portrait
from fvr.film.job import Job
from fvr.film.lease import take
from fvr.film.processes import prestarted_workers, start_worker, wake
from fvr.video import FrameTimes, open_sink, open_source, read_frames

ROOT = Path(__file__).resolve().parents[2]
FAST = ["--method", "keep", "--codec", "ffv1"]
"""The embedded KEEP: each frame depends on all before it in its shot."""
SEGMENTS = ["--segment-seconds", "0.12"]
PLAIN = dict(
    job=None,
    no_job=False,
    workers="1",
    ray=None,
    comfy=None,
    preview=False,
    test_seconds=None,
    segment_seconds=None,
    aligned=False,
    output="out.mkv",
    stride=1,
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Two shots of three frames."""
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    path = tmp_path_factory.mktemp("cli") / "in.mkv"
    frames = moving_portrait(3)
    frames = torch.cat([frames, 0.3 * frames.flip(-1).flip(1)])
    times = FrameTimes.constant(6, 25)
    with open_sink(path, None, size=(320, 320), codec="ffv1") as sink:
        sink.write(frames, times.starts, times.ends)
    return path


def test_a_job_of_two_processes_equals_the_direct_run(clip, tmp_path, capsys, monkeypatch):
    """And what it is asked afterwards: how far it is, a segment again, everything again, something else."""
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    out, job, report = tmp_path / "out.mkv", str(tmp_path / "job"), tmp_path / "report.json"
    command = ["restore", str(clip), str(out), "--job", job, *FAST, *SEGMENTS]
    only_planned = [str(tmp_path / "planned") if word == job else word for word in command]
    assert main([*only_planned, "--workers", "0"]) == 0
    assert "2 segments, numbered from 0" in capsys.readouterr().out and not out.exists()
    shutil.rmtree(tmp_path / "planned")
    woken_ones = []
    monkeypatch.setattr("fvr.film.processes.wake", lambda process: woken_ones.append(wake(process)) or process)
    assert main([*command, "--workers", "2", "--report", str(report)]) == 0
    assert [process.returncode for process in woken_ones] == [0, 0]
    assert main(["restore", str(clip), str(tmp_path / "one.mkv"), *FAST]) == 0
    (frames, times), (others, other_times) = read_frames(out), read_frames(tmp_path / "one.mkv")
    assert torch.equal(frames, others) and times.starts == other_times.starts and times.end == other_times.end
    assert not torch.equal(frames, read_frames(clip)[0])
    assert '"segments": 2' in report.read_text()
    capsys.readouterr()
    assert main(["job", job]) == 0
    assert "2 done, 0 running, 0 failed\n6 of 6 frames (100%)" in capsys.readouterr().out
    before = (Path(job) / "segments" / "00001.mkv").stat().st_mtime_ns
    assert main(["segment", job, "1"]) == 0 and (Path(job) / "segments" / "00001.mkv").stat().st_mtime_ns == before
    assert main(command) == 0 and "is done already" in capsys.readouterr().out
    assert main([*command, "--seed", "4"]) == 1
    assert f"fvr: {job} was planned with seed 0, got 4; go on with" in capsys.readouterr().err
    assert main(["segment", job, "7"]) == 1
    assert "has segments 0 to 1, got 7" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job", "one.mkv", "out.mkv", "report.json"]


def test_idle_workers_end(tmp_path):
    with prestarted_workers(tmp_path / "job", 2) as ready:
        assert sorted(ready) == [0, 1] and all(process.poll() is None for process in ready.values())
    assert all(process.returncode is not None for process in ready.values())
    waiting = start_worker(tmp_path / "job", 0, 1, waiting=True)
    waiting.stdin.close()  # as when the process that should wake it is gone
    assert waiting.wait(120) == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"job": "here"}, "here"),
        ({"preview": True}, "out.mkv.job"),
        ({"no_job": True, "job": "here"}, "--no-job and --job do not go together"),
        ({"aligned": True, "ray": "auto"}, "leave --ray out"),
        ({"comfy": "http://host:8188", "ray": "auto"}, "--comfy and --ray do not go together"),
        ({"comfy": "http://host:8188", "workers": "2"}, "--comfy and --workers do not go together"),
        ({"output": "frames", "job": "here"}, "writes a video file"),
        ({"job": "out.mkv"}, "is a file, or the output's name"),
        ({"job": __file__}, "is a file, or the output's name"),
    ],
)
def test_which_clips_become_jobs(options, expected, clip):
    given, source = {**PLAIN, **options}, open_source(clip)
    if expected is not None and " " in expected:
        with pytest.raises(ValueError, match=expected):
            job_folder(Namespace(**given), source)
    else:
        assert job_folder(Namespace(**given), source) == (None if expected is None else Path(expected))


def test_a_long_clip_becomes_a_job_by_itself(clip, monkeypatch):
    monkeypatch.setattr("fvr.cli.film.AUTO_JOB_SECONDS", 0.2)
    given = {**PLAIN, "output": "there/out.mkv"}
    assert job_folder(Namespace(**given), open_source(clip)) == Path("there/out.mkv.job")
    assert job_folder(Namespace(**{**given, "no_job": True}), open_source(clip)) is None
    assert job_folder(Namespace(**{**given, "output": "there"}), open_source(clip)) is None


@pytest.mark.skipif(os.name != "posix", reason="a folder in use is removed")
@pytest.mark.parametrize(
    ("command", "finished", "status", "said"),
    [
        (["segment"], True, 0, "is gone; its film has been joined, or somebody has removed it"),
        (["segment", "0"], True, 1, "is gone; its film has been joined, or somebody has removed it"),
        (["restore"], True, 0, "another command has finished"),
        (["restore"], False, 1, "was removed while it was worked on; the same command begins anew"),
    ],
)
def test_the_process_that_finishes_a_job_stops_the_others_with_a_sentence(command, finished, status, said, clip, tmp_path, capsys, monkeypatch):
    """The same command in a second window joins the film and removes the folder, while this one waits for what that one restores."""
    out, job = tmp_path / "out.mkv", tmp_path / "out.mkv.job"
    restore = ["restore", str(clip), str(out), *FAST, *SEGMENTS]
    assert main([*restore, "--workers", "0"]) == 0
    planned = Job.load(job)
    leases = [take(planned.lease(part)) for part in planned.segments]

    def other(seconds: float) -> None:
        if finished:
            shutil.copy(clip, out)
        shutil.rmtree(job)

    monkeypatch.setattr("fvr.film.executors.time", Namespace(sleep=other, time=time.time))
    monkeypatch.setattr("fvr.cli.segment.time", Namespace(sleep=other))
    capsys.readouterr()
    assert main(restore if command == ["restore"] else ["segment", str(job), *command[1:]]) == status
    words = capsys.readouterr()
    assert said in words.err and "Errno" not in words.err
    assert (str(out) in words.out) == (command == ["restore"] and finished)
    for lease in leases:
        lease.release()
    assert not job.exists()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_once_finishes_and_twice_stops():
    said = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt), graceful_interrupt(said.append) as stopping:
            assert not stopping()
            os.kill(os.getpid(), signal.SIGINT)
            assert stopping() and len(said) == 1
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_stopping_a_job_says_that_nothing_is_lost(clip, tmp_path, capsys):
    """While it finds faces, or restores: then it stops after the segment."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt():
        while not (tmp_path / "job" / "plan.lease").exists():
            time.sleep(0.001)
        time.sleep(0.1)  # not while it is being taken, when nobody would release it before this process ends
        os.kill(os.getpid(), signal.SIGINT)

    stopper = threading.Thread(target=interrupt)
    stopper.start()
    try:
        assert main(["restore", str(clip), str(tmp_path / "out.mkv"), "--job", str(tmp_path / "job"), *FAST, *SEGMENTS]) == 130
    finally:
        stopper.join()
        signal.signal(signal.SIGINT, before)
    assert f"what is done is kept in {tmp_path / 'job'}; the same command goes on\n" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_the_array_job_restores_its_segment(tmp_path):
    """docs/film/slurm.sh with a command `fvr` that says what it was asked; numbers past the end do nothing."""
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "job.json").write_text('{"segments": [{}, {}]}')
    command = tmp_path / "fvr"
    command.write_text('#!/bin/sh\necho "$@"\n')
    command.chmod(0o755)
    for number, said in (("1", f"segment {tmp_path / 'job'} 1\n"), ("2", "")):
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": number}
        ran = subprocess.run(["bash", str(ROOT / "docs/film/slurm.sh"), str(tmp_path / "job")], env=environment, capture_output=True, text=True)
        assert (ran.returncode, ran.stdout) == (0, said)


def test_a_job_is_planned_with_all_that_decides_the_picture():
    """Whatever option is added to `fvr restore` is either kept in the plan or is one of these."""
    elsewhere = {
        "debug",
        "help",
        "input",
        "output",
        "line",
        "parser",
        "command",
        "overwrite",
        "resume",
        "report",
        "device",
        "seed",
        "aligned",
        "verbose",
        "json",
        "recursive",
    }
    elsewhere |= {"start", "count", "stride", "frame_rate", "deinterlace", "codec", "crf", "pixel_format"}
    elsewhere |= {"job", "no_job", "workers", "ray", "comfy", "preview", "test_seconds", "segment_seconds"}
    options = build_parser().parse_args(["restore", "in.mkv", "out.mkv", "--rotate", "off", "--occlusion", "auto"])
    request = request_of(options, "blind", False)
    assert set(vars(options)) - elsewhere == set(request) - {"estimates"}
    assert (request["rotate"], request["occlusion"]) == ("off", "auto")
    assert json.loads(json.dumps(request)) == request
