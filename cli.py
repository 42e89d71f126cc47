"""The command line: `fvr restore`, `fvr compare`, `fvr run`, `fvr demo`, `fvr models`, `fvr train`, `fvr finetune`, `fvr nodes`."""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from .host.signals import stoppable

INTERRUPTED = 130
REPORT_ROOM = 1 << 18
"""Bytes that a disk must have for a report; those of long clips with many people take some tens of thousands."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0 when it did all it was asked, 1 on a fault in what it was given, 130 on Ctrl-C, 143 when terminated."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # letters that the terminal has not must not fail a job that is done
            stream.reconfigure(errors="backslashreplace")
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = build_parser().parse_args(given)
    options.line = shlex.join(["fvr", *given])
    with stoppable() as signals:
        try:
            return options.command(options)
        except (KeyboardInterrupt, SystemExit) as stopped:
            if isinstance(stopped, SystemExit) and not signals:
                raise
            print("stopped; nothing was left under the output's name", file=sys.stderr)
            return 128 + signals[-1] if signals else INTERRUPTED
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            if options.debug:
                raise
            print(f"fvr: {error}", file=sys.stderr)
            return 1


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fvr", description="Restores faces in video.")
    parser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_restore(commands)
    add_compare(commands)
    add_run(commands)
    add_demo(commands)
    add_train(commands)
    add_finetune(commands)
    add_lists(commands)
    return parser


def add_restore(commands: Any) -> None:
    p = commands.add_parser(
        "restore",
        help="restore the faces in a clip",
        description="Restores the faces in a clip: finds and follows them, restores each person, pastes them back. Keeps size, audio and timing.",
        add_help=False,
    )
    p.set_defaults(command=restore_all)
    p.add_argument("-h", "--help", nargs=0, action=HelpWithMethods, help="show this help message and exit")
    p.add_argument("input", help="a video file, a folder of images, one image, or a folder of videos, each of which is restored")
    p.add_argument("output", help="a video file, a folder for PNG frames, an image for one image, or a folder for the videos of a folder")
    p.add_argument(
        "--method",
        default="auto",
        metavar="NAME",
        help="how faces are restored, see below; auto: flair if the damage is described, keep if its published weights are here, else blind "
        "(default: auto)",
    )
    p.add_argument(
        "--weights",
        metavar="FILE",
        help='a checkpoint for the method, or "embedded keep" and the like (default: its published one if a model folder has it, else the embedded; '
        "see `fvr models`)",
    )
    p.add_argument(
        "--precision", default="float32", choices=["float32", "bfloat16", "float16"], help="of the part that draws the picture (default: float32)"
    )
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the method; may be repeated")
    p.add_argument("--degradation", metavar="TEXT", help='what damaged the clip, for instance "gaussian_blur(sigma=2) + noise(sigma=0.03)"')
    p.add_argument("--aligned", action="store_true", help="frames are already aligned crops of one person: no detection, no pasting")
    p.add_argument("--seed", type=int, default=0, help="the same seed gives the same pixels (default: 0)")
    p.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    p.add_argument("--report", metavar="FILE.json", help="write what was done as JSON, with all that repeats it")
    p.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    g = p.add_argument_group("faces")
    g.add_argument("--faces", default="all", metavar="WHICH", help='"all", "largest", or ids such as 0,2 (default: all)')
    g.add_argument("--min-size", type=float, default=0.0, metavar="PIXELS", help="leave faces smaller than this alone")
    g.add_argument(
        "--detector", default="auto", choices=["auto", "retinaface", "mtcnn"], help="who finds faces (default: the best with weights here)"
    )
    g.add_argument(
        "--feather", type=int, default=24, metavar="PIXELS", help="soft border of the pasted face, in pixels of the 512 crop (default: 24)"
    )
    g.add_argument("--strength", type=float, default=1.0, help="1 shows the restored face, 0 the original (default: 1)")
    g.add_argument("--colour-match", action="store_true", help="give the restored face the colours of the original")
    g.add_argument(
        "--grain",
        default="auto",
        choices=["auto", "off"],
        help="auto gives a face that lost it the film grain back that the frame around it keeps, if no codec has eaten it and --degradation names "
        "no noise; off leaves it clean (default: auto)",
    )
    add_frames_and_encoding(p)


class HelpWithMethods(argparse.Action):
    """Help that ends with the methods and what each is for; only then are they imported, and PyTorch with them."""

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> None:
        from .methods.registry import METHODS

        width = shutil.get_terminal_size().columns - 2
        column = max(map(len, METHODS)) + 4
        lines = [textwrap.fill(f"  {spec.name:{column - 2}}{spec.summary}", width, subsequent_indent=" " * column) for spec in METHODS.values()]
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.description = textwrap.fill(str(parser.description), width)
        parser.epilog = "\n".join(["methods:", *lines])
        parser.print_help()
        parser.exit()


def add_compare(commands: Any) -> None:
    p = commands.add_parser(
        "compare",
        help="show clips side by side, split by a moving line, or their difference",
        description="Writes one clip that compares others: labelled, with the sound and the times of one of them.",
    )
    p.set_defaults(command=compare)
    p.add_argument("clips", nargs="+", metavar="CLIP", help="two or more video files or folders of images; the first one decides the size")
    p.add_argument("output", help="a video file, or a folder for PNG frames")
    p.add_argument("--mode", default="side-by-side", choices=["side-by-side", "split", "difference"], help="(default: side-by-side)")
    p.add_argument("--label", action="append", metavar="TEXT", help="of each clip in turn, may be empty (default: the files' names)")
    p.add_argument("--period", type=float, default=4.0, metavar="SECONDS", help="of the split's line, there and back (default: 4)")
    p.add_argument("--gain", type=float, default=4.0, help="what a difference is multiplied by (default: 4)")
    p.add_argument("--sound", metavar="N", help='the clip whose sound and times are kept, counted from 1, or "none" (default: the first with sound)')
    p.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    add_frames_and_encoding(p)


def add_frames_and_encoding(p: argparse.ArgumentParser) -> None:
    """What every command that reads and writes clips takes; `selection` and `encoding` read it."""
    g = p.add_argument_group("frames and encoding")
    g.add_argument("--start", type=int, default=0, metavar="FRAME", help="first frame, counted from 0")
    g.add_argument("--count", type=int, metavar="FRAMES", help="at most this many frames")
    g.add_argument("--stride", type=int, default=1, metavar="N", help="every n-th frame")
    g.add_argument(
        "--deinterlace",
        default="auto",
        metavar="HOW",
        help="auto: frames marked interlaced become whole ones; fields: both fields of each become frames; top, bottom, fields-top, fields-bottom: "
        "all frames, with that field first; off (default: auto)",
    )
    g.add_argument("--frame-rate", default="25", metavar="FPS", help="of a folder of images (default: 25)")
    g.add_argument("--codec", default="h264", help="h264, h265, av1, vp9, prores or ffv1 (default: h264)")
    g.add_argument("--crf", type=int, default=17, help="quality, smaller is better (default: 17)")
    g.add_argument("--pixel-format", help="yuv420p, yuv444p, yuv420p10le, ... (default: the codec's own)")


def selection(options: argparse.Namespace) -> dict[str, Any]:
    """Which frames are read, for `open_source`."""
    return dict(start=options.start, count=options.count, stride=options.stride, rate=frame_rate(options.frame_rate), deinterlace=options.deinterlace)


def frame_rate(text: str) -> Fraction:
    """Of `--frame-rate`: 25, 23.976 or 30000/1001."""
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if rate <= 0:
        raise ValueError(f"--frame-rate is a positive number of frames per second such as 25 or 30000/1001, got {text!r}")
    return rate


def encoding(options: argparse.Namespace) -> dict[str, Any]:
    """How a clip is written, for `open_sink`."""
    return dict(codec=options.codec, crf=options.crf, pixel_format=options.pixel_format)


def add_run(commands: Any) -> None:
    p = commands.add_parser(
        "run",
        help="run an API-format workflow without ComfyUI",
        description="Executes the nodes of this package in a workflow saved with ComfyUI's Export (API), without ComfyUI.",
    )
    p.set_defaults(command=run)
    p.add_argument("workflow", help="a file in API format, or the name of a bundled one")
    p.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE", help="NODE is a node's id, title or class; may be repeated")
    p.add_argument("--input-dir", type=Path, help="where file names in the workflow are looked for (default: the current folder)")
    p.add_argument("--output-dir", type=Path, help="where files are written (default: ./output)")
    p.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")


def add_demo(commands: Any) -> None:
    p = commands.add_parser(
        "demo",
        help="make, damage and restore a short clip",
        description="Makes a short moving clip from a public-domain portrait, damages it as a lens, a sensor and a codec do, restores it by the "
        "bundled workflow, which is not told how, and measures the result against the truth.",
    )
    p.set_defaults(command=demo)
    p.add_argument("--output-dir", type=Path, default=Path("fvr-demo"), help="where the videos and the report go (default: ./fvr-demo)")
    p.add_argument("--frames", type=int, default=24, help="length of the clip (default: 24)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")


def add_train(commands: Any) -> None:
    p = commands.add_parser(
        "train",
        help="train a blind restorer, a face prior, CodeFormer, KEEP or DicFace on a folder of aligned faces",
        description="Trains the package's own networks. `fvr train codebook --help` lists the arguments.",
    )
    p.set_defaults(command=train)
    p.add_argument("network", help="blind, prior, codebook, keep or dicface")
    p.add_argument("arguments", nargs=argparse.REMAINDER, help="see `fvr train codebook --help`")


def add_finetune(commands: Any) -> None:
    from .finetune.cli import add_arguments

    p = commands.add_parser(
        "finetune",
        help="teach a restorer one camera, archive or film",
        description="Fine-tunes a face restorer on pairs of degraded crops and their targets, and writes a checkpoint that is used like any other.",
    )
    p.set_defaults(command=finetune)
    add_arguments(p)


def add_lists(commands: Any) -> None:
    p = commands.add_parser("models", help="list the checkpoints this package knows, and which are here; fetch them")
    p.set_defaults(command=models)
    fetched = p.add_subparsers(title="commands", metavar="COMMAND").add_parser(
        "fetch", help="download one, resumable, and verified where a checksum is known"
    )
    fetched.set_defaults(command=fetch_model)
    fetched.add_argument("name", help="as `fvr models` lists it")
    fetched.add_argument("--folder", type=Path, help="where to put it (default: the first model folder of this package)")
    p = commands.add_parser("nodes", help="list the nodes that `fvr run` can execute")
    p.set_defaults(command=nodes)


def restore_all(options: argparse.Namespace) -> int:
    """One clip, or each video of a folder."""
    from .batch import restore_each
    from .video import name_playlist, videos_in_folder

    if options.report:
        check_report(options.report, options)
    clips = videos_in_folder(options.input)
    if not clips:
        name_playlist(options.input)
        return restore(options)
    failed = restore_each(options, clips, restore)
    print(f"{len(clips) - failed} of {len(clips)} clips restored into {options.output}")
    return 1 if failed else 0


def restore(options: argparse.Namespace) -> int:
    from . import host
    from .methods.registry import build_restorer
    from .nodes.faces import chosen_detector, chosen_paster
    from .nodes.restorers import PRECISIONS
    from .nodes.weights import AUTO, chosen_method, named_weights, weights_for
    from .physics import parse
    from .pipeline import known_beforehand, restore_aligned, restore_clip_in_frames
    from .record import run_record
    from .video import check_apart, open_sink, open_source

    check_apart(options.output, [options.input])
    if options.device:
        host.set_device(options.device)
    source = open_source(options.input, **selection(options))
    settings = assignments(options.set)
    method = options.method
    if method == AUTO:
        method, why = chosen_method(bool(options.degradation), options.weights)
        print(f"method {method}: {why}", flush=True)
    weights = named_weights(options.weights) if options.weights else weights_for(method, settings)
    restorer = build_restorer(
        method,
        weights=weights,
        degradation=parse(options.degradation) if options.degradation else None,
        device=host.device(),
        settings=settings,
        precision=PRECISIONS[options.precision],
    )
    detector, paster, finding = None, None, None
    if not options.aligned:
        detector = chosen_detector(options.detector)
        paster = chosen_paster(options.feather, options.strength, options.colour_match, fade=True, grain=options.grain)
        finding = {"faces": options.faces, "min_size": options.min_size}
    size = (512, 512) if options.aligned else (source.info.height, source.info.width)
    total = source.expected
    with open_sink(
        options.output, source.info, size=size, audio=source, overwrite=options.overwrite, heartbeat=host.heartbeat, **encoding(options)
    ) as sink:
        for warning in known_beforehand(source, sink):
            host.say(f"warning: {warning}")
        if detector is None or paster is None:
            with host.progress(total, "restore") as written:
                summary = restore_aligned(source, sink, restorer, seed=options.seed, heartbeat=host.heartbeat, on_written=written)
        else:
            with host.progress(total, "find faces") as found, host.progress(total, "restore") as written:
                summary = restore_clip_in_frames(
                    source,
                    sink,
                    restorer,
                    detector,
                    paster=paster,
                    faces=options.faces,
                    min_size=options.min_size,
                    seed=options.seed,
                    heartbeat=host.heartbeat,
                    on_found=found,
                    on_written=written,
                )
    summary = summary.closed(source, sink)
    if options.report:
        told = run_record(
            summary,
            restorer,
            command=options.line,
            clips={"input": options.input, "output": options.output},
            seed=options.seed,
            frames={name: getattr(options, name) for name in ("start", "count", "stride", "frame_rate", "deinterlace")},
            encoding=encoding(options),
            finding=finding,
            detector=detector,
            paster=paster,
            degradation=options.degradation,
        )
        Path(options.report).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(summary.to_text())
    print(f"{method}, {weights.name if weights else 'without weights'}")
    print(options.output)
    return 0


def check_report(report: str, options: argparse.Namespace) -> None:
    """Raises ValueError or OSError, before hours of work, where `--report` could not be written after them, or would be one of the clips."""
    place = Path(report)
    if not place.parent.is_dir():
        raise ValueError(f"--report {report} lies in {place.parent}, which is not a folder; make it first")
    if place.is_dir():
        raise ValueError(f"--report {report} is a folder; name a file such as {place / 'report.json'}")
    if place.resolve() in (Path(options.input).resolve(), Path(options.output).resolve()):
        raise ValueError(f"--report {report} is the clip itself; choose another name")
    if not os.access(place if place.exists() else place.parent, os.W_OK):
        raise PermissionError(f"--report {report} may not be written here; choose another place")
    if place.exists() and not place.is_file():
        return  # a pipe or a terminal
    try:
        with tempfile.TemporaryFile(dir=place.parent) as file:
            file.write(bytes(REPORT_ROOM))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(f"--report {report} cannot be written ({error.strerror or error}); make room, or choose another place") from error


def compare(options: argparse.Namespace) -> int:
    from .compare import run_compare
    from .video import name_playlist

    for clip in options.clips:
        name_playlist(clip)
    print(*run_compare(options, selection(options), encoding(options)), options.output, sep="\n")
    return 0


def assignments(texts: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE texts as a dictionary.

    Raises:
        ValueError: naming the text that has no "=".
    """
    for text in texts:
        if "=" not in text:
            raise ValueError(f"--set takes NAME=VALUE, got {text!r}")
    return {name.strip(): value for name, _, value in (text.partition("=") for text in texts)}


def run(options: argparse.Namespace) -> int:
    from . import headless, host
    from .nodes import registry
    from .workflows import bundled

    if options.device:
        host.set_device(options.device)
    nodes = registry()
    prompt = headless.apply_overrides(headless.load_prompt(bundled(options.workflow)), options.set, nodes)
    with host.workspace(input=options.input_dir or Path.cwd(), output=options.output_dir or Path.cwd() / "output"):
        result = headless.run_prompt(prompt, nodes)
    for text in result.texts:
        print(text)
    for path in result.files:
        print(path)
    return 0


def demo(options: argparse.Namespace) -> int:
    began = time.monotonic()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    say(f"fvr demo: makes a clip of {options.frames} frames, damages, restores and measures it; loading ...")  # before PyTorch, which takes seconds
    from . import host
    from .demo import run_demo

    if options.device:
        host.set_device(options.device)
    print(run_demo(options.output_dir, frames=options.frames, seed=options.seed, say=say, began=began))
    return 0


def train(options: argparse.Namespace) -> int:
    from .training import cli

    parser = argparse.ArgumentParser(prog="fvr train", description=cli.__doc__)
    cli.add_arguments(parser)
    return cli.run(parser.parse_args([options.network, *options.arguments]))


def finetune(options: argparse.Namespace) -> int:
    from .finetune import cli

    return cli.run(options)


def models(options: argparse.Namespace) -> int:
    from . import host
    from .models import embedded
    from .models.catalogue import CATALOGUE, find, licence_line, verification

    folders = host.model_folders()
    for checkpoint in CATALOGUE:
        path = find(checkpoint, folders)
        size = path.stat().st_size if path else checkpoint.size
        about = f"{licence_line(checkpoint)}; {verification(checkpoint)}"
        show_model(checkpoint.name, path is not None, size, checkpoint.file, about, path or f"looked for in {', '.join(checkpoint.folders)}")
    for name, file in embedded.listed(embedded.RESTORERS | embedded.PRIORS).items():
        show_model(name, True, file.stat().st_size, file.name, embedded.notes(file)["licence"].split(";")[0], "in this package")
    print("\nmodel folders:")
    for name, places in folders.items():
        print(f"  {name:24} {', '.join(map(str, places))}")
    return 0


def show_model(name: str, here: bool, size: int | None, file: str, about: str, where: object) -> None:
    """A checkpoint in a few lines of at most 100 columns; only paths are never broken."""
    mib = f"{size / 2**20:.0f}" if size else "?"
    print(f"{name:24} {'here' if here else 'missing':8} {mib:>5} MiB  {file}")
    print(textwrap.fill(about, 100, initial_indent="    ", subsequent_indent="    "))
    print(f"    {where}")


def fetch_model(options: argparse.Namespace) -> int:
    from contextlib import ExitStack

    from . import host
    from .models.catalogue import OURS, licence_line, named, verification
    from .models.fetch import fetch, sha256_of

    checkpoint = named(options.name)
    print(f"{checkpoint.file}: {checkpoint.purpose}\nlicence: {licence_line(checkpoint)}\nfrom {checkpoint.url}", flush=True)
    with ExitStack() as stack:
        shown: list[Any] = []

        def on_bytes(done: int, total: int | None) -> None:
            if not shown:
                shown.extend([stack.enter_context(host.progress(total and -(-total >> 20), "fetch (MiB)")), 0])
            shown[0]((done >> 20) - shown[1])
            shown[1] = done >> 20

        path = fetch(checkpoint, options.folder or host.model_folders()[OURS][0], on_bytes, host.heartbeat)
    print(verification(checkpoint) + ("" if checkpoint.sha256 else f": its SHA-256 is {sha256_of(path, host.heartbeat)}"))
    print(path)
    return 0


def nodes(options: argparse.Namespace) -> int:
    from .nodes import NODES

    for node in NODES:
        schema = node.define_schema()
        print(f"{schema.node_id:28} {schema.display_name:28} {schema.description}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
