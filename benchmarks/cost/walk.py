"""Where the time of `fvr restore` goes: python benchmarks/cost/walk.py CLIPS [--methods blind,codeformer] [--frames 100] [--sizes 720,1080]
        [--precision auto]

The clip is scene_720p_clean.mp4, one face, enlarged for 1080p. For each part of the walk its wall and CPU time per frame, each without the parts
inside it, and its share of all CPU time. No clock tells what codecs do in threads of their own from the start and the rest. "waits" is wall time in
which the thread that restores waits for another one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch.nn.functional as F

from fvr import job_request, pipeline
from fvr.cli import main as fvr
from fvr.faces import Paster
from fvr.video import FrameSource, VideoSink, open_sink, open_source
from fvr.video.overlap import WriteBehind

CLIP = "scene_720p_clean.mp4"
RATE = Fraction(25)


class Clock:
    """Wall and CPU seconds of named parts, per thread, each without the parts that it calls."""

    def __init__(self) -> None:
        self.wall: Counter[str] = Counter()
        self.cpu: Counter[str] = Counter()
        self.open = threading.local()

    def begin(self) -> None:
        stack = self.open.__dict__.setdefault("stack", [])
        stack.append([time.monotonic(), time.thread_time(), 0.0, 0.0])

    def end(self, name: str) -> None:
        stack = self.open.stack
        wall, cpu, inner_wall, inner_cpu = stack.pop()
        wall, cpu = time.monotonic() - wall, time.thread_time() - cpu
        self.wall[name] += wall - inner_wall
        self.cpu[name] += cpu - inner_cpu
        if stack:
            stack[-1][2] += wall
            stack[-1][3] += cpu

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.begin()
            try:
                return call(*args, **kwargs)
            finally:
                self.end(name)

        return timed

    def each(self, name: str, call: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """The same for the steps of a generator."""

        def timed(*args: Any, **kwargs: Any) -> Iterator[Any]:
            steps = call(*args, **kwargs)
            while True:
                self.begin()
                try:
                    item = next(steps)
                except StopIteration:
                    return
                finally:
                    self.end(name)
                yield item

        return timed


def walk(clip: Path, out: Path, method: str, precision: str) -> tuple[Clock, float, float]:
    """The clock, wall and CPU seconds of one `fvr restore`."""
    clock = Clock()

    def timed_restorer(*args: Any, **kwargs: Any) -> Any:
        restorer = build(*args, **kwargs)
        opened = restorer.open

        def open_(*args: Any, **kwargs: Any) -> Any:
            session = opened(*args, **kwargs)
            session.push, session.close = clock.around("restore", session.push), clock.around("restore", session.close)
            return session

        restorer.open = open_
        return restorer

    build = job_request.build_restorer
    parts = [
        (FrameSource, "chunks", clock.each("decode", FrameSource.chunks)),
        (pipeline, "find_tracks", clock.around("detect", pipeline.find_tracks)),
        (pipeline, "aligned_crops", clock.around("align", pipeline.aligned_crops)),
        (Paster, "paste_over", clock.around("paste", Paster.paste_over)),
        (VideoSink, "write", clock.around("encode", VideoSink.write)),
        (VideoSink, "finish", clock.around("encode", VideoSink.finish)),
        (pipeline, "read_ahead", clock.each("waits", pipeline.read_ahead)),
        (WriteBehind, "__call__", clock.around("waits", WriteBehind.__call__)),
        (WriteBehind, "__exit__", clock.around("waits", WriteBehind.__exit__)),
        (job_request, "build_restorer", timed_restorer),
    ]
    with ExitStack() as stack:
        for owner, name, timed in parts:
            stack.enter_context(patch.object(owner, name, timed))
        began, cpu = time.monotonic(), time.process_time()
        if fvr(["restore", str(clip), str(out), "--method", method, "--device", "cpu", "--precision", precision, "--overwrite"]):
            raise SystemExit(f"fvr restore --method {method} failed")
        return clock, time.monotonic() - began, time.process_time() - cpu


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help=f"a folder with {CLIP}")
    parser.add_argument("--methods", default="blind")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--sizes", default="720,1080")
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for height in map(int, options.sizes.split(",")):
            clip = Path(name) / f"{height}.mp4"
            loop(options.clips / CLIP, clip, options.frames, height)
            for method in options.methods.split(","):
                clock, wall, cpu = walk(clip, Path(name) / "out.mp4", method, options.precision)
                told = {name: (clock.wall[name], clock.cpu[name]) for name in ("decode", "detect", "align", "restore", "paste", "encode", "waits")}
                told["codecs and rest"] = (float("nan"), cpu - sum(clock.cpu.values()))
                rate, load = options.frames / wall, os.getloadavg()[0]
                print(
                    f"{height}p {method}, {options.precision}: {rate:.2f} frames/s, CPU {1000 * cpu / options.frames:.0f} ms a frame, load {load:.1f}"
                )
                for part, (took, used) in told.items():
                    print(f"  {part}: {1000 * took / options.frames:.0f} ms, CPU {1000 * used / options.frames:.0f} ms, {used / cpu:.0%}", flush=True)
    return 0


def loop(clip: Path, out: Path, count: int, height: int | None = None) -> None:
    """Writes `count` frames of the clip played forwards over and over, at this height unless None."""
    pieces = islice((frame for _ in cycle([0]) for chunk in open_source(clip).chunks(8) for frame in chunk.frames), count)
    with open_sink(out, None, crf=18) as sink:
        for n, frame in enumerate(pieces):
            piece = frame[None]
            if height is not None:
                size = height, round(frame.shape[-1] * height / frame.shape[-2] / 2) * 2
                piece = F.interpolate(piece, size, mode="bicubic").clamp(0, 1)
            sink.write(piece, [n / RATE], [(n + 1) / RATE])


if __name__ == "__main__":
    sys.exit(main())
