"""What every command that reads and writes clips takes."""

from __future__ import annotations

import argparse
from fractions import Fraction
from typing import Any


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
