"""Peak memory of `fvr restore` on a clip looped to 2,000 frames, against its peak on 100 frames.

python benchmarks/cost/memory.py CLIP [--frames 100 2000] [--set NAME=VALUE ...]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from walk import loop


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--frames", type=int, nargs=2, default=[100, 2000])
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    peaks = []
    with tempfile.TemporaryDirectory() as scratch:
        for count in sorted(options.frames):
            looped = Path(scratch) / f"{count}.mp4"
            loop(options.clip, looped, count)
            command = [sys.executable, "-m", "fvr.cli", "restore", str(looped), str(looped.with_suffix(".out.mp4"))]
            subprocess.run([*command, *(part for setting in options.set for part in ("--set", setting))], check=True)
            peaks.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
            print(f"{count} frames: peak {peaks[-1]:.0f} MB", flush=True)
    print(f"ratio {peaks[1] / peaks[0]:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
