"""Seed-space MAP on a clip whose truth is known; prints two markdown tables.

    python benchmarks/inverse_problems/seed_map.py CLIP_OR_FACE [--prior FILE] [--first 112] [--count 16] [--iterations 400]
        [--only inpaint] [--set NAME=VALUE ...]

CLIP_OR_FACE is a video, or a picture of an aligned face, which is then set in motion. The prior is one that fitted_prior.py wrote, any file of
a diffusion prior that works on pixels, or `embedded`.

The first table: the paper's five tasks against what one has without it (pixels filled by their mean; bicubic; the blurred clip itself).
The second (--ablation): the paper's Table 7, a seed per frame or one for all, without and with warping, on one task (--task).
PSNR in dB, SSIM, and the warping error (WE): squared difference of each frame to its successor brought back along the true clip's flow, summed
over RGB and averaged over the visible pixels, in units of 0.01 (Lai et al. 2018; the flow is OpenCV's DIS on the truth).
"Own error" is WE over 6 MSE: 1 when neighbouring frames are wrong in unrelated ways, 0 when they are wrong alike. "Hidden" is the PSNR where only
the part of the error counts that the observation does not show, e - A+ A e; "middle" that of the middle frame, whose input guides the shared seed.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from fitted_prior import load
from safetensors import safe_open
from torch import Tensor

from fvr.methods.seed_map.conditioning import guides
from fvr.methods.seed_map.generator import PixelGenerator, SeedGenerator
from fvr.methods.seed_map.optimise import seed_map
from fvr.methods.seed_map.options import SeedMapOptions
from fvr.metrics.fidelity import psnr, ssim
from fvr.metrics.temporal import mean_warping_error
from fvr.models.embedded import FOLDER, PRIOR
from fvr.motion.dis import DisFlow
from fvr.options import parse_settings
from fvr.physics import AveragePool, Blur, Degradation, RandomInpaint, TemporalBlur
from fvr.priors.load import prior_from_file
from fvr.training.data.faces import read_face
from fvr.training.data.synthetic_motion import Motion, animate
from fvr.video import IMAGE_SUFFIXES, open_source, read_frames

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


RATES_AND_RADII = {
    f"rate {rate:g}, C {radius:g}": {"residual_rate": rate, "radius": radius} for rate in (0.01, 0.001, 0.0001) for radius in (0.1, 1.0, 10.0)
}
"""The paper's Table 8, read as the ball of eq. 13."""


def naive(y: Tensor, operator: Degradation, side: int) -> Tensor:
    """What one has without a method."""
    if isinstance(operator, RandomInpaint):
        known = operator.mask_for(y)
        return y + (1 - known) * (y.sum((2, 3), keepdim=True) / known.sum())
    return y if y.shape[-1] == side else F.interpolate(y, (side, side), mode="bicubic", align_corners=False).clamp(0, 1)


def warping_error(frames: Tensor, truth: Tensor) -> float:
    """E_warp in units of 0.01, for clips (N, 3, H, W) in [0, 1]."""
    return 100 * mean_warping_error(frames, truth).rgb_sum


def score(frames: Tensor, truth: Tensor) -> str:
    return f"{psnr(frames, truth).mean():.2f} / {ssim(frames, truth).mean():.3f} / {warping_error(frames, truth):.3f}"


def hidden(frames: Tensor, truth: Tensor, operator: Degradation) -> float:
    """PSNR of the part of the error that A does not show."""
    error = frames - truth
    unseen = error - operator.pinv(operator.forward(error), size=(truth.shape[-2], truth.shape[-1]))
    return float(-10 * unseen.square().mean().log10())


def own_error(frames: Tensor, truth: Tensor) -> float:
    return warping_error(frames, truth) / 100 / (6 * float((frames - truth).square().mean()))


def clip_of(source: Path, first: int, count: int, side: int, motion_seed: int) -> Tensor:
    """(count, 3, side, side) in [0, 1]."""
    if source.suffix.lower() in IMAGE_SUFFIXES:
        face = read_face(source, 2 * side).float() / 255
        return animate(face, count, Motion(), torch.Generator().manual_seed(motion_seed), side)
    frames, _ = read_frames(open_source(source))
    return F.interpolate(frames[first : first + count], (side, side), mode="area")


def generator_of(prior: str, y: Tensor, operator: Degradation, side: int, options: SeedMapOptions) -> SeedGenerator:
    path = FOLDER / PRIOR if prior == "embedded" else Path(prior)
    with safe_open(path, "pt") as file:
        fitted = "directions" in file.keys()  # noqa: SIM118
    if fitted:
        return load(path, side).generator(options.steps)
    pixels = prior_from_file(path)
    shown = guides(y, operator, (side, side), pixels.upsampling) if options.guided and pixels.conditional else None
    return PixelGenerator(pixels, (side, side), steps=options.steps, guides=shown, start=options.start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--prior", default="embedded")
    parser.add_argument("--first", type=int, default=112, help="of the clip's frames")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--crop", type=int, help="only this much of the middle of each frame, where that suffices and time is short")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--only", default="", help="only tasks (or variants) whose name contains this")
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--table-8", action="store_true", help="the ablation over the residuals' rate and radius instead")
    parser.add_argument("--task", default="sr x4", choices=TASKS, help="of the ablation")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    truth = clip_of(arguments.source, arguments.first, arguments.count, arguments.side, arguments.seed)
    if arguments.crop:
        start = (arguments.side - arguments.crop) // 2
        truth = truth[..., start : start + arguments.crop, start : start + arguments.crop].contiguous()
    side = truth.shape[-1]
    base = parse_settings(SeedMapOptions(iterations=arguments.iterations), dict(text.split("=", 1) for text in arguments.set), "seed_map")

    def run(operator: Degradation, options: SeedMapOptions) -> tuple[Tensor, float, float]:
        begun = time.process_time()
        y = operator.forward(truth)
        generator = generator_of(arguments.prior, y, operator, side, options)
        result = seed_map(y, operator, generator, options, flow=DisFlow(), seed=arguments.seed)
        middle = sorted(result.residuals)[len(result.residuals) // 2]
        return result.frames, time.process_time() - begun, middle * 255

    print(f"{len(truth)} frames of {side} px; WE of the truth {warping_error(truth, truth):.3f}\n")
    if arguments.ablation or arguments.table_8:
        print(f"| variant, {arguments.task} | PSNR / SSIM / WE | own error | hidden | middle | left in grey levels | CPU s |\n{'| --- ' * 7}|")
        for name, change in (RATES_AND_RADII if arguments.table_8 else VARIANTS).items():
            if arguments.only in name:
                done, seconds, left = run(TASKS[arguments.task], replace(base, **change))
                middle = float(psnr(done, truth)[len(truth) // 2])
                parts = f"{own_error(done, truth):.2f} | {hidden(done, truth, TASKS[arguments.task]):.2f} | {middle:.2f}"
                print(f"| {name} | {score(done, truth)} | {parts} | {left:.1f} | {seconds:.0f} |", flush=True)
        return
    print("| task | without, PSNR / SSIM / WE | seed-space MAP | gain, dB | left in grey levels | CPU s |\n| --- | --- | --- | --- | --- | --- |")
    for name, operator in TASKS.items():
        if arguments.only in name:
            before = naive(operator.forward(truth), operator, side)
            done, seconds, left = run(operator, base)
            gain = float(psnr(done, truth).mean() - psnr(before, truth).mean())
            print(f"| {name} | {score(before, truth)} | {score(done, truth)} | {gain:+.2f} | {left:.1f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
