"""Arguments of commands that read and write clips, and their checks."""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

Number = TypeVar("Number", int, float)

MIN_FREE_BYTES = 1 << 18
"""Free bytes required for files written beside a clip; reports of long clips with many people take some tens of thousands."""
DEFAULT_RATE = "25"
"""Frames per second of image sequences."""
DEFAULT_CRF = 17
IMAGE_PIXELS = ("rgb24", "rgb48")
"""Pixel formats of images: 8 and 16 bits."""


def add_frames_and_encoding(p: argparse.ArgumentParser) -> None:
    """Arguments of every command that reads and writes clips, for `selection` and `encoding`."""
    g = p.add_argument_group("frames and encoding")
    g.add_argument("--start", type=int, default=0, metavar="FRAME", help="first frame, counted from 0")
    g.add_argument("--count", type=int, metavar="FRAMES", help="at most this many frames")
    g.add_argument("--stride", type=int, default=1, metavar="N", help="every n-th frame")
    g.add_argument(
        "--deinterlace",
        default="auto",
        metavar="HOW",
        help="auto: deinterlace frames that are marked interlaced; fields: the same at twice the frame rate; top, bottom, fields-top, fields-bottom: "
        "deinterlace all frames, with that field first; off (default: auto)",
    )
    add_frame_rate(g)
    g.add_argument("--codec", help="h264, h265, av1, vp9, prores or ffv1 (default: h264, in .webm vp9)")
    g.add_argument("--crf", type=int, help=f"quality, smaller is better (default: {DEFAULT_CRF})")
    g.add_argument(
        "--pixel-format",
        help="yuv420p, yuv444p, yuv420p10le, ... (default: the codec's); for images rgb24 or rgb48 (default: the bit depth of the source)",
    )


def add_frame_rate(p: Any) -> None:
    """The argument of every command that reads clips, for `frame_rate` and `check_rate`."""
    p.add_argument("--frame-rate", metavar="FPS", help=f"frame rate of a folder of images (default: {DEFAULT_RATE})")


def at_least_zero(text: str) -> float:
    """A non-negative number."""
    return checked(text, float, "is a number from 0 on", lambda number: 0 <= number < math.inf)


def above_zero(text: str) -> float:
    """A positive number."""
    return checked(text, float, "is a number above 0", lambda number: 0 < number < math.inf)


def at_least_one(text: str) -> int:
    """A positive whole number."""
    return checked(text, int, "is a whole number from 1 on", lambda number: number >= 1)


def seed(text: str) -> int:
    """A seed that PyTorch's generators accept."""
    return checked(text, int, "is a whole number from 0 to 2^63 - 1", lambda number: 0 <= number < 1 << 63)


def checked(text: str, kind: Callable[[str], Number], rule: str, fits: Callable[[Number], bool]) -> Number:
    """Parses a number; raises ArgumentTypeError with the `rule` for invalid values."""
    try:
        number = kind(text)
    except ValueError:
        number = None
    if number is None or not fits(number):
        raise argparse.ArgumentTypeError(f"{rule}, got {text!r}")
    return number


def selection(options: argparse.Namespace) -> dict[str, Any]:
    """The selected frames, for `open_source`."""
    return dict(start=options.start, count=options.count, stride=options.stride, rate=frame_rate(options.frame_rate), deinterlace=options.deinterlace)


def frame_rate(text: str | None) -> Fraction:
    """Parses `--frame-rate`: 25, 23.976 or 30000/1001; None gives the default."""
    text = DEFAULT_RATE if text is None else text
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if rate <= 0:
        raise ValueError(f"--frame-rate is a positive number of frames per second such as 25 or 30000/1001, got {text!r}")
    return rate


def encoding(options: argparse.Namespace) -> dict[str, Any]:
    """Codec, quality and pixel format, for `open_sink`."""
    from ..video import default_codec

    crf = DEFAULT_CRF if options.crf is None else options.crf
    return dict(codec=options.codec or default_codec(options.output), crf=crf, pixel_format=options.pixel_format)


def videos_among(*sources: Any) -> list[str]:
    """The names of sources, for `check_used` and `check_rate`; empty if one of them is an image sequence."""
    return [] if any(source.info.is_sequence for source in sources) else [source.describe() for source in sources]


def check_used(options: argparse.Namespace, *videos: str | Path) -> None:
    """Raises ValueError, before the work, for an option that would have no effect.

    videos: the inputs if none of them is an image sequence, for `check_rate`.
    """
    from ..video import CODECS
    from ..video.files import image_names

    check_rate(options.frame_rate, *videos)
    output, pixels = Path(options.output), options.pixel_format
    given = [f"--{name} {value}" for name, value in (("codec", options.codec), ("crf", options.crf)) if value is not None]
    if image_names(output) is not None:
        if pixels not in (None, *IMAGE_PIXELS):
            raise ValueError(f"--pixel-format {pixels} is of videos, and {output} is for images, which are {' or '.join(IMAGE_PIXELS)}; leave it out")
        if given:
            raise ValueError(f"{' and '.join(given)} would change nothing, as {output} is for images; leave it out, or name a video file")
    elif options.crf is not None and options.codec in CODECS and not CODECS[options.codec].constant_quality:
        raise ValueError(f"--crf {options.crf} would change nothing, as {options.codec} has no such scale; leave it out")


def check_rate(rate: str | None, *videos: str | Path) -> None:
    """Raises ValueError if `--frame-rate` is given for videos."""
    if rate is not None and videos:
        raise ValueError(f"--frame-rate {rate} is of images, and {videos[0]} is a video, which keeps its own times; leave it out")


def check_place(option: str, place: str | Path, *clips: str | Path) -> None:
    """Raises ValueError or OSError, before the work, if the file of `option` cannot be written or is one of the clips."""
    place = Path(place)
    if not place.parent.is_dir():
        raise ValueError(f"{option} {place} lies in {place.parent}, which is not a folder; make it first")
    if place.is_dir():
        raise ValueError(f"{option} {place} is a folder; name a file in it")
    if place.resolve() in (Path(clip).resolve() for clip in clips):
        raise ValueError(f"{option} {place} is the clip itself; choose another name")
    if not os.access(place if place.exists() else place.parent, os.W_OK):
        raise PermissionError(f"{option} {place} may not be written here; choose another place")
    if place.exists() and not place.is_file():
        return  # a pipe or a terminal
    try:
        with tempfile.TemporaryFile(dir=place.parent) as file:
            file.write(bytes(MIN_FREE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(f"{option} {place} cannot be written ({error.strerror or error}); make room, or choose another place") from error


def check_folder(option: str, folder: Path) -> None:
    """Raises ValueError or OSError, before the work, if the folder of `option` cannot be made."""
    there = next(part for part in (folder, *folder.absolute().parents) if part.exists())
    if not there.is_dir():
        raise ValueError(f"{option} {folder} cannot be a folder, as {there} is a file; choose another name")
    if not os.access(there, os.W_OK):
        raise PermissionError(f"{option} {folder} may not be written here; choose another place")
