"""Peak memory of a job's plan and join over a film of any length, made up as it is read: python benchmarks/cost/film_memory.py 1000 100000"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import torch

from fvr.atomic import publish
from fvr.faces import Face, Paster
from fvr.faces.geometry import landmarks_in_box
from fvr.faces.tracking import tracks
from fvr.film.files import write_json
from fvr.film.job import Job, Tools
from fvr.film.join import join
from fvr.film.plan import plan
from fvr.film.segment import SegmentSink
from fvr.methods.base import Restorer
from fvr.video import FrameSource, open_sink, open_source
from fvr.video.reading.source import Timed

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


def measured_once() -> None:
    """What is measured on a face is measured once, and copied for the others, which all look alike: that is most of the time of a plan."""
    picture = torch.rand(3, 64, 64)
    look, sharp, kept = tracks.descriptor(picture), tracks.sharpness(picture), tracks.encode_crop(torch.rand(3, 150, 150))
    tracks.chip = tracks.embedding_crop = lambda *_: picture
    tracks.descriptor, tracks.sharpness, tracks.encode_crop = lambda _: look.clone(), lambda _: sharp, lambda _: bytes(bytearray(kept))


def any_embedding(faces):
    """Costs nothing; the real network's memory is the same for any film, and 2,000 shots of it take a quarter of an hour."""
    return torch.nn.functional.normalize(torch.rand(len(faces), 128), dim=1)


def small_film(folder: Path) -> Path:
    """Two frames of the made-up film's size, for its header."""
    path = folder / "small.mkv"
    if not path.exists():
        with open_sink(path, None, size=SIZE, codec="ffv1") as sink:
            sink.write(torch.zeros(2, 3, *SIZE), [Fraction(0), 1 / RATE], [1 / RATE, 2 / RATE])
    return path


def planned(folder: Path, count: int) -> Job:
    tools = Tools(Nobody(), a_face, Paster())
    encoding = dict(codec="h264", crf=30, pixel_format=None, container="matroska")
    selection = dict(start=0, count=None, stride=1, rate="25", deinterlace="auto")
    source = Endless(small_film(folder), count)
    return plan(folder / "job", source, tools, identity={}, request={}, selection=selection, encoding=encoding)


def fill(folder: Path, count: int) -> None:
    """Writes all segments, which hold black frames."""
    job, small = planned(folder, count), small_film(folder)
    for segment in job.segments:
        part, times = job.parts / "x.part", job.times(segment.first, segment.stop)
        with SegmentSink(part, open_source(small).info, job) as sink:
            for n in range(len(segment)):
                sink.write(torch.zeros(1, 3, *SIZE), times[n : n + 1], times[n + 1 : n + 2])
        told = {"frames": len(segment), "times": job.checksum(segment), "bytes": part.stat().st_size, "seconds": 0, "ended": 0, **sink.order()}
        publish(part, job.file(segment))
        write_json(job.parts / f"{segment.name}.json", told)


STEPS = {"plan": planned, "fill": fill, "join": lambda folder, count: join(planned(folder, count), folder / "out.mkv")}


def measure(step: str, folder: Path, count: int) -> None:
    torch.set_num_threads(1)
    tracks.load_embedder = lambda: any_embedding
    measured_once()
    began = time.monotonic()
    STEPS[step](folder, count)
    if step != "fill":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{count:,} frames: {step} {time.monotonic() - began:.1f} s, peak {peak:.0f} MiB", flush=True)


if __name__ == "__main__":
    if sys.argv[1] in STEPS:
        measure(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    else:
        for number in sys.argv[1:]:
            with tempfile.TemporaryDirectory() as name:
                for step in STEPS:  # each in a process of its own: none is told the peak of another
                    subprocess.run([sys.executable, __file__, step, name, number], check=True)
                files = {file.name: file.stat().st_size for file in (Path(name) / "job").iterdir() if file.is_file()}
                print(f"{int(number):,} frames: {files}", flush=True)
