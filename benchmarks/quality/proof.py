"""Restores every clip of a folder with `fvr restore` and prints what survived the trip.

    python benchmarks/quality/proof.py CLIPS [--count N] [--set NAME=VALUE ...] [--keep FOLDER]

A row per clip: frames in and out, whether every presentation time, the rotation flag, the pixel aspect and the duration are kept, how far
the sound moved against the picture, people found, seconds, peak memory. Exit status 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import av
import numpy as np


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--count", type=int, help="only the first N frames of each clip")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--keep", type=Path, help="leave the restored clips here")
    options = parser.parse_args()
    lost = 0
    columns = ["clip", "frames in / out", "times", "rotation", "aspect", "duration", "beep error", "people", "s", "peak MB"]
    print(table_row(columns), table_row(["---"] * len(columns)), sep="\n")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for clip in sorted(options.clips.glob("*.mp4")):
            row = prove(clip, folder / clip.name, options)
            lost += "LOST" in row
            print(row, flush=True)
    return 1 if lost else 0


def prove(clip: Path, out: Path, options: argparse.Namespace) -> str:
    report = out.with_suffix(".json")
    command = [sys.executable, "-m", "fvr.cli", "restore", str(clip), str(out), "--overwrite", "--report", str(report)]
    command += [f"--count={options.count}"] if options.count else []
    began = time.monotonic()
    subprocess.run([*command, *(part for setting in options.set for part in ("--set", setting))], check=True, stdout=subprocess.DEVNULL)
    seconds, peak = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    before, after = look(clip), look(out)
    expected = before["times"][: options.count] if options.count else before["times"]
    origin = expected[0] if expected else 0
    same_times = [float(t - origin) for t in expected] == [float(t - after["times"][0]) for t in after["times"]]
    beeps = [f"{max(abs(b - round(b)) for b in side['beeps']) * 1000:.1f} ms" for side in (before, after) if side["beeps"]]
    longest = max((float(b - a) for a, b in pairwise(expected)), default=0.0)
    same_length = options.count or abs(before["duration"] - after["duration"]) <= longest
    return table_row(
        [
            clip.name,
            mark(len(expected) == len(after["times"]), f"{len(expected)} / {len(after['times'])}"),
            mark(same_times),
            mark(before["rotation"] == after["rotation"], after["rotation"]),
            mark(before["aspect"] == after["aspect"], after["aspect"]),
            mark(same_length, f"{after['duration']:.3f}"),
            " to ".join(beeps) or "-",
            str(len(json.loads(report.read_text())["faces"]["people"])),
            f"{seconds:.0f}",
            f"{peak:.0f}",
        ]
    )


def table_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def mark(kept: object, value: object = "kept") -> str:
    return str(value) if kept else f"LOST ({value})"


def look(path: Path) -> dict:
    """Times, rotation, aspect, duration and the onsets of 1 kHz beeps of a file."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        frames = [(frame.pts * frame.time_base, frame.rotation) for frame in file.decode(stream)]
        duration = float(file.duration or 0) / av.time_base
        aspect = stream.sample_aspect_ratio or 1
    return {"times": [t for t, _ in frames], "rotation": frames[0][1], "aspect": aspect, "duration": duration, "beeps": beeps(path)}


def beeps(path: Path) -> list[float]:
    """Onsets, in seconds, of a 1 kHz tone in the sound, if there is sound."""
    with av.open(str(path)) as file:
        if not file.streams.audio:
            return []
        pieces = [
            (frame.pts * frame.time_base, frame.to_ndarray()[0].astype(float), frame.sample_rate) for frame in file.decode(file.streams.audio[0])
        ]
    rate, origin = pieces[0][2], float(pieces[0][0])
    sound = np.concatenate([samples for _, samples, _ in pieces])
    phase = np.exp(-2j * np.pi * 1000 * np.arange(len(sound)) / rate)
    width = rate // 100
    level = np.abs(np.convolve(sound * phase, np.ones(width) / width, "same"))
    high = level > 0.5 * level.max()
    onsets = np.flatnonzero(high[1:] & ~high[:-1]) + 1
    return [origin + onset / rate for onset in onsets if high[onset : onset + rate // 50].all()]


if __name__ == "__main__":
    sys.exit(main())
