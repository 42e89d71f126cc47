"""What FLAIR's data consistency buys with the weight-free prior: four known degradations, three clean clips, a markdown table.

    python benchmarks/inverse_problems/flair_physics.py --clips ../shared/clips

Truth: single frames of each clip, cut to their centre square and brought to 512 x 512. Each is degraded, enlarged by bicubic
interpolation, and restored with data consistency off and on; everything is seeded.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import torch
from torch import Tensor
from torch.nn import functional as F

from fvr.methods.base import restore_frames
from fvr.methods.flair.sampler import FlairRestorer
from fvr.methods.registry import build_restorer
from fvr.metrics.fidelity import psnr, ssim
from fvr.physics.base import Degradation
from fvr.physics.identity import GaussianNoise
from fvr.physics.linear.bicubic import BicubicDownsample
from fvr.physics.linear.blur import Blur
from fvr.physics.nonlinear.jpeg import Jpeg
from fvr.video import open_source, read_frames

SIDE = 512
CLIPS = ("clean_face_512.mp4", "clean_face_480_tone.mp4", "scene_720p_clean.mp4")


def degradations() -> dict[str, Degradation]:
    """The four of the table."""
    return {
        "x4, Gaussian blur 2 px, noise 0.03": GaussianNoise(0.03) @ Blur.gaussian(2.0, factor=4),
        "x8, bicubic": BicubicDownsample(8),
        "x4, motion blur 15 px, noise 0.02": GaussianNoise(0.02) @ Blur.motion_line(15, 30, factor=4),
        "x4, Gaussian blur 2 px, JPEG 60": Jpeg(60) @ Blur.gaussian(2.0, factor=4),
    }


def read(path: Path, indices: Sequence[int]) -> Tensor:
    """Frames by index, centre square, (N, 3, 512, 512) in [0, 1]."""
    frames = []
    for index in indices:
        frame = read_frames(open_source(path, start=index, count=1))[0][0]
        side = min(frame.shape[-2:])
        top, left = (frame.shape[-2] - side) // 2, (frame.shape[-1] - side) // 2
        square = (255 * frame[:, top : top + side, left : left + side]).round().byte().permute(1, 2, 0).numpy()
        if side != SIDE:
            square = cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA if side > SIDE else cv2.INTER_CUBIC)
        frames.append(torch.from_numpy(square.copy()).permute(2, 0, 1).float() / 255)
    return torch.stack(frames)


def score(x: Tensor, truth: Tensor) -> str:
    x = x.clamp(0, 1)
    return f"{psnr(x, truth).mean():.2f} / {ssim(x, truth).mean():.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="FLAIR's sampler with the weight-free prior on known degradations; prints a markdown table.")
    parser.add_argument("--clips", type=Path, required=True, help="folder with the clips")
    parser.add_argument("--frames", default="20,60", help="frame numbers taken from each clip")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="parameters of the sampler")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    indices = [int(text) for text in arguments.frames.split(",")]
    settings = dict(text.split("=", 1) for text in arguments.set)
    truths = {clip: read(arguments.clips / clip, indices) for clip in CLIPS}

    print("| degradation | clip | bicubic | FLAIR, DC off | FLAIR, DC on | s/frame |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, operator in degradations().items():
        restorer = build_restorer("flair", degradation=operator, device=arguments.device, settings=settings)
        assert isinstance(restorer, FlairRestorer)
        blind = FlairRestorer(restorer.prior, operator, replace(restorer.options, data_consistency=False), device=arguments.device)
        for clip, truth in truths.items():
            y = operator.observe(truth, torch.Generator().manual_seed(0))
            enlarged = F.interpolate(y, size=(SIDE, SIDE), mode="bicubic", align_corners=False)
            off = restore_frames(blind, y, seed=0)
            restore_frames(restorer, y[:1], seed=0)
            begun = time.perf_counter()
            on = restore_frames(restorer, y, seed=0)
            seconds = (time.perf_counter() - begun) / len(y)
            print(f"| {name} | {clip} | {score(enlarged, truth)} | {score(off, truth)} | {score(on, truth)} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
