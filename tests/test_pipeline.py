"""The walk of a clip: every frame comes out once, in order, whatever the restorer looks ahead and however the clip is chunked."""

from __future__ import annotations

import errno
import threading
import time
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from helpers.small_film import Remembering, in_one_go, make_film, planned, tools
from hypothesis import given, settings
from hypothesis import strategies as st

from fvr.faces import Paster, align
from fvr.faces.compositing.strength import Gates
from fvr.faces.geometry import TEMPLATE, similarity
from fvr.faces.types import FaceTrack
from fvr.film.job import Tools
from fvr.film.plan import plan
from fvr.film.segment import restore_segment
from fvr.methods.base import Restorer, Session
from fvr.pipeline import Summary, Walk, restore_aligned, restore_clip_in_frames
from fvr.video import FrameChunk, VideoError, open_sink, open_source, read_frames
from fvr.video.overlap import WriteBehind

SIZE = (72, 96)


def ours():
    return [thread for thread in threading.enumerate() if thread.name.startswith("fvr ")]


class Delayed(Session):
    """Adds `shade` to every crop and holds back `delay` of them."""

    def __init__(self, delay: int, shade: float) -> None:
        self.held, self.delay, self.shade = torch.empty(0, 3, 512, 512), delay, shade

    def push(self, crops):
        self.held = torch.cat([self.held, crops + self.shade])
        ready, self.held = self.held[: max(len(self.held) - self.delay, 0)], self.held[max(len(self.held) - self.delay, 0) :]
        return ready

    def close(self):
        return self.held


class DelayedRestorer(Restorer):
    name = "delayed"

    def __init__(self, delay: int, shade: float = 0.25) -> None:
        self.look_ahead, self.shade = delay, shade

    def open(self, track=None, *, seed=0, check_interrupt=lambda: None):
        return Delayed(self.look_ahead, self.shade)


def still_track(person: int, start: int, length: int, left: float) -> FaceTrack:
    landmarks = TEMPLATE.float() / 512 * 32 + torch.tensor([left, 20.0])
    box = torch.tensor([left, 20.0, left + 32, 52.0])
    return FaceTrack(
        person=person,
        start=start,
        boxes=box.expand(length, 4).clone(),
        landmarks=landmarks.expand(length, 5, 2).clone(),
        matrices=torch.stack([similarity(landmarks)] * length),
        scores=torch.ones(length),
        detected=torch.ones(length, dtype=torch.bool),
        sharpness=torch.ones(length),
        frame_size=SIZE,
    )


def walk(frames, tracks, restorer, chunk):
    walked = Walk(tracks, restorer, Paster(feather=8, fade=False))
    out = []
    for index in range(0, len(frames), chunk):
        piece = frames[index : index + chunk].clone()
        starts = tuple(Fraction(index + i, 25) for i in range(len(piece)))
        out += walked.push(FrameChunk(index, piece, starts, tuple(start + Fraction(1, 25) for start in starts)))
    assert walked.empty
    return torch.cat([piece.frames for piece in out]), [start for piece in out for start in piece.starts]


@pytest.fixture(scope="module")
def frames():
    return torch.rand(13, 3, *SIZE, generator=torch.Generator().manual_seed(1)) * 0.5


TRACKS = [still_track(0, 0, 9, 4.0), still_track(1, 3, 10, 52.0), still_track(2, 11, 1, 10.0)]


@pytest.fixture(scope="module")
def at_once(frames):
    """The whole clip in one chunk by a restorer that waits for nothing."""
    return walk(frames, TRACKS, DelayedRestorer(0), 13)


@settings(max_examples=8, deadline=None)
@given(chunk=st.integers(1, 14), delay=st.integers(0, 12))
def test_chunks_and_look_ahead_do_not_change_the_clip(frames, at_once, chunk, delay):
    expected, times = at_once
    got, got_times = walk(frames, TRACKS, DelayedRestorer(delay), chunk)
    assert torch.equal(got, expected)
    assert got_times == times == [Fraction(i, 25) for i in range(13)]


def test_two_people_and_frames_without_anyone(frames):
    """Each person's shade lands on that person only, and only in the frames of the track."""
    out, _ = walk(frames, [TRACKS[0]], DelayedRestorer(2), 5)
    changed = (out - frames).abs().amax(1)
    assert changed[:9].flatten(1).amax(1).min() > 0.2
    assert torch.equal(out[9:], frames[9:])
    assert changed[:, :, 50:].max() == 0


def test_a_restorer_that_does_nothing_changes_nothing_visible(frames):
    smooth = torch.nn.functional.interpolate(frames[:, :, ::8, ::8], SIZE, mode="bicubic").clamp(0, 1)
    out, _ = walk(smooth, TRACKS[:2], DelayedRestorer(3, shade=0.0), 4)
    assert (out - smooth).abs().max() < 0.02


@pytest.mark.parametrize(
    ("changed", "gates", "why"),
    [
        ({}, "size=32-40", "too small with 32 pixels"),
        ({"pose": torch.full((9, 2), 80.0)}, "", "too blurred, turned aside, covered or briefly seen"),
        ({}, "size=20-32", ""),
        ({}, "off", ""),
    ],
)
def test_a_face_whose_gates_stay_shut_is_said_to_be_left(frames, changed, gates, why):
    """Else the report would tell of a face restored where no pixel changed."""
    walked = Walk([replace(TRACKS[0], **changed)], DelayedRestorer(0), Paster(gates=Gates.parse(gates)))
    times = tuple(Fraction(i, 25) for i in range(14))
    (out,) = walked.push(FrameChunk(0, frames.clone(), times[:-1], times[1:]))
    assert walked.notes == ([f"person 0, frame 0 on: left as it was, {why}"] if why else [])
    assert torch.equal(out.frames, frames) == bool(why)


def test_the_session_sees_the_crops_that_align_makes(frames):
    seen = []

    class Watching(DelayedRestorer):
        def open(self, track=None, *, seed=0, check_interrupt=lambda: None):
            session = Delayed(0, 0.0)
            push = session.push
            session.push = lambda crops: (seen.append((track.person, crops)), push(crops))[1]
            return session

    walk(frames, TRACKS[:2], Watching(0), 4)
    for track in TRACKS[:2]:
        crops = torch.cat([crops for person, crops in seen if person == track.person])
        assert torch.equal(crops, align(frames[track.start : track.stop], track, track.start))


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "in.mkv"
    make_film(path, (9, 12), codec="ffv1")
    return path


def one_after_the_other(monkeypatch):
    """No thread: decode, restore, write."""

    class Directly(WriteBehind):
        def __enter__(self):
            return self

        def __call__(self, *given):
            self.write(*given)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("fvr.pipeline.read_ahead", lambda items: items)
    monkeypatch.setattr("fvr.pipeline.WriteBehind", Directly)


def test_in_threads_the_clip_is_what_it_is_one_after_the_other(film, tmp_path, monkeypatch, one_thread):
    """Bit by bit, with times and progress; aligned clips too."""
    in_one_go(film, tmp_path / "threads.mkv")
    aligned_in_one_go(film, tmp_path / "aligned-threads.mkv")
    assert not ours()
    one_after_the_other(monkeypatch)
    in_one_go(film, tmp_path / "serial.mkv")
    aligned_in_one_go(film, tmp_path / "aligned-serial.mkv")
    for name in ("", "aligned-"):
        (frames, times), (others, other_times) = (read_frames(tmp_path / f"{name}{way}.mkv") for way in ("threads", "serial"))
        assert torch.equal(frames, others) and times.starts == other_times.starts and times.end == other_times.end


def test_pasting_goes_on_beside_the_restorer_unless_it_runs_a_network(film, tmp_path, monkeypatch, one_thread):
    """Two networks in two threads would be moved on and off a device at the same time."""
    threads, paste_over = [], Paster.paste_over

    def noted(self, *given):
        threads.append(threading.current_thread().name)
        return paste_over(self, *given)

    monkeypatch.setattr(Paster, "paste_over", noted)
    in_one_go(film, tmp_path / "beside.mkv")
    monkeypatch.setattr(Paster, "uses_networks", True)
    in_one_go(film, tmp_path / "in_turn.mkv")
    half = len(threads) // 2
    assert set(threads[:half]) == {"fvr writes behind"} and set(threads[half:]) == {threading.current_thread().name}
    assert torch.equal(read_frames(tmp_path / "beside.mkv")[0], read_frames(tmp_path / "in_turn.mkv")[0])


def aligned_in_one_go(clip, output, check=lambda: None):
    source = open_source(clip)
    with open_sink(output, None, size=(512, 512), codec="ffv1") as sink:
        return restore_aligned(Shrunk(source), sink, DelayedRestorer(2), check_interrupt=check)


class Shrunk:
    """A source as squares of 512."""

    def __init__(self, source):
        self.source, self.warnings = source, source.warnings

    def chunks(self, size):
        for piece in self.source.chunks(size):
            yield replace(piece, frames=torch.nn.functional.interpolate(piece.frames, (512, 512)), stored=())


def test_decoding_and_encoding_go_on_while_a_face_is_restored(film, tmp_path, one_thread):
    """While the restorer holds one chunk, the next one is decoded and the one before it is written."""
    decoded, written = [], []

    class Watched(Delayed):
        def push(self, crops):
            if len(seen) == 2:  # the third chunk
                until = time.monotonic() + 20
                while time.monotonic() < until and not (max(decoded) >= 16 and written):
                    time.sleep(0.005)
                seen.append(bool(max(decoded) >= 16 and written))
            else:
                seen.append(None)
            return super().push(crops)

    class Restoring(DelayedRestorer):
        def open(self, track=None, **_):
            return Watched(0, 0.25)

    class Counted(Shrunk):
        def chunks(self, size):
            for piece in self.source.chunks(4):
                decoded.append(piece.index + len(piece))
                yield replace(piece, frames=torch.nn.functional.interpolate(piece.frames, (512, 512)), stored=())

    seen: list = []
    make_film(tmp_path / "in.mkv", (40,), codec="ffv1")
    with open_sink(tmp_path / "out.mkv", None, size=(512, 512), codec="ffv1") as sink:
        real = sink.write
        sink.write = lambda *given: (real(*given), written.append(len(given[0])))
        restore_aligned(Counted(open_source(tmp_path / "in.mkv")), sink, Restoring(0))
    assert seen[2] is True and sum(written) == 40


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InterruptedError("stopped on request")])
def test_interrupted_it_leaves_no_thread_and_no_file(film, tmp_path, error, one_thread):
    asked = []

    def check():
        asked.append(1)
        if len(asked) == 2:
            raise error

    with pytest.raises(type(error)):
        aligned_in_one_go(film, tmp_path / "out.mkv", check)
    assert not ours() and not list(tmp_path.iterdir())


def test_what_goes_wrong_in_a_thread_is_said_in_its_own_sentence(film, tmp_path, one_thread):
    """A disk that is full, a file that ends: the error that was raised there, and no thread and no file."""

    class Torn(Shrunk):
        def chunks(self, size):
            yield from list(super().chunks(size))[:1]
            raise VideoError("in.mkv is damaged after frame 8")

    source = open_source(film)
    with (
        pytest.raises(VideoError, match="damaged after frame 8"),
        open_sink(tmp_path / "out.mkv", None, size=(512, 512), codec="ffv1") as sink,
    ):
        restore_aligned(Torn(source), sink, DelayedRestorer(0))
    with pytest.raises(OSError, match="no room"), open_sink(tmp_path / "out.mkv", None, size=(512, 512), codec="ffv1") as sink:
        sink.write = lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "no room"))
        restore_aligned(Shrunk(source), sink, DelayedRestorer(0))
    assert not ours() and not list(tmp_path.iterdir())


@pytest.mark.parametrize("how", ["clip", "aligned", "segment"])
def test_a_restorer_that_works_long_hears_what_stops_the_writer(film, tmp_path, monkeypatch, how, one_thread):
    """ComfyUI tells a request to stop to one who asks, which may be the writer; the restorer's next frames may take minutes."""
    stopped = threading.Event()

    def stop(*_):
        stopped.set()
        raise KeyboardInterrupt

    class Asking(Delayed):
        def __init__(self, check):
            super().__init__(0, 0.0)
            self.check = check

        def push(self, crops):
            if self.past:  # the writer has the frames before these
                assert stopped.wait(20)
                for _ in range(200):
                    time.sleep(0.01)
                    self.check()
                pytest.fail("the restorer was not told")
            self.past.append(crops)
            return super().push(crops)

    class Restoring(DelayedRestorer):
        def open(self, track=None, *, seed=0, check_interrupt=lambda: None):
            session = Asking(check_interrupt)
            session.past = past
            return session

    past: list = []
    job = planned(tmp_path / "job", film, Restoring(0), seconds=10) if how == "segment" else None
    monkeypatch.setattr("fvr.video.VideoSink.write", stop)
    with pytest.raises(KeyboardInterrupt):
        if job is not None:
            restore_segment(job, job.segments[0], tools(job.frames, Restoring(0)))
        elif how == "clip":
            in_one_go(film, tmp_path / "out.mkv", Restoring(0))
        else:
            with open_sink(tmp_path / "out.mkv", None, size=(512, 512), codec="ffv1") as sink:
                restore_aligned(Shrunk(open_source(film)), sink, Restoring(0))
    assert not ours() and not (tmp_path / "out.mkv").exists()


@pytest.mark.parametrize("faces, words", [("biggest", "must be all"), ("like:nowhere.jpg", "cannot be read"), ("like:GREY", "shows no face")])
def test_whom_to_restore_is_read_before_the_clip_is(film, tmp_path, faces, words):
    """A misspelt word costs no pass over a film: the detector, which would find nobody, is never asked. Nor is it by a job's plan."""
    asked = []

    def detector(frames):
        asked.append(len(frames))
        return [[]] * len(frames)

    with open_sink(tmp_path / "grey_%d.png", size=(64, 64)) as sink:
        sink.write(torch.full((1, 3, 64, 64), 0.5), (Fraction(0),), (Fraction(1),))
    faces = faces.replace("GREY", str(tmp_path / "grey_0.png"))
    source = open_source(film)
    with pytest.raises((ValueError, OSError), match=words), open_sink(tmp_path / "out.mkv", source.info, codec="ffv1") as sink:
        restore_clip_in_frames(source, sink, Remembering(), detector, faces=faces)
    with pytest.raises((ValueError, OSError), match=words):
        plan(tmp_path / "job", source, Tools(Remembering(), detector, Paster()), identity={}, request={}, selection={}, encoding={}, faces=faces)
    assert not asked


def test_of_many_notes_a_summary_says_the_first_and_the_report_all():
    notes = tuple(f"person {number}: sharp" for number in range(59))
    summary = Summary(1, 1.0, "blind", notes=notes, warnings=("one warning",))
    said = summary.to_text().splitlines()
    assert said[1:] == [*notes[:10], "and 49 more, all in the report", "one warning"] and summary.to_dict()["notes"] == list(notes)
    assert replace(summary, notes=notes[:10]).to_text().splitlines()[1:] == [*notes[:10], "one warning"]
