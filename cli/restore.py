"""`fvr restore`: restores the faces in a clip, or in each video of a folder."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from typing import Any

from ..plurals import counted
from .clips import add_frames_and_encoding, at_least_zero, check_place, check_used, encoding, seed, selection, videos_among
from .faces import add_finding
from .film import add_job_arguments, job_folder, restore_job


def add(commands: Any) -> None:
    p = commands.add_parser(
        "restore",
        help="restore the faces in a clip",
        description="Detects and tracks the faces in a clip, restores each person, and pastes them back. Keeps size, audio and timing.",
        add_help=False,
    )
    p.set_defaults(command=restore_all)
    p.add_argument("-h", "--help", nargs=0, action=HelpWithMethods, help="show this help message and exit")
    p.add_argument("input", help="a video file, a folder of images, one image, or a folder of videos to restore one by one")
    p.add_argument("output", help="a video file, a folder for PNG frames, an image for one image, or a folder for videos")
    p.add_argument(
        "--method",
        default="auto",
        metavar="NAME",
        help="restoration method, see below; auto: flair if the damage is described or a face shows a blur, keep if its published weights are "
        "installed, else blind (default: auto)",
    )
    p.add_argument(
        "--weights",
        metavar="FILE",
        help='checkpoint of the method, or an embedded one such as "embedded keep" (default: the published one if installed, else the embedded; '
        "see `fvr models`)",
    )
    p.add_argument(
        "--precision",
        default="auto",
        choices=["auto", "float32", "bfloat16", "float16"],
        help="precision of decoders; auto: bfloat16 for blind and the embedded prior on GPUs from Ampere on and on CPUs with AMX or AVX512_BF16, "
        "else float32 (default: auto)",
    )
    p.add_argument(
        "--compile",
        action="store_true",
        help="compile the networks with torch.compile: up to minutes at the start, same result up to rounding",
    )
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the method; may be repeated")
    p.add_argument("--degradation", metavar="TEXT", help='description of the damage, such as "gaussian_blur(sigma=2) + noise(sigma=0.03)"')
    p.add_argument("--aligned", action="store_true", help="frames are aligned crops of one person: no detection, no pasting")
    p.add_argument("--seed", type=seed, default=0, help="the same seed gives the same pixels (default: 0)")
    p.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    p.add_argument("--report", metavar="FILE.json", help="write a report as JSON, with everything needed to repeat the run")
    p.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    p.add_argument("--resume", action="store_true", help="for a folder of videos: skip those whose output exists")
    g = p.add_argument_group("faces")
    g.add_argument(
        "--faces",
        default="all",
        metavar="WHICH",
        help='"all", "largest", person ids such as 0,2 (see fvr faces), or like:photo.jpg, the person in a photo (default: all)',
    )
    g.add_argument("--min-size", type=at_least_zero, default=0.0, metavar="PIXELS", help="do not restore smaller faces")
    add_finding(g)
    g.add_argument(
        "--feather", type=int, default=24, metavar="PIXELS", help="soft border of the pasted face, in pixels of the 512 crop (default: 24)"
    )
    g.add_argument("--strength", type=float, default=1.0, help="opacity of the restored face, 0 to 1 (default: 1)")
    g.add_argument(
        "--gates",
        default="",
        metavar="TEXT",
        help='ranges over which faces fade to the original, such as "size=10-20, yaw=70-50", or "off" (default: see below)',
    )
    g.add_argument(
        "--occlusion",
        default="auto",
        choices=["auto", "on", "off"],
        help="on: keep occluders (a hand, a microphone, hair), where the restored face differs from the original in colour or structure; auto: only "
        "for generative methods, and not for colourisation and inpainting (default: auto)",
    )
    g.add_argument("--colour-match", action="store_true", help="match the colours of the restored face to the original")
    g.add_argument(
        "--grain",
        default="auto",
        choices=["auto", "off"],
        help="auto: restore film grain on faces that lost it, to match the frame around them, if it is intact from coding and --degradation has no "
        "noise; off: do not (default: auto)",
    )
    g.add_argument(
        "--scale",
        type=int,
        default=1,
        metavar="N",
        help="enlarge the output 1 to 4 times; faces keep the detail of their 512 crops (default: 1)",
    )
    g.add_argument(
        "--upscale-model",
        metavar="FILE",
        help="network for enlarging, a file or a name in upscale_models, such as RealESRGAN_x2plus.pth (default: Lanczos)",
    )
    add_job_arguments(p)
    add_frames_and_encoding(p)


class HelpWithMethods(argparse.Action):
    """Help followed by the methods and the gates, which are imported only then, with PyTorch."""

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> None:
        from ..faces.compositing.strength import GATES
        from ..methods.registry import methods

        width = shutil.get_terminal_size().columns - 2
        column = max(map(len, methods())) + 4
        lines = [textwrap.fill(f"  {spec.name:{column - 2}}{spec.summary}", width, subsequent_indent=" " * column) for spec in methods().values()]
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.description = textwrap.fill(str(parser.description), width)
        parser.epilog = "\n".join(["methods:", *lines, "", textwrap.fill(f"gates: {GATES.to_text()}", width)])
        parser.print_help()
        parser.exit()


def restore_all(options: argparse.Namespace) -> int:
    """One clip, or each video of a folder."""
    from ..video import allow_playlist, videos_in_folder
    from .batch import restore_each

    if options.report:
        check_place("--report", options.report, options.input, options.output)
    clips = videos_in_folder(options.input)
    if options.resume and (options.overwrite or not clips):
        why = "and --overwrite do not go together" if options.overwrite else f"is of folders of videos, and {options.input} is none"
        raise ValueError(f"--resume {why}; leave it out (a clip that is restored as a job goes on by itself)")
    if not clips:
        allow_playlist(options.input)
        return restore(options)
    failed = restore_each(options, clips, restore)
    print(f"{len(clips) - failed} of {counted(len(clips), 'clip')} restored into {options.output}")
    return 1 if failed else 0


def restore(options: argparse.Namespace) -> int:
    from .. import host
    from ..assembly import chosen_detector
    from ..job_request import paster_for, restorer_for, weights_file
    from ..pipeline import restore_aligned, restore_clip_in_frames, warnings_of
    from ..video import check_apart, open_sink, open_source
    from .tools import choose_method, request_of, write_report

    check_apart(options.output, [options.input])
    if options.aligned and (options.scale != 1 or options.upscale_model):
        raise ValueError("--scale enlarges whole frames, and --aligned gives crops of 512 x 512; leave one of them out")
    if options.device:
        host.set_device(options.device)
    source = open_source(options.input, **selection(options))
    check_used(options, *videos_among(source))
    if (folder := job_folder(options, source)) is not None:
        return restore_job(options, folder, source)
    method, estimates = choose_method(options)
    request = request_of(options, method, estimates)
    restorer, detector, paster = restorer_for(request), None, None
    if not options.aligned:
        detector, paster = chosen_detector(options.detector, options.rotate), paster_for(request)
    size = (512, 512) if paster is None else paster.size(source.info.height, source.info.width)
    total = source.expected
    with open_sink(
        options.output, source.info, size=size, audio=source, overwrite=options.overwrite, check_interrupt=host.check_interrupt, **encoding(options)
    ) as sink:
        for warning in warnings_of(source, sink):
            host.say(f"warning: {warning}")
        if detector is None or paster is None:
            with host.progress(total, "restore") as written:
                summary = restore_aligned(source, sink, restorer, seed=options.seed, check_interrupt=host.check_interrupt, on_written=written)
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
                    check_interrupt=host.check_interrupt,
                    on_found=found,
                    on_written=written,
                )
    summary = summary.closed(source, sink)
    if options.report:
        write_report(options, summary, restorer, detector, paster)
    print(summary.to_text())
    weights = weights_file(request)
    print(f"{method}, {weights.name if weights else 'without weights'}")
    print(options.output)
    return 0
