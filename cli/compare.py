"""`fvr compare`: clips side by side, split by a moving line, or their difference, with sound and in constant memory."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..plurals import counted
from .clips import add_frames_and_encoding, check_used, encoding, selection, videos_among

if TYPE_CHECKING:
    from ..video import FrameSource


def add(commands: Any) -> None:
    p = commands.add_parser(
        "compare",
        help="show clips side by side, split by a moving line, or their difference",
        description="Writes a comparison of clips as one labelled clip, with the sound and frame times of one of them.",
    )
    p.set_defaults(command=compare)
    p.add_argument("clips", nargs="+", metavar="CLIP", help="two or more video files or folders of images; the first determines the size")
    p.add_argument("output", help="a video file, or a folder for PNG frames")
    p.add_argument("--mode", default="side-by-side", choices=["side-by-side", "split", "difference"], help="layout (default: side-by-side)")
    p.add_argument("--label", action="append", metavar="TEXT", help="label of each clip in turn, may be empty (default: the file names)")
    p.add_argument("--period", type=float, default=4.0, metavar="SECONDS", help="period of the moving split line (default: 4)")
    p.add_argument("--gain", type=float, default=4.0, help="factor that amplifies the difference (default: 4)")
    p.add_argument(
        "--sound",
        metavar="N",
        help='number of the clip whose sound and frame times are used, counted from 1, or "none" (default: the first with sound)',
    )
    p.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    add_frames_and_encoding(p)


def compare(options: argparse.Namespace) -> int:
    from .. import host
    from ..video import VideoError, allow_playlist, check_apart, open_sink, open_source
    from ..video.comparison.compare import CompareOptions, compare_frames, compared_size, resize_warnings
    from ..video.comparison.sync import check_sync, comparison_info, sound_source, synced_frames, timing_source

    for clip in options.clips:
        allow_playlist(clip)
    if len(options.clips) < 2:
        raise VideoError(f"a comparison needs at least two clips and an output, got {options.clips[0]} and {options.output}")
    check_apart(options.output, options.clips)
    sources = [open_source(clip, **selection(options)) for clip in options.clips]
    check_used(options, *videos_among(*sources))
    for warning in (warning for source in sources for warning in source.warnings):
        host.say(f"warning: {warning}")
    how = CompareOptions(options.mode.replace("-", "_"), labels(options.label, sources), options.period, options.gain)
    how.check(len(sources))
    sound = None if options.sound == "none" else sound_source(sources, clip_number(options.sound))
    with host.progress(None, "read times") as read:
        times = []
        for source in sources:
            times.append(source.times())
            read(len(times[-1]))
    check_sync(sources, times)
    clock = timing_source(sources, sound)
    shown, picture = times[clock], sources[0].info
    like = comparison_info(picture, sources[clock].info)
    size = compared_size(picture.height, picture.width, len(sources), how)
    seconds = [float(start - shown.starts[0]) for start in shown.starts]
    audio = None if sound is None else sources[sound]
    choices = dict(size=size, audio=audio, overwrite=options.overwrite, check_interrupt=host.check_interrupt, **encoding(options))
    with open_sink(options.output, like, **choices) as sink, host.progress(len(shown)) as tick:
        for warning in sink.warnings:
            host.say(f"warning: {warning}")
        pictures = compare_frames(synced_frames(sources), seconds, how)
        for start, end, one in zip(shown.starts, shown.ends, pictures, strict=True):
            sink.write(one[None], (start,), (end,))
            tick()
    heard = "no sound" if sound is None else f"sound of {sources[sound].describe()}"
    print(f"{len(sources)} clips, {options.mode}, {counted(len(shown), 'frame')} of {size[1]} x {size[0]}, {heard}")
    sizes = [(source.describe(), (source.info.height, source.info.width)) for source in sources]
    print(*resize_warnings(sizes), *(warning for source in sources for warning in source.warnings), *sink.warnings, options.output, sep="\n")
    return 0


def labels(given: Sequence[str] | None, sources: Sequence[FrameSource]) -> tuple[str, ...]:
    """The given labels, else the file names, or "clip 1" for names whose characters cannot be drawn."""
    from ..video import VideoError
    from ..video.comparison.text_overlay import drawable

    if given is not None:
        return tuple(given)
    names = []
    for number, source in enumerate(sources, 1):
        try:
            names.append(drawable(Path(source.describe()).stem))
        except VideoError:
            names.append(f"clip {number}")
    return tuple(names)


def clip_number(text: str | None) -> int | None:
    """The index, counted from 0, of the clip that `--sound` names."""
    from ..video import VideoError

    if text is None:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise VideoError(f'--sound takes the number of a clip, counted from 1, or "none", got {text!r}')
    return int(text) - 1
