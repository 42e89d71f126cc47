"""Seed-space MAP on a clip whose truth is known, with a small prior fitted to the rest of the clip; prints two markdown tables.

    python benchmarks/seed_map.py CLIP [--prior FILE] [--first 112] [--count 16] [--iterations 400] [--only inpaint] [--set NAME=VALUE ...]

The first table: the paper's five tasks against what one has without it (pixels filled by their mean; bicubic; the blurred clip itself).
The second (--ablation): the paper's Table 7, a seed per frame or one for all, without and with warping, on one task (--task).
PSNR in dB, SSIM, and the warping error: squared difference of each frame to its successor brought back along the true clip's flow, summed
over RGB and averaged over the visible pixels, in units of 0.01 (Lai et al. 2018; the flow is OpenCV's DIS on the truth).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from fitted_prior import fit, load
from torch import Tensor

from fvr.methods.seed_map import SeedMapOptions, seed_map
from fvr.methods.settings import parse_settings
from fvr.metrics.fidelity import psnr, ssim
from fvr.motion.dis import DisFlow
from fvr.motion.occlusion import visible
from fvr.motion.warp import warp
from fvr.physics import AveragePool, Blur, Degradation, RandomInpaint, TemporalBlur
from fvr.video import open_source, read_frames

TASKS: dict[str, Degradation] = {
    "sr x4": AveragePool(4),
    "inpaint 50 %": RandomInpaint(0.5, seed=0),
    "motion deblur": Blur.motion(9, 0.5, seed=0, boundary="reflect"),
    "temporal 7": TemporalBlur(7, "circular"),
    "temporal 7 + motion": Blur.motion(9, 0.5, seed=0, boundary="reflect") @ TemporalBlur(7, "circular"),
}
"""The paper's tasks; its motion kernel of 33 pixels at 512 is one of 9 at 128."""
VARIANTS = {
    "base": {"noise_prior": False, "warp_weight": 0.0},
    "with noise prior": {"warp_weight": 0.0},
    "with warping": {"noise_prior": False},
    "with both": {},
}


def naive(y: Tensor, operator: Degradation, side: int) -> Tensor:
    """What one has without a method."""
    if isinstance(operator, RandomInpaint):
        known = operator.mask_for(y)
        return y + (1 - known) * (y.sum((2, 3), keepdim=True) / known.sum())
    return y if y.shape[-1] == side else F.interpolate(y, (side, side), mode="bicubic", align_corners=False).clamp(0, 1)


def warping_error(frames: Tensor, truth: Tensor) -> float:
    """E_warp in units of 0.01, for clips (N, 3, H, W) in [0, 1]."""
    source = DisFlow()
    here, there = source.features(truth[:-1] * 2 - 1), source.features(truth[1:] * 2 - 1)
    forward = source.flow(here, there)
    seen = visible(forward, source.flow(there, here))
    error = (seen * (frames[:-1] - warp(frames[1:], forward))).square().sum((1, 2, 3)) / seen.sum((1, 2, 3)).clamp(min=1)
    return float(error.mean()) * 100


def score(frames: Tensor, truth: Tensor) -> str:
    return f"{psnr(frames, truth).mean():.2f} / {ssim(frames, truth).mean():.3f} / {warping_error(frames, truth):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--prior", type=Path, help="written by fitted_prior.py; fitted anew when missing (minutes)")
    parser.add_argument("--first", type=int, default=112)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--only", default="", help="only tasks (or variants) whose name contains this")
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--task", default="sr x4", choices=TASKS, help="of the ablation")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    frames, _ = read_frames(open_source(arguments.clip))
    frames = F.interpolate(frames, (arguments.side, arguments.side), mode="area")
    first, last = arguments.first, arguments.first + arguments.count
    truth = frames[first:last]
    prior = load(arguments.prior, arguments.side) if arguments.prior else fit(torch.cat([frames[:first], frames[last:]]))
    base = parse_settings(SeedMapOptions(iterations=arguments.iterations), dict(text.split("=", 1) for text in arguments.set), "seed_map")

    def run(operator: Degradation, options: SeedMapOptions) -> tuple[Tensor, float]:
        begun = time.perf_counter()
        result = seed_map(operator.forward(truth), operator, prior.generator(options.steps), options, flow=DisFlow())
        return result.frames, time.perf_counter() - begun

    if arguments.ablation:
        print(f"| variant, {arguments.task} | PSNR / SSIM / WE | s |\n| --- | --- | --- |")
        for name, change in VARIANTS.items():
            if arguments.only in name:
                done, seconds = run(TASKS[arguments.task], replace(base, **change))
                print(f"| {name} | {score(done, truth)} | {seconds:.0f} |", flush=True)
        return
    print("| task | without, PSNR / SSIM / WE | seed-space MAP | gain, dB | s |\n| --- | --- | --- | --- | --- |")
    for name, operator in TASKS.items():
        if arguments.only in name:
            before = naive(operator.forward(truth), operator, arguments.side)
            done, seconds = run(operator, base)
            gain = float(psnr(done, truth).mean() - psnr(before, truth).mean())
            print(f"| {name} | {score(before, truth)} | {score(done, truth)} | {gain:+.2f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
