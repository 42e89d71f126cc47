"""The walk of a clip: every frame comes out once, in order, whatever the restorer looks ahead and however the clip is chunked."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fvr.faces import Paster, align
from fvr.faces.geometry import TEMPLATE, similarity
from fvr.faces.types import FaceTrack
from fvr.methods.base import Restorer, Session
from fvr.pipeline import Walk
from fvr.video import FrameChunk

SIZE = (72, 96)


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
        piece = frames[index : index + chunk]
        starts = tuple(Fraction(index + i, 25) for i in range(len(piece)))
        out += walked.push(FrameChunk(index, piece, starts, tuple(start + Fraction(1, 25) for start in starts)))
    assert walked.empty
    return torch.cat([piece.frames for piece in out]), [start for piece in out for start in piece.starts]


@pytest.fixture(scope="module")
def frames():
    return torch.rand(13, 3, *SIZE, generator=torch.Generator().manual_seed(1)) * 0.5


TRACKS = [still_track(0, 0, 9, 4.0), still_track(1, 3, 10, 52.0), still_track(2, 11, 1, 10.0)]


@settings(max_examples=8, deadline=None)
@given(chunk=st.integers(1, 14), delay=st.integers(0, 12))
def test_chunks_and_look_ahead_do_not_change_the_clip(frames, chunk, delay):
    expected, times = walk(frames, TRACKS, DelayedRestorer(0), 13)
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
