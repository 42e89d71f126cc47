"""A film of a few short shots with a face in each, restored in no time by a restorer that remembers all it has seen of a face."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from fvr.faces import ExternalDetections, Paster, faces_from_boxes, load_detector
from fvr.film import first_pass
from fvr.film.executors import failed, work
from fvr.film.job import Job, Tools
from fvr.film.join import join_once
from fvr.film.plan import plan
from fvr.methods.base import Restorer, Session, WarmUp
from fvr.pipeline import restore_clip_in_frames
from fvr.video import AudioTrack, FrameSource, open_sink, open_source, probe, read_frames

SIZE = (96, 128)
RATE = Fraction(25)
SHOT = 6
"""Frames of a shot."""


def shot(number: int, count: int) -> Tensor:
    """(count, 3, *SIZE) in [0, 1]: a bright or a dark ground of its own, with a soft pattern that moves."""
    generator = torch.Generator().manual_seed(number)
    ground = torch.rand(3, 1, 1, generator=generator) * 0.3 + (0.6 if number % 2 else 0.05)
    pattern = torch.nn.functional.interpolate(torch.rand(1, 3, 7, 9, generator=generator), (SIZE[0] + 32, SIZE[1] + 32), mode="bicubic")[0]
    moved = [pattern[:, n % 32 : n % 32 + SIZE[0], n % 29 : n % 29 + SIZE[1]] for n in range(count)]
    return (ground + 0.3 * (torch.stack(moved) - 0.5)).clamp(0, 1)


def make_film(path: Path, lengths: tuple[int, ...] = (SHOT,) * 6, *, start: Fraction = Fraction(0), **encoding) -> None:
    """Writes shots of these lengths, with a tone."""
    count = sum(lengths)
    tone = AudioTrack(torch.sin(torch.arange(int(8000 * count / RATE)) * 0.3)[None] * 0.2, 8000)
    with open_sink(path, None, size=SIZE, audio=tone, **encoding) as sink:
        first = 0
        for number, length in enumerate(lengths):
            times = [start + n / RATE for n in range(first, first + length + 1)]
            sink.write(shot(number, length), times[:-1], times[1:])
            first += length


def face_everywhere(frames: int) -> ExternalDetections:
    """A face that drifts a little."""
    return ExternalDetections(faces_from_boxes([{"x": 40 + n % 5, "y": 24, "width": 44, "height": 50} for n in range(frames)], frames))


class Remembering(Restorer):
    """Each frame is 0.6 of itself and 0.4 of what became of the frame before, two frames late; slow if it shall be."""

    name = "remembering"
    look_ahead = 2

    def __init__(self, pause: float = 0.0, warm_up: WarmUp | None = None, fails: Path | None = None) -> None:
        self.pause, self.fails = pause, fails
        if warm_up is not None:
            self.warm_up = warm_up

    def open(self, track=None, *, seed=0, check_interrupt=lambda: None):
        if self.fails is not None and self.fails.exists():
            raise RuntimeError(f"told to fail by {self.fails.name}")
        return RememberingSession(self.pause)


class RememberingSession(Session):
    def __init__(self, pause: float) -> None:
        self.pause = pause
        self.held: list[Tensor] = []
        self.past: Tensor | None = None

    def push(self, crops: Tensor) -> Tensor:
        for crop in crops:
            time.sleep(self.pause)
            self.past = crop.flip(0) if self.past is None else 0.6 * crop.flip(0) + 0.4 * self.past
            self.held.append(self.past)
        ready, self.held = self.held[:-2], self.held[-2:]
        return torch.stack(ready) if ready else torch.empty(0, 3, 512, 512)

    def close(self) -> Tensor:
        return torch.stack(self.held) if self.held else torch.empty(0, 3, 512, 512)


def tools(frames: int, restorer: Restorer | None = None) -> Tools:
    return Tools(restorer or Remembering(), face_everywhere(frames), Paster(feather=8, grain="off"))


class KilledOnce(Remembering):
    """Kills its process, as hard as can be, in the middle of the first face it sees, once."""

    def __init__(self, flag: Path) -> None:
        super().__init__()
        self.flag = flag

    def open(self, track=None, **common):
        if self.flag.exists():
            self.flag.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().open(track, **common)


def tools_of(job: Job) -> Tools:
    """For workers elsewhere, which know the job's folder only."""
    torch.set_num_threads(1)
    return tools(job.frames, KilledOnce(job.folder.parent / "kill-once"))


LOSSLESS = dict(codec="ffv1", crf=17, pixel_format=None, container="matroska")
SELECTION = dict(start=0, count=None, stride=1, rate="25", deinterlace="auto")


def planned(
    folder: Path, clip: Path, restorer: Restorer | None = None, *, seconds: float = SHOT / 25, encoding=LOSSLESS, detector=None, **changes
) -> Job:
    """The job in `folder`, planned if it is not."""
    selection = {**SELECTION, **changes.pop("selection", {})}
    source = open_source(clip, start=selection["start"], count=selection["count"], stride=selection["stride"])
    identity = {"version": "1", "settings": {"seed": 0}, **changes.pop("identity", {})}
    made = tools(source.expected + 8, restorer)
    made = made if detector is None else replace(made, detector=detector)
    return plan(folder, source, made, identity=identity, request={}, selection=selection, encoding=encoding, seconds=seconds, **changes)


def find_faces(folder, clip, kill_at=None, **changes):
    """Plans the job, with a snapshot of every chunk, and leaves a note of the frame with which it began; dies as soon as so many frames are done."""
    torch.set_num_threads(1)
    first_pass.INTERVAL = 0.0

    @contextmanager
    def finds(kept):
        found = [kept]
        folder.with_suffix(".began").write_text(str(kept))

        def on_found(frames):
            found.append(frames)
            if kill_at is not None and sum(found) >= kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        yield on_found

    planned(folder, clip, detector=load_detector("blazeface"), finds=finds, **changes)
    return int(folder.with_suffix(".began").read_text())


def run(folder: Path, clip: Path, output: Path, pause: float = 0.0, encoding=LOSSLESS) -> None:
    """A whole job in this process, as its command does it."""
    torch.set_num_threads(1)
    restorer = Remembering(pause)
    job = planned(folder, clip, restorer, encoding=encoding)
    job.forgive()
    work(job, lambda: tools(job.frames, restorer), say=print)
    assert not failed(job)
    join_once(job, output)


def in_one_go(clip: Path, output: Path, restorer: Restorer | None = None, encoding=LOSSLESS, source: FrameSource | None = None) -> None:
    """The film restored without a job."""
    source = source or open_source(clip)
    made = tools((source.info.frame_estimate or 0) + 8, restorer)
    with open_sink(
        output, source.info, size=(source.info.height, source.info.width), audio=source, **{k: encoding[k] for k in ("codec", "crf", "pixel_format")}
    ) as sink:
        restore_clip_in_frames(source, sink, made.restorer, made.detector, paster=made.paster)


def same(one, other):
    """Frames to the bit, times, sound."""
    (frames, times), (others, other_times) = read_frames(one), read_frames(other)
    assert torch.equal(frames, others)
    assert times.starts == other_times.starts and times.end == other_times.end
    assert [a.codec for a in probe(one).audio_streams] == [a.codec for a in probe(other).audio_streams]


def done_at(folder: Path) -> dict[str, int]:
    """When the segments that are done were written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("segments/*.mkv") if path.with_suffix(".json").exists()}


def make_room(disk: Path) -> None:
    assert os.system(f"mount -o remount,size=8m {disk}") == 0
