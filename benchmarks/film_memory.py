"""Peak memory of a job's plan and join over a film of any length, made up as it is read: python benchmarks/film_memory.py 1000 100000"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import torch

from fvr.faces import Face, Paster, tracks
from fvr.faces.geometry import landmarks_in_box
from fvr.film.files import publish, write_json
from fvr.film.join import join
from fvr.film.plan import Tools, plan
from fvr.film.segment import segment_sink
from fvr.methods.base import Restorer
from fvr.video import FrameSource, open_sink, open_source
from fvr.video.source import Timed

SIZE = (64, 64)
SHOT = 50
RATE = Fraction(25)


class Endless(FrameSource):
    """`count` frames: shots of SHOT frames, dark and bright in turn. Its place is a small file of the same size."""

    def __init__(self, place: Path, count: int) -> None:
        small = open_source(place)
        self.place, self.info, self.selection, self.warnings, self.count = small.place, small.info, small.selection, [], count

    def numbered(self):
        grounds = torch.full((3, *SIZE), 0.1), torch.full((3, *SIZE), 0.9)
        for n in range(self.count):
            yield Timed(n / RATE, lambda n=n: grounds[n // SHOT % 2], (n + 1) / RATE)


class Nobody(Restorer):
    name = "nobody"

    def open(self, track=None, **_):
        raise NotImplementedError


BOX = torch.tensor([10.0, 10.0, 50.0, 50.0])


def a_face(frames):
    return [[Face(BOX, landmarks_in_box(BOX), 0.99)] for _ in frames]


def any_embedding(faces):
    """Costs nothing; the real network's memory is the same for any film, and 2,000 shots of it take a quarter of an hour."""
    return torch.nn.functional.normalize(torch.rand(len(faces), 128), dim=1)


def measure(count: int) -> None:
    torch.set_num_threads(1)
    tracks.load_embed = lambda: any_embedding
    with tempfile.TemporaryDirectory() as name:
        folder, small = Path(name), Path(name) / "small.mkv"
        with open_sink(small, None, size=SIZE, codec="ffv1") as sink:
            sink.write(torch.zeros(2, 3, *SIZE), [Fraction(0), 1 / RATE], [1 / RATE, 2 / RATE])
        tools = Tools(Nobody(), a_face, Paster())
        encoding = dict(codec="h264", crf=30, pixel_format=None, container="matroska")
        selection = dict(start=0, count=None, stride=1, rate="25", deinterlace="auto")
        began = time.monotonic()
        job = plan(folder / "job", Endless(small, count), tools, identity={}, request={}, selection=selection, encoding=encoding)
        planned, peak = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for segment in job.segments:
            part, times = job.parts / "x.part", job.times(segment.first, segment.stop)
            with segment_sink(part, open_source(small).info, job) as sink:
                for n in range(len(segment)):
                    sink.write(torch.zeros(1, 3, *SIZE), times[n : n + 1], times[n + 1 : n + 2])
            told = {"frames": len(segment), "times": job.checksum(segment), "bytes": part.stat().st_size, "seconds": 0, "ended": 0, **sink.order()}
            publish(part, job.file(segment))
            write_json(job.parts / f"{segment.name}.json", told)
        began = time.monotonic()
        join(job, folder / "out.mkv")
        sizes = {file.name: file.stat().st_size for file in job.folder.iterdir() if file.is_file()}
        print(
            f"{count:,} frames, {len(job.segments)} segments: plan {planned:.1f} s, peak {peak / 1024:.0f} MiB; "
            f"join {time.monotonic() - began:.1f} s, peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB; {sizes}",
            flush=True,
        )


if __name__ == "__main__":
    for number in sys.argv[1:]:
        if len(sys.argv) == 2:
            measure(int(number))
        else:
            subprocess.run([sys.executable, __file__, number], check=True)
