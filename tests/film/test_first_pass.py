"""A job that is killed while it finds faces goes on from there, and its plan is what it would have been."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from helpers.small_film import find_faces

from fvr.demo import moving_portrait
from fvr.film import first_pass
from fvr.film.files import read_json
from fvr.film.first_pass import FirstPass
from fvr.video import FrameTimes, ShotCutDetector, open_sink, open_source, probe

RATE = Fraction(25)


def film(path):
    """Three shots, two of them with a face, in oblong pixels, whose followers look at a stretched picture; 60 frames."""
    face = moving_portrait(24)[..., ::2]
    ground = torch.linspace(0, 1, 160).expand(3, 320, 160)
    frames = torch.cat([face, torch.stack([ground.roll(3 * n, -1) for n in range(12)]), face.flip(-1)])
    times = FrameTimes.constant(len(frames), RATE)
    with open_sink(path.with_name("square.mkv"), None, codec="ffv1") as sink:
        sink.write(frames, times.starts, times.ends)
    with open_sink(path, replace(probe(path.with_name("square.mkv")), sample_aspect=Fraction(2)), codec="h264") as sink:
        sink.write(frames, times.starts, times.ends)


def killed(folder, clip, kill_at):
    """`find_faces` in a process; the frame with which it began."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["helpers.small_film"])
    process = processes.Process(target=find_faces, args=(folder, clip, kill_at))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    return int(folder.with_suffix(".began").read_text())


def plan_in(folder):
    """All that a plan says, less how long it took."""
    return {**read_json(folder / "job.json"), "seconds": 0}, *((folder / name).read_bytes() for name in ("times.npy", "tracks.safetensors"))


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_while_it_finds_faces_it_goes_on_from_there(tmp_path, monkeypatch):
    monkeypatch.setattr(first_pass, "INTERVAL", first_pass.INTERVAL)
    clip, job, whole = tmp_path / "in.mp4", tmp_path / "job", tmp_path / "whole"
    film(clip)
    assert find_faces(whole, clip) == 0
    assert killed(job, clip, 24) == 0
    assert killed(job, clip, 44) == 16
    found = torch.load(job / "first-pass.part", weights_only=False)
    source, like = open_source(clip), json.loads(found["like"])
    assert FirstPass(job, source, ShotCutDetector(), like).frames == found["frames"] == 40
    assert FirstPass(job, source, ShotCutDetector(), {**like, "version": "2"}).frames == 0
    (job / "tracks.rows.part").rename(tmp_path / "away")
    assert FirstPass(job, source, ShotCutDetector(), like).frames == 0
    (tmp_path / "away").rename(job / "tracks.rows.part")
    assert find_faces(job, clip) == 40
    assert plan_in(job) == plan_in(whole)
    assert len(plan_in(job)[0]["people"]["people"]) >= 1 and len(plan_in(job)[0]["segments"]) > 1
    assert sorted(path.name for path in job.iterdir()) == sorted(path.name for path in whole.iterdir())


def test_who_named_a_person_that_is_not_there_need_not_wait_again(tmp_path, monkeypatch):
    """The last snapshot serves the corrected command, and one with another method."""
    monkeypatch.setattr(first_pass, "INTERVAL", first_pass.INTERVAL)
    clip, job = tmp_path / "in.mp4", tmp_path / "job"
    film(clip)
    with pytest.raises(ValueError, match="no person 7 in this clip"):
        find_faces(job, clip, faces="7", identity={"settings": {"faces": "7"}})
    assert find_faces(job, clip, identity={"settings": {"faces": "all", "method": "another"}}) == 56


@pytest.mark.parametrize("left", [0, 1000, None])
def test_a_damaged_snapshot_is_no_snapshot(tmp_path, left):
    clip, snapshot = tmp_path / "in.mp4", tmp_path / "first-pass.part"
    film(clip)
    snapshot.write_bytes(b"no snapshot at all" if left is None else bytes(left))
    assert FirstPass(tmp_path, open_source(clip), ShotCutDetector(), {}).frames == 0
