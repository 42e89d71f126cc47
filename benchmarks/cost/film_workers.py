"""A film by two workers against one, a thread each: python benchmarks/cost/film_workers.py CLIPS [--method codeformer] [--shots 8] [--repeat 2]

Shots of two clips in turn, a segment each, so that nothing but the number of workers differs. The orders alternate within one run. Where others use
the machine too, wall times say little: beside them stand the CPU seconds of all processes, and what these come to where each worker has a core.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

from fvr.video import open_sink, read_frames

RATE = Fraction(25)
CLIPS = "clean_face_480_tone.mp4", "edge_vfr_30_15fps.mp4"
"""Of one size."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help=f"a folder with {' and '.join(CLIPS)}")
    parser.add_argument("--method", default="codeformer")
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--frames", type=int, default=30, help="of a shot")
    parser.add_argument("--repeat", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_film(folder / "film.mp4", [options.clips / clip for clip in CLIPS], options.shots, options.frames)
        times: dict[int, list[tuple[float, float]]] = {0: [measured(folder, options, 0)], 1: [], 2: []}
        for turn in range(options.repeat):
            for workers in (1, 2) if turn % 2 == 0 else (2, 1):
                times[workers].append(measured(folder, options, workers))
    (wall_1, cpu_1), (wall_2, cpu_2), (_, cpu_0) = (tuple(map(min, zip(*times[workers], strict=True))) for workers in (1, 2, 0))
    alone = cpu_0 + (cpu_2 - cpu_0) / 2
    print(f"{options.method}, {options.shots} segments of {options.frames} frames, best of {options.repeat}: wall {wall_1 / wall_2:.2f}")
    print(f"CPU of two workers' run {cpu_2 / cpu_1:.2f} of one's, {cpu_0:.1f} s of it start and plan; with a core for each {cpu_1 / alone:.2f}")
    return 0


def make_film(path: Path, clips: list[Path], shots: int, frames: int) -> None:
    pieces = [read_frames(clip, count=frames)[0] for clip in clips]
    with open_sink(path) as sink:
        for shot in range(shots):
            times = [n / RATE for n in range(shot * frames, (shot + 1) * frames + 1)]
            sink.write(pieces[shot % 2], times[:-1], times[1:])


def measured(folder: Path, options: argparse.Namespace, workers: int) -> tuple[float, float]:
    """Wall and CPU seconds of the whole command; 0 workers only start and plan."""
    out = folder / f"{time.monotonic_ns()}.mp4"
    command = [sys.executable, "-c", "import sys; from fvr.cli import main; sys.exit(main())", "restore", str(folder / "film.mp4"), str(out)]
    command += ["--method", options.method, "--workers", str(workers), "--segment-seconds", str(options.frames / float(RATE)), "--device", "cpu"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{workers} workers: {wall:.1f} s, CPU {cpu:.1f} s, load {os.getloadavg()[0]:.1f}", flush=True)
    return wall, cpu


if __name__ == "__main__":
    sys.exit(main())
