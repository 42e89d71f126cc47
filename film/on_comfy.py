"""Runs a job on ComfyUI servers with this pack: uploads plan and clip and downloads segments by ComfyUI's HTTP API, without a shared disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..atomic import atomic_file
from ..models.device import CheckInterrupt, no_check
from ..pipeline import Progress, no_progress
from .bundle import FOLDER, NODE, pack
from .comfy_server import CHUNK_BYTES, ComfyServer, Refused, TooLarge, Unreachable, view_route
from .executors import ATTEMPTS, POLL_INTERVAL, Say, Stopping, attempt, frames_done, never, work_loop
from .files import SAMPLE, sha256, write_json
from .job import Job, Segment

NOTED = ("frames", "times", "bytes", "seconds", "delay")
"""What a segment's note says at least."""


class Stopped(Exception):
    """Raised in a server's thread to end the job."""


class Worker:
    """A server working on a job. `gone`: why it takes no more segments, empty while it does."""

    def __init__(self, job: Job, server: ComfyServer, bundle: bytes) -> None:
        self.job, self.server, self.bundle = job, server, bundle
        self.clip: tuple[str, str] | None = None
        self.gone = ""
        self.failures = 0
        self.failed: set[int] = set()

    def prepare(self, check_interrupt: CheckInterrupt = no_check) -> None:
        """Uploads missing files and checks them against the plan. Raises Unreachable or Refused if the server cannot take part."""
        self.server.request_json("/system_stats")
        if NODE not in self.server.request_json(f"/object_info/{NODE}"):
            raise Refused(f"{self.server.address} has no node Restore Segment; install this pack there, in the version that is here")
        self.restore(-1, check_interrupt)

    def restore(self, number: int, check_interrupt: CheckInterrupt) -> dict[str, Any]:
        """Restores a segment on the server; returns the node's UI output."""
        name = f"{sha256(self.bundle)[:16]}.zip"
        if self.server.file_size(view_route(name, FOLDER, "temp")) != len(self.bundle):  # a server that was restarted has emptied it
            self.server.upload(name, FOLDER, "temp", len(self.bundle), [self.bundle], check_interrupt)
        folder, clip = self.place_of_clip(check_interrupt)
        inputs = {"job": f"{FOLDER}/{name} [temp]", "clip": f"{folder}/{clip}" if folder else clip, "segment": number}
        return self.server.run(NODE, inputs, check_interrupt)

    def place_of_clip(self, check_interrupt: CheckInterrupt) -> tuple[str, str]:
        """Subfolder and name of the film in the server's input folder: under its own name if it is there, else as uploaded."""
        path, planned = Path(self.job.plan["place"]), self.job.plan["identity"]["input"]
        uploaded = (FOLDER, f"{sha256((planned['head'] + planned['tail']).encode())[:16]}{path.suffix}")
        if self.clip is None or self.server.file_size(view_route(self.clip[1], self.clip[0], "input")) != planned["bytes"]:
            self.clip = next((place for place in (("", path.name), uploaded) if self.is_the_clip(*place)), None)
        if self.clip is None:
            if not path.is_file():
                raise ValueError(f"{path} is no file, and only a file can be sent to ComfyUI; make a video of it first")
            self.server.upload(uploaded[1], FOLDER, "input", planned["bytes"], pieces(path, planned["bytes"]), check_interrupt)
            self.clip = uploaded
        return self.clip

    def is_the_clip(self, folder: str, name: str) -> bool:
        """Whether a file is the film, by its size and the hashes of its first and last MiB."""
        planned, view = self.job.plan["identity"]["input"], view_route(name, folder, "input")
        size = planned["bytes"]
        if self.server.file_size(view) != size:
            return False
        ends = [self.server.read_range(view, first, min(SAMPLE, size)) for first in (0, max(0, size - SAMPLE))]
        return [sha256(end) for end in ends] == [planned["head"], planned["tail"]]


def pieces(path: Path, size: int) -> Iterator[bytes]:
    """The first `size` bytes of a file in chunks. Raises ValueError if it became shorter."""
    left = size
    with path.open("rb") as file:
        while data := file.read(min(CHUNK_BYTES, left)):
            left -= len(data)
            yield data
    if left:
        raise ValueError(f"{path} has become shorter while it was sent; the clip is not the one that was planned")


def restore_there(job: Job, segment: Segment, worker: Worker, *, check_interrupt: CheckInterrupt, on_written: Progress) -> None:
    """As `restore_segment`, on a server. Raises Unreachable or Refused if no complete segment came back."""
    try:
        shown = worker.restore(segment.number, check_interrupt)
        with atomic_file(job.file(segment)) as part:
            note = fetched(job, segment, worker.server, shown, part, check_interrupt)
        write_json(job.parts / f"{segment.name}.json", note | {"ended": time.time()})
    except (TooLarge, Unreachable) as error:
        worker.gone = str(error)
        raise
    on_written(len(segment))


def fetched(job: Job, segment: Segment, server: ComfyServer, shown: dict[str, Any], part: Path, check_interrupt: CheckInterrupt) -> dict[str, Any]:
    """Downloads a segment into `part` and returns its note, checked against the file and the plan."""
    try:
        note, file, digest = dict(shown["report"][0]), shown["images"][0], str(shown["sha256"][0])
        view = view_route(file["filename"], file["subfolder"], file["type"])
        whole = all(name in note for name in NOTED) and note["frames"] == len(segment) and note["times"] == job.checksum(segment)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise Refused(f"{server.address} answers with what is no result of {NODE}") from error
    if not whole:
        raise Refused(f"{server.address} answers with another segment than number {segment.number}")
    size, received = server.download(view, part, check_interrupt)
    if size != note["bytes"] or received != digest:
        raise Refused(f"{server.address} sent {size} bytes of segment {segment.number} that are not the {note['bytes']} it wrote")
    return note


def work_on_comfy(
    job: Job,
    addresses: Sequence[str],
    *,
    stopping: Stopping = never,
    say: Say = lambda text: None,
    check_interrupt: CheckInterrupt = no_check,
    on_written: Progress = no_progress,
) -> None:
    """Restores the remaining segments on ComfyUI servers, one at a time on each, the longest first.

    A server that dies loses only its segment. One that cannot start, or fails three times in a row, is reported and excluded.

    Raises:
        RuntimeError: if none is left.
    """
    servers = list({server.address: server for server in map(ComfyServer, addresses)}.values())
    bundle, over, broken = pack(job), threading.Event(), list[BaseException]()
    workers = [Worker(job, server, bundle) for server in servers]

    def check() -> None:
        if over.is_set():
            raise Stopped

    def serve(worker: Worker) -> None:
        try:
            take_segments(worker, workers, lambda: over.is_set() or stopping(), say, check)
        except Stopped:
            pass
        except BaseException as error:
            broken.append(error)

    threads = [threading.Thread(target=serve, args=(worker,), name=worker.server.address, daemon=True) for worker in workers]
    seen, said = frames_done(job), set[str]()
    try:
        for thread in threads:
            thread.start()
        working = True
        while working and not broken:
            check_interrupt()
            time.sleep(POLL_INTERVAL)
            working = any(thread.is_alive() for thread in threads)
            now = frames_done(job)
            on_written(now - seen)
            seen = now
            for worker in workers:
                if worker.gone and worker.gone not in said and len(workers) > 1:
                    say(f"one server less: {worker.gone}")
                    said.add(worker.gone)
    finally:
        over.set()
        for thread in threads:
            thread.join(10)
    if broken:
        raise broken[0]
    if all(worker.gone for worker in workers) and job.to_do():
        raise RuntimeError(f"no server is left that restores this job: {'; '.join(worker.gone for worker in workers)}")


def take_segments(worker: Worker, workers: Sequence[Worker], stopping: Stopping, say: Say, check_interrupt: CheckInterrupt) -> None:
    """The loop of one server, until nothing is left, `stopping` is true, or it is `gone`. Segments that failed on it are left to other servers."""
    try:
        worker.prepare(check_interrupt)
    except (Unreachable, Refused) as error:
        worker.gone = str(error)

    def try_one(segment: Segment) -> bool:
        if segment.number in worker.failed and any(segment.number not in other.failed for other in workers if not other.gone):
            return False
        tried = attempt(worker.job, segment, worker, say=say, check_interrupt=check_interrupt, restore=restore_there)
        if tried:
            count_failures(worker, segment)
        return tried

    work_loop(worker.job, try_one, lambda: bool(worker.gone) or stopping(), check_interrupt)


def count_failures(worker: Worker, segment: Segment) -> None:
    """Excludes a server on which segments fail one after another, as others may succeed."""
    if worker.job.finished(segment):
        worker.failures = 0
        return
    worker.failures += 1
    worker.failed.add(segment.number)
    if worker.failures >= ATTEMPTS and not worker.gone:
        last = worker.job.failures(segment)
        worker.gone = f"{worker.server.address} failed {ATTEMPTS} times in a row{', last with: ' + last[-1]['error'] if last else ''}"
