"""DicFace as a stream against the official way, which evaluates the whole five-frame window for every frame: time, difference, memory.

python benchmarks/cost/dicface_window.py [--small] [--memory 20 200]

Both run in one process on the same deterministic weights (the published ones change no time). "window" encodes, transforms and decodes all
five frames for the one it keeps, upsamples in two steps and keeps PyTorch's default memory layout, as the official script does; "stream" is
our session. Times are CPU seconds of the process, which other jobs on the machine lengthen less than wall time.
"""

from __future__ import annotations

import argparse
import copy
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from fvr.methods.base import from_network
from fvr.methods.dicface import DicFaceRestorer
from fvr.models.code_prediction import CodeConfig
from fvr.models.dicface.network import DicFace
from fvr.models.vq import VQConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from helpers.seeded_weights import seed_weights

SMALL = CodeConfig(VQConfig(128, 32, (1, 2, 2, 4), 1, frozenset({16}), 64, 128), 128, 2, 3, (32, 64, 128))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a network of 128 x 128 pixels instead of the published size")
    parser.add_argument("--memory", type=int, nargs="+", metavar="FRAMES", help="peak memory on clips of these lengths instead of times")
    parser.add_argument("--frames", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.frames:
        stream(options.small, options.frames)
    elif options.memory:
        memory(options.small, options.memory)
    else:
        times(options.small)
    return 0


def network_of(small: bool) -> DicFace:
    return seed_weights(DicFace(SMALL) if small else DicFace())  # type: ignore[return-value]


def times(small: bool) -> None:
    network = network_of(small)
    side = network.config.side
    crops = torch.rand(7, 3, side // 8, side // 8, generator=torch.Generator().manual_seed(0))
    crops = torch.nn.functional.interpolate(crops, (side, side), mode="bicubic").clamp(0, 1)
    official = copy.deepcopy(network).requires_grad_(False)
    seconds_window, expected = timed(lambda: whole_window(official, crops[2:7] * 2 - 1))
    session = DicFaceRestorer(network.to(memory_format=torch.channels_last)).open()
    session.push(crops[:5])  # until every push hands out a frame
    seconds_stream, got = timed(lambda: torch.cat([session.push(crops[5:6]), session.push(crops[6:7])])[1:])
    seconds_stream /= 2
    print(f"window {seconds_window:.1f} s per output frame, stream {seconds_stream:.1f} s, ratio {seconds_window / seconds_stream:.2f}")
    error = (from_network(expected) - got).abs().max()
    print(f"largest difference of a restored value in [0, 1]: {error:.1e}")


def whole_window(network: DicFace, x: Tensor) -> Tensor:
    """The centre of a window, all five frames computed. In grad mode the network upsamples in two steps; frozen weights record no graph."""
    with torch.enable_grad():
        return network(x[None])[0, 2:3]


def timed(work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def memory(small: bool, lengths: list[int]) -> None:
    peaks = []
    for frames in sorted(lengths):
        command = [sys.executable, __file__, "--frames", str(frames), *(["--small"] if small else [])]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        print(f"{frames} frames: peak {peaks[-1]} MB", flush=True)
    print(f"ratio {peaks[-1] / peaks[0]:.3f}")


def stream(small: bool, frames: int) -> None:
    """A clip as it comes from a file: one crop after the other, nothing kept of what was handed out."""
    session = DicFaceRestorer(network_of(small).to(memory_format=torch.channels_last)).open()
    session.return_maps = True
    draw = torch.Generator().manual_seed(0)
    for _ in range(frames):
        session.push(torch.rand(1, 3, 512, 512, generator=draw))
        session.maps()
    session.close()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


if __name__ == "__main__":
    sys.exit(main())
