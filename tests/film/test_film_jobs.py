"""A job: whatever happens on the way, what is done stays done, and the film comes out as in one go."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import threading
import time
from dataclasses import fields, replace
from fractions import Fraction

import pytest
import torch
from helpers.small_film import LOSSLESS, SHOT, Remembering, done_at, make_film, make_room, planned, run, same, tools

from fvr.faces import aligned_track, report, select_tracks
from fvr.faces.tracking.people import assign_people
from fvr.film.executors import DiskFull, attempt, failed, failed_sentence, work
from fvr.film.job import Job
from fvr.film.join import join_once
from fvr.film.lease import holder, take
from fvr.film.plan import segment_ranges
from fvr.film.sample import hardest, restore_sample, sample_range
from fvr.film.segment import restore_segment
from fvr.film.status import status, status_text
from fvr.film.tracks import TrackStore, load_tracks, save_tracks
from fvr.pipeline import CHUNK
from fvr.video import VideoError, read_frames

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_at_any_moment_it_goes_on(clip, whole, tmp_path):
    """Six times; no segment that is done is done again, and nothing but the job is left beside the film."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["helpers.small_film"])
    job, out, moments = tmp_path / "job", tmp_path / "out.mkv", random.Random(5)
    done: dict[str, int] = {}
    for kill in range(7):
        process = processes.Process(target=run, args=(job, clip, out, 0.02))
        process.start()
        if kill < 6:
            if kill > 1:  # the first two into the plan perhaps, the others after it
                until = time.monotonic() + 120
                while not (job / "job.json").exists() and process.is_alive() and time.monotonic() < until:
                    time.sleep(0.01)
            process.join(moments.uniform(0.05, 1.0) if kill else 1.0)
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
        process.join()
        now = done_at(job)
        assert {name: now.get(name) for name in done} == done
        done = now
    assert process.exitcode == 0
    same(out, whole)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["job", "out.mkv"]
    assert not list(job.glob("segments/*.part")) and not list(job.glob("**/*.lease"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"identity": {"settings": {"seed": 1}}}, "seed 0, got 1"),
        ({"identity": {"version": "2"}}, "version 1, got 2"),
        ({"encoding": {**LOSSLESS, "codec": "h264"}}, "codec ffv1, got h264"),
        ({"selection": {"start": 3}}, "start 0, got 3"),
        ({"seconds": 2.0}, "segment_seconds 0.24, got 2.0"),
    ],
)
def test_what_is_not_as_planned_is_refused_in_a_sentence(change, words, clip, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "refusing"
    planned(folder, clip)
    with pytest.raises(ValueError, match=words):
        planned(folder, clip, **change)


def test_a_damaged_plan_is_named_and_not_taken_for_none(clip, tmp_path):
    planned(tmp_path / "job", clip)
    (tmp_path / "job" / "job.json").write_text('{"frames": ')
    with pytest.raises(ValueError, match=r"job\.json is damaged; remove .* and plan the job anew"):
        Job.load(tmp_path / "job")
    with pytest.raises(ValueError, match=r"job\.json is damaged"):
        planned(tmp_path / "job", clip)


@pytest.mark.parametrize("name", ["times.npy", "tracks.safetensors"])
@pytest.mark.parametrize("damage", ["removed", "cut short", "emptied"])
def test_a_plan_without_one_of_its_files_says_so(clip, tmp_path, name, damage):
    job = planned(tmp_path / "job", clip)
    file = tmp_path / "job" / name
    file.unlink() if damage == "removed" else os.truncate(file, 10 if damage == "cut short" else 0)
    with pytest.raises(ValueError, match=rf"{name} is missing or damaged; remove .* and plan the job anew"):
        restore_segment(Job.load(tmp_path / "job"), job.segments[1], tools(job.frames))


def test_a_segment_that_was_damaged_since_is_named_and_can_be_made_anew(clip, whole, tmp_path):
    """Its size is what its note says, so that only reading it tells."""
    job = planned(tmp_path / "job", clip)
    made = tools(job.frames)
    work(job, lambda: made)
    file = job.file(job.segments[2])
    file.write_bytes(random.Random(0).randbytes(file.stat().st_size))
    with pytest.raises(VideoError, match=r"00002\.mkv does not hold the 6 frames .*; remove it, and the same command makes it anew"):
        join_once(job, tmp_path / "out.mkv")
    file.unlink()
    job = Job.load(tmp_path / "job")
    work(job, lambda: made)
    join_once(job, tmp_path / "out.mkv")
    same(tmp_path / "out.mkv", whole)


def test_another_clip_of_the_same_name_is_refused(tmp_path):
    clip = tmp_path / "in.mkv"
    make_film(clip, (4, 4), codec="ffv1")
    planned(tmp_path / "job", clip)
    data = bytearray(clip.read_bytes())
    data[-10] ^= 1
    clip.write_bytes(data)
    with pytest.raises(ValueError, match=r"planned for .*in\.mkv, and the clip given now is another one, or was changed since \(input\.\w+ \w+, got"):
        planned(tmp_path / "job", clip)


def test_a_clip_that_was_copied_and_moved_is_the_same_clip(tmp_path):
    """A drive that is mounted elsewhere, a copy with another time: the job goes on, for workers that only know its folder too."""
    clip, moved = tmp_path / "in.mkv", tmp_path / "elsewhere" / "film.mkv"
    make_film(clip, (4, 4), codec="ffv1")
    job = planned(tmp_path / "job", clip)
    restore_segment(job, job.segments[0], tools(job.frames))
    moved.parent.mkdir()
    clip.rename(moved)
    os.utime(moved, (1, 1))
    run(tmp_path / "job", moved, tmp_path / "out.mkv")
    assert Job.load(tmp_path / "job").plan["place"] == str(moved)
    frames, _ = read_frames(tmp_path / "out.mkv")
    assert len(frames) == job.frames


def test_a_clip_that_changed_in_its_middle_alone_is_another_one(tmp_path):
    """Where neither its size nor its ends tell, its time does, and then all of it is read."""
    clip = tmp_path / "in.mkv"
    make_film(clip, (4, 4), codec="ffv1")
    with clip.open("ab") as file:
        file.write(bytes(3 << 20))
    planned(tmp_path / "job", clip)
    data = bytearray(clip.read_bytes())
    data[len(data) // 2] ^= 1
    clip.write_bytes(data)
    with pytest.raises(ValueError, match=r"was changed since \(input\.modified"):
        planned(tmp_path / "job", clip)


def test_a_job_that_is_being_planned_is_not_called_missing(tmp_path):
    with take(tmp_path / "plan.lease"), pytest.raises(ValueError, match="is being planned, and finds faces until then"):
        Job.load(tmp_path)


def test_a_folder_of_something_else_is_left_alone(clip, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match=r"holds other files \(letter.txt\) and no job"):
        planned(tmp_path, clip)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_segment_is_done_again_only_if_its_file_or_note_is_not_whole(clip, tmp_path):
    job = planned(tmp_path / "job", clip)
    made, segment = tools(job.frames), job.segments[2]
    note = restore_segment(job, segment, made)
    data, when = job.file(segment).read_bytes(), job.file(segment).stat().st_mtime_ns
    assert restore_segment(job, segment, made) == note and job.file(segment).stat().st_mtime_ns == when
    note_file = job.parts / "00002.json"
    for harm in (lambda: job.file(segment).write_bytes(data[:-5]), note_file.unlink, lambda: note_file.write_text("{")):
        harm()
        assert job.done(segment) is None
        restore_segment(job, segment, made)
        assert job.file(segment).read_bytes() == data and job.done(segment)


def test_a_worker_that_died_loses_its_segment_only(clip, tmp_path):
    """The lease of a living worker is respected, a dead one's is taken over and told."""
    job = planned(tmp_path / "job", clip)
    made, lease = tools(job.frames), job.lease(job.segments[0])
    with take(lease) as held:
        assert held and holder(lease)["process"] == os.getpid() and take(lease) is None
        assert not attempt(job, job.segments[0], made, say=print) and job.done(job.segments[0]) is None
        assert set(status(job).running) == {0}
    lease.write_text(json.dumps({"machine": os.uname().nodename, "process": 999999999}))
    assert holder(lease) is None
    assert attempt(job, job.segments[0], made, say=print) and job.done(job.segments[0])
    assert "process 999999999" in job.failures(job.segments[0])[0]["error"] and not lease.exists()
    lease.write_text(json.dumps({"machine": "elsewhere", "process": 1}))
    assert holder(lease) and take(lease) is None
    os.utime(lease, (1, 1))
    assert holder(lease) is None
    with take(lease) as again:
        assert again


def test_what_fails_three_times_is_told_and_the_rest_goes_on(clip, tmp_path):
    flag, said = tmp_path / "flag", []

    class Failing(Remembering):
        def open(self, track=None, **common):
            if flag.exists() and track.start == SHOT:
                raise RuntimeError("this shot cannot be restored")
            return super().open(track, **common)

    flag.touch()
    job = planned(tmp_path / "job", clip, Failing())
    made = tools(job.frames, Failing())
    work(job, lambda: made, say=said.append)
    assert [segment.number for segment, _ in failed(job)] == [1] and len(said) == 3
    assert "segment 1 failed 3 times (this shot cannot be restored)" in failed_sentence(failed(job))
    assert "5 done, 0 running, 1 failed" in status_text(job, status(job)) and "cannot be restored" in status_text(job, status(job))
    flag.unlink()
    job.forgive()
    work(job, lambda: made)
    assert not failed(job) and len(status(job).done) == 6


def test_two_runs_on_one_folder_share_the_work(clip, whole, tmp_path):
    folder, out = tmp_path / "job", tmp_path / "out.mkv"
    job = planned(folder, clip)
    counted = []

    def one():
        mine = Job.load(folder)
        work(mine, lambda: tools(mine.frames, Counting()))
        join_once(mine, out)

    class Counting(Remembering):
        def open(self, track=None, **common):
            counted.append(track.start)
            return super().open(track, **common)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counted) == [segment.first for segment in job.segments]
    same(out, whole)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["job", "out.mkv"]


def test_a_full_disk_stops_the_work_and_nothing_is_lost(clip, whole, tmp_path, disk):
    job = planned(disk / "job", clip)
    made = tools(job.frames)
    with pytest.raises(DiskFull, match="make room and give the same command again"):
        work(job, lambda: made)
    done = done_at(disk / "job")
    assert 0 < len(done) < 6
    make_room(disk)
    work(job, lambda: made)
    assert {name: done_at(disk / "job")[name] for name in done} == done
    join_once(job, tmp_path / "out.mkv")
    same(tmp_path / "out.mkv", whole)


def test_the_hardest_face_is_tried_first(clip, tmp_path):
    job = planned(tmp_path / "job", clip)
    sample = restore_sample(job, tools(job.frames), 0.1)
    frames, _ = read_frames(sample)
    _, frame = hardest(job.tracks(0, job.frames))
    tried = sample_range(job, 0.1, CHUNK)
    assert tried.first <= frame < tried.stop and len(frames) == len(tried) <= 3 + CHUNK - 1 and sample.parent == job.folder
    planned(tmp_path / "job", clip)


def test_tracks_are_kept_on_the_disk_and_saved_as_they_are(tmp_path):
    """What is decided from stored tracks, and read from their file, is what it is from tracks in memory; their rows are not in memory."""
    generator = torch.Generator().manual_seed(0)
    looks = torch.randn(3, 16, generator=generator)
    tracks = [
        replace(
            aligned_track(9),
            start=12 * n,
            boxes=torch.rand(9, 4, generator=generator) * 40 + torch.tensor([0.0, 0.0, 50.0, 50.0]),
            detected=torch.rand(9, generator=generator) < 0.8,
            pose=torch.rand(9, 2, generator=generator) if n % 2 else None,
            covered=torch.rand(9, generator=generator) if n % 2 else None,
            outline=torch.rand(9, 16, generator=generator) if n % 2 else None,
            embedding=looks[n % 3] if n % 4 else None,
        )
        for n in range(12)
    ]
    with TrackStore(tmp_path / "tracks") as store:
        stored = assign_people([store.keep(track) for track in tracks])
        assert not any(isinstance(value, torch.Tensor) and value.shape[:1] == (9,) for track in stored for value in vars(track).values())
        known = assign_people(tracks)
        assert report(stored, stored[:5], 144) == report(known, known[:5], 144) and len(stored[0]) == 9
        chosen = select_tracks(stored, "largest", 20.0)
        save_tracks(tmp_path / "tracks.safetensors", chosen)
    assert [path.name for path in tmp_path.iterdir()] == ["tracks.safetensors"]
    expected = select_tracks(known, "largest", 20.0)
    assert 1 < len(expected) == len(chosen)
    for one, other in zip(load_tracks(tmp_path / "tracks.safetensors", 0, 144), expected, strict=True):
        for field in fields(one):
            mine, theirs = getattr(one, field.name), getattr(other, field.name)
            assert torch.equal(mine, theirs) if isinstance(mine, torch.Tensor) else mine == theirs, field.name
    assert len(load_tracks(tmp_path / "tracks.safetensors", 20, 25)) == sum(track.start < 25 and track.stop > 20 for track in expected)


def test_segments_lie_over_all_frames_and_begin_at_cuts_or_chunks():
    import numpy as np

    dice = random.Random(1)
    for _ in range(200):
        frames = dice.randrange(1, 400)
        cuts = sorted(dice.sample(range(1, frames + 1), min(frames, dice.randrange(0, 12))))
        cuts = [cut for cut in cuts if cut < frames]
        ticks = np.cumsum([0] + [dice.choice([1, 2]) for _ in range(frames)])
        ranges = segment_ranges(cuts, ticks, Fraction(1, 25), dice.uniform(0.1, 6), 8)
        assert [n for first, stop in ranges for n in range(first, stop)] == list(range(frames))
        assert all(first in (0, *cuts) or first % 8 == 0 for first, _ in ranges)
