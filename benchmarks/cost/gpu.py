"""A GPU against the CPU, in less than eight minutes: python benchmarks/cost/gpu.py [--device cuda] [--methods blind,keep] [--seconds 460] [--small]

1. Parity: what each method with embedded weights makes of the same crops on both, as PSNR between the two.
2. Crops of 512 x 512 per second, and the most memory that was allocated: in float32, in bfloat16, and compiled by torch.compile.
3. End to end: `fvr restore` of a clip of 1920 x 1080, 48 frames, one face.

Rows for which no time is left are named. Ends with 1 if a method in float32 is not within 50 dB of the CPU. --small does a little of everything, and
runs anywhere: --device cpu compares the CPU with itself.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fvr.assembly import weights_for
from fvr.cli import main as fvr
from fvr.methods.base import restore_frames
from fvr.methods.registry import build_restorer
from fvr.models.checkpoints.origin import origins
from fvr.models.compiled import compile_parts
from fvr.video import open_sink, open_source

METHODS = "blind", "codeformer", "dicface", "keep", "flair"
LEAST = 50.0
"""dB between the GPU's crops and the CPU's in float32, below which they are not the same."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seconds", type=float, default=460.0)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args(arguments)
    began, device = time.monotonic(), torch.device(options.device)
    methods = options.methods.split(",")
    crops = portrait(1 if options.small else 8, 512, 512)

    def late(row: str) -> bool:
        over = time.monotonic() - began > options.seconds
        if over:
            print(f"{row}: left out, no time", flush=True)
        return over

    print(f"{described(device)}, PyTorch {torch.__version__}")
    print("| method | precision | parity, dB | crops/s | memory, MiB |\n| --- | --- | --- | --- | --- |", flush=True)
    wrong, known = [], {}
    for precision in ("float32", "bfloat16", "compiled"):
        for method in methods:
            if late(f"{method}, {precision}") or (options.small and precision == "compiled"):
                continue
            if method not in known:
                known[method] = restored(restorer_on("cpu", method), crops)
            restorer = restorer_on(device, method, torch.bfloat16 if precision == "bfloat16" else torch.float32)
            if precision == "compiled":
                compile_parts(origins(restorer), print)
            made, rate, memory = timed(restorer, crops, device, warm=not options.small)
            level = psnr(made, known[method])
            wrong += [method] if precision == "float32" and level < LEAST else []
            print(f"| {method} | {precision} | {level:.1f} | {rate:.2f} | {memory:.0f} |", flush=True)
    print("\n| end to end | frames/s | memory, MiB |\n| --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as name:
        clip = Path(name) / "in.mp4"
        make_clip(clip, *((2, 180, 320) if options.small else (48, 1080, 1920)))
        for method in methods:
            if not late(f"{method}, end to end"):
                rate, memory = end_to_end(clip, Path(name) / "out.mp4", method, device)
                print(f"| {method} | {rate:.2f} | {memory:.0f} |", flush=True)
    if wrong:
        print(f"not the CPU's: {', '.join(wrong)}")
    return 1 if wrong else 0


def restorer_on(device: Any, method: str, precision: torch.dtype = torch.float32) -> Any:
    return build_restorer(method, weights=weights_for(method, {}), device=device, precision=precision)


def restored(restorer: Any, crops: Tensor) -> Tensor:
    with torch.inference_mode():
        return restore_frames(restorer, crops, chunk=len(crops))


def timed(restorer: Any, crops: Tensor, device: torch.device, *, warm: bool) -> tuple[Tensor, float, float]:
    """What it made, crops per second, and MiB at most; of the second of two runs if `warm`."""
    if warm:
        restored(restorer, crops)
    forget(device)
    began = time.monotonic()
    made = restored(restorer, crops)  # ends on the CPU, so that the device is done
    return made, len(crops) / (time.monotonic() - began), allocated(device)


def end_to_end(clip: Path, out: Path, method: str, device: torch.device) -> tuple[float, float]:
    forget(device)
    began = time.monotonic()
    if fvr(["restore", str(clip), str(out), "--method", method, "--device", str(device), "--no-job", "--overwrite"]):
        raise SystemExit(f"fvr restore --method {method} failed on {device}")
    took = time.monotonic() - began
    return (open_source(clip).expected or 0) / took, allocated(device)


def forget(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def allocated(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else float("nan")


def described(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def psnr(one: Tensor, other: Tensor) -> float:
    return float(-10 * (one - other).square().mean().clamp(min=1e-12).log10())


def portrait(count: int, height: int, width: int) -> Tensor:
    """(count, 3, height, width) in [0, 1]: scikit-image's astronaut, blurred and noisy, who moves a little."""
    import skimage.data

    picture = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1).float() / 255
    generator = torch.Generator().manual_seed(0)
    frames = []
    for n in range(count):
        face = picture[:, n % 8 : n % 8 + 256, 95 + n % 5 : 351 + n % 5]
        soft = F.interpolate(F.avg_pool2d(face[None], 2), (height, height), mode="bicubic")
        frame = F.pad(soft, ((width - height) // 2, width - height - (width - height) // 2, 0, 0), mode="replicate")[0]
        frames.append((frame + 0.02 * torch.randn(frame.shape, generator=generator)).clamp(0, 1))
    return torch.stack(frames)


def make_clip(path: Path, count: int, height: int, width: int) -> None:
    with open_sink(path, None, crf=18) as sink:
        for n in range(0, count, 8):
            frames = portrait(min(8, count - n), height, width)
            times = [Fraction(n + k, 25) for k in range(len(frames) + 1)]
            sink.write(frames, times[:-1], times[1:])


if __name__ == "__main__":
    sys.exit(main())
