"""`fvr restore --job`: a film restored segment by segment, with its state in a folder."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..plurals import counted
from .clips import DEFAULT_RATE, above_zero, encoding, selection

AUTO_JOB_SECONDS = 300
"""Seconds above which a clip becomes a job by default."""
SUFFIX = ".job"
"""Suffix of the default job folder, after the output's name."""


def add_job_arguments(p: argparse.ArgumentParser) -> None:
    """Arguments of `fvr restore` for films."""
    g = p.add_argument_group("films")
    g.add_argument(
        "--job",
        metavar="DIR",
        help="folder of the job, restored segment by segment: the same command resumes it, and other machines can help with `fvr segment` "
        "(default: OUTPUT.job for clips of more than five minutes, else none)",
    )
    g.add_argument("--no-job", action="store_true", help="restore long clips in one go, too")
    g.add_argument(
        "--workers", default="1", metavar="N", help='number of processes on this machine, "auto": one per GPU, or 0: only plan (default: 1)'
    )
    g.add_argument("--ray", metavar="ADDRESS", help='restore on a Ray cluster: its address, or "auto" for the one running here, else a new one')
    g.add_argument(
        "--comfy", metavar="URLS", help="restore on ComfyUI servers that have this pack: their addresses, such as http://host:8188,http://other:8188"
    )
    g.add_argument("--preview", action="store_true", help="restore the beginning first, and report where it can be watched")
    g.add_argument("--test-seconds", type=above_zero, metavar="SECONDS", help="restore only this much around the hardest face, and stop")
    g.add_argument("--segment-seconds", type=above_zero, metavar="SECONDS", help="maximum length of a segment (default: 20)")


def job_folder(options: Namespace, source: Any) -> Path | None:
    """The job folder for a clip, None for none: from the options, or the default for a long clip.

    Raises:
        ValueError: for options that do not go together, or a clip that cannot be a job.
    """
    from ..video.files import image_names

    wanted = [name for name in ("ray", "comfy", "preview", "test_seconds", "segment_seconds") if getattr(options, name)]
    wanted += ["workers"] if options.workers != "1" else []
    if options.comfy and (other := next((name for name in ("ray", "workers") if name in wanted), None)):
        raise ValueError(f"--comfy and --{other} do not go together; leave one of them out")
    if options.no_job:
        if options.job or wanted:
            raise ValueError(f"--no-job and --{(['job'] if options.job else wanted)[0].replace('_', '-')} do not go together; leave one of them out")
        return None
    why = None
    if options.aligned:
        why = "aligned crops are one shot of one person"
    elif image_names(Path(options.output)) is not None:
        why = f"a job writes a video file, and {options.output} is for images"
    if why is not None:
        if options.job or wanted:
            raise ValueError(f"this cannot be a job: {why}; leave --{'job' if options.job else wanted[0].replace('_', '-')} out")
        return None
    if options.job:
        folder = Path(options.job)
        if folder.is_file() or folder.resolve() == Path(options.output).resolve():
            raise ValueError(f"--job {folder} is a file, or the output's name, and a job is a folder of its own; choose another name")
        return folder
    seconds = (source.expected or 0) * options.stride / source.info.rate
    output = Path(options.output)
    return output.with_name(output.name + SUFFIX) if wanted or seconds > AUTO_JOB_SECONDS else None


def restore_job(options: Namespace, folder: Path, source: Any) -> int:
    """Restores a clip as a job: plans or resumes it, and joins the segments when all are finished."""
    from .. import host
    from ..film.processes import prestarted_workers, workers_for

    workers = workers_for(options.workers)
    elsewhere = options.ray or options.comfy or options.test_seconds
    early = 0 if workers < 2 or elsewhere or (folder / "job.json").exists() else workers
    arguments = ("--device", options.device) if options.device else ()
    try:
        with prestarted_workers(folder, early, arguments) as ready:
            return plan_and_restore(options, folder, source, workers, arguments, ready)
    except (KeyboardInterrupt, SystemExit):
        if folder.is_dir():
            host.say(f"what is done is kept in {folder}; the same command goes on")
        raise


def plan_and_restore(options: Namespace, folder: Path, source: Any, workers: int, arguments: Sequence[str], ready: dict[int, Any]) -> int:
    """As `restore_job`, with prestarted processes (`ready`) and further `arguments` of `fvr segment`."""
    from .. import host
    from ..assembly import AUTO, fingerprint
    from ..film.executors import Job
    from ..film.files import read_json
    from ..film.join import is_joined
    from ..film.plan import plan
    from ..film.sample import restore_sample
    from ..job_request import tools_for
    from ..record import job_identity
    from ..video import VideoError, choose_codec, choose_container
    from .tools import choose_method, request_of

    output = Path(options.output)
    planned = read_json(folder / "job.json")
    if os.path.lexists(output) and not options.overwrite and not (planned and is_joined(Job.load(folder), output)):
        raise VideoError(f"{output} already exists; choose another name or allow overwriting")
    if output.is_dir() or not output.absolute().parent.is_dir():
        raise VideoError(f"{output} is a folder; name a file" if output.is_dir() else f"{output.parent} is not a folder; make it first")
    container = choose_container(output, None)
    choose_codec(encoding(options)["codec"], container, options.pixel_format, encoding(options)["crf"], None, source.info)[0].encoder()
    if options.method == AUTO and planned and "method" in planned["request"]:
        method, estimates = (planned["request"][name] for name in ("method", "estimates"))
    else:
        method, estimates = choose_method(options)
    for warning in source.warnings:
        host.say(f"warning: {warning}")
    request = request_of(options, method, estimates)
    tools = tools_for(request)
    planned_job = plan(
        folder,
        source,
        tools,
        identity=job_identity({**request, "seed": options.seed}, tools.restorer, tools.detector, tools.paster),
        request=request,
        selection={**selection(options), "rate": options.frame_rate or DEFAULT_RATE},
        encoding={**encoding(options), "container": container},
        seed=options.seed,
        faces=options.faces,
        min_size=options.min_size,
        seconds=options.segment_seconds,
        check_interrupt=host.check_interrupt,
        finds=lambda kept: host.progress(source.expected, "find faces", kept),
    )
    if options.test_seconds:
        with host.progress(None, "try") as written:
            print(restore_sample(planned_job, tools, options.test_seconds, check_interrupt=host.check_interrupt, on_written=written))
        return 0
    if not workers and not options.ray:
        print(f"{folder} is planned: {counted(len(planned_job.segments), 'segment')}, numbered from 0")
        return 0
    if is_joined(planned_job, output):
        print(f"{output} is done already, by the job in {folder}")
    before = fingerprint(output)
    try:
        return restore_planned(options, planned_job, tools, workers, arguments, ready)
    except (OSError, ValueError) as error:
        if folder.exists():
            raise
        if fingerprint(output) in (before, None):
            raise VideoError(f"{folder} was removed while it was worked on; the same command begins anew") from error
        host.say(f"another command has finished {output} and removed {folder}")
        print(output)
        return 0


def restore_planned(options: Namespace, planned_job: Any, tools: Any, workers: int, arguments: Sequence[str], ready: dict[int, Any]) -> int:
    """Restores the remaining segments of a job, and joins it."""
    from .. import host
    from ..film.executors import failed, failed_sentence, frames_done, work
    from ..film.processes import work_in_processes
    from ..job_request import worker_tools

    planned_job.forgive()

    def segments_done() -> str:
        return f"{sum(map(planned_job.finished, planned_job.segments))} of {counted(len(planned_job.segments), 'segment')}"

    host.say(f"job {planned_job.folder}: {segments_done()} done")
    with graceful_interrupt(host.say) as stopping, host.progress(planned_job.frames, "restore", frames_done(planned_job)) as bar:
        advance: Callable[[int], None] = announce_preview(planned_job, bar, host.say) if options.preview else bar
        common: dict[str, Any] = dict(stopping=stopping, say=host.say, check_interrupt=host.check_interrupt, on_written=advance)
        if options.ray:
            from ..film.on_ray import work_on_ray

            work_on_ray(planned_job, worker_tools, options.ray, workers=None if options.workers in ("1", "0") else workers, **common)
        elif options.comfy:
            from ..film.on_comfy import work_on_comfy

            work_on_comfy(planned_job, [address.strip() for address in options.comfy.split(",") if address.strip()], **common)
        elif workers > 1:
            work_in_processes(planned_job, workers, arguments=arguments, ready=ready, **common)
        else:
            work(planned_job, lambda: tools, first=0 if options.preview else None, **common)
        stopped = stopping()
    gone = failed(planned_job)
    if stopped and not all(map(planned_job.finished, planned_job.segments)):
        host.say(f"{segments_done()} are done")
        raise KeyboardInterrupt
    if gone:
        raise RuntimeError(failed_sentence(gone))
    return finish_job(options, planned_job, tools, Path(options.output))


def finish_job(options: Namespace, done: Any, tools: Any, output: Path) -> int:
    """Joins a job whose segments are all finished, reports, and removes the folder unless `--job` was given."""
    from .. import host
    from ..film.join import join_once
    from ..film.run import summary_of
    from .tools import write_report

    with host.progress(done.frames, "join") as tick:
        output, warnings = join_once(done, output, overwrite=options.overwrite, check_interrupt=host.check_interrupt, on_joined=tick)
    summary = summary_of(done, tools, warnings)
    if options.report:
        job = {"segments": len(done.segments), "exact": done.plan["exact"], "warm_up": done.plan["warm_up"]}
        write_report(options, summary, tools.restorer, tools.detector, tools.paster, job=job)
    if not options.job:
        shutil.rmtree(done.folder, ignore_errors=True)
    print(summary.to_text())
    print(output)
    return 0


def announce_preview(planned: Any, tick: Callable[[int], None], say: Callable[[str], None]) -> Callable[[int], None]:
    """A progress callback that also reports, once, the first segment that can be watched."""
    seen = [0.0]

    def on_written(frames: int) -> None:
        tick(frames)
        if seen and time.monotonic() - seen[0] > 1:
            seen[0] = time.monotonic()
            ready = next((part for part in planned.segments if planned.finished(part)), None)
            if ready is not None:
                seen.clear()
                say(f"to look at: {planned.file(ready)}")

    return on_written


@contextmanager
def graceful_interrupt(say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Yields a function that is true after a first Ctrl-C; a second one interrupts as usual. Has no effect outside the main thread."""
    asked: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield lambda: False
        return

    def on_signal(number: int, frame: Any) -> None:
        if asked:
            before(number, frame)
        asked.append(number)
        say("finishing what is being restored; Ctrl-C again stops at once")

    signal.signal(signal.SIGINT, on_signal)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)
