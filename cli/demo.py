"""`fvr demo`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from ..plurals import counted
from .clips import at_least_one, check_folder, seed


def add(commands: Any) -> None:
    p = commands.add_parser(
        "demo",
        help="make, damage and restore a short clip",
        description="Makes a short clip from a public-domain portrait, damages it like a lens, a sensor and a codec, restores it with the bundled "
        "workflow, which gets no description of the damage, and measures the result against the ground truth.",
    )
    p.set_defaults(command=demo)
    p.add_argument("--output-dir", type=Path, default=Path("fvr-demo"), help="folder for the videos and the report (default: ./fvr-demo)")
    p.add_argument("--frames", type=at_least_one, default=24, help="length of the clip (default: 24)")
    p.add_argument("--seed", type=seed, default=0)
    p.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")


def demo(options: argparse.Namespace) -> int:
    began = time.monotonic()
    check_folder("--output-dir", options.output_dir)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    frames = counted(options.frames, "frame")
    say(f"fvr demo: makes a clip of {frames}, damages, restores and measures it; loading ...")  # before PyTorch, which takes seconds
    from .. import host
    from ..demo import run_demo

    if options.device:
        host.set_device(options.device)
    print(run_demo(options.output_dir, frames=options.frames, seed=options.seed, say=say, began=began))
    return 0
