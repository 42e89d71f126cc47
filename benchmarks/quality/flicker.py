"""What averaging CodeFormer's code logits over neighbouring frames does to flicker, on an aligned clip.

python benchmarks/quality/flicker.py CLIP [--weights codeformer.pth] [--frames 16] [--smoothing 0 1 2 4]

Without --weights the network has deterministic random weights. The figures then show the mechanism only (how many codes change between
frames, and what that does to the picture); how much a viewer gains must be measured with the published weights. Columns:

codes changed   share of the 16 x 16 places whose code differs from that of the frame before
flicker         mean of |x_t - x_{t-1}| in grey levels of the restored crop, and in brackets what is left of it after taking off, pixel by
                pixel, the change of the input: max(0, |dx_t| - |dy_t|)
warping error   mean of |x_t - warp(x_{t-1})| in grey levels, along DIS optical flow of the input, where the flow agrees with its inverse
"""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from fvr.faces.types import CROP
from fvr.methods.base import resized
from fvr.methods.codeformer import CodeFormerOptions, CodeFormerRestorer
from fvr.models.checkpoints.load import load_network
from fvr.models.codeformer.network import CodeFormer
from fvr.video import open_source

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from helpers.seeded_weights import seed_weights


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--smoothing", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--fidelity", type=float, default=0.5)
    options = parser.parse_args()
    pieces = islice((frame[None] for chunk in open_source(options.clip).chunks(8) for frame in chunk.frames), options.frames)
    crops = resized(torch.cat(list(pieces)), CROP, "bicubic").clamp(0, 1)
    network = seed_weights(CodeFormer()) if options.weights is None else load_network(options.weights).network
    restorer = CodeFormerRestorer(network.to(memory_format=torch.channels_last), CodeFormerOptions(fidelity=options.fidelity))
    flows = [consistent_flow(a, b) for a, b in zip(crops[1:], crops[:-1], strict=True)]
    print(f"{options.clip.name}, {len(crops)} frames, fidelity {options.fidelity:g}, {options.weights or 'deterministic random weights'}")
    print(f"input: flicker {change(crops).mean() * 255:.2f}, warping error {warping_error(crops, flows):.2f}")
    print("| smoothing | codes changed | flicker | warping error |\n| --- | --- | --- | --- |")
    for half in options.smoothing:
        share, restored = run(restorer.configured(smoothing=half), crops)
        beyond = (change(restored) - change(crops)).clamp_min(0).mean() * 255
        flicker = f"{change(restored).mean() * 255:.2f} ({beyond:.2f})"
        print(f"| {half} | {share:.1%} | {flicker} | {warping_error(restored, flows):.2f} |", flush=True)
    return 0


def run(restorer: CodeFormerRestorer, crops: Tensor) -> tuple[float, Tensor]:
    """Share of codes that change from frame to frame, and the restored crops."""
    chosen: list[Tensor] = []
    watch = restorer.network.quantize.embedding.register_forward_pre_hook(lambda module, args: chosen.append(args[0]))
    session = restorer.open()
    restored = torch.cat([*(session.push(crop[None]) for crop in crops), session.close()])
    watch.remove()
    codes = torch.cat(chosen)
    return float((codes[1:] != codes[:-1]).float().mean()), restored


def change(frames: Tensor) -> Tensor:
    return (frames[1:] - frames[:-1]).abs()


def consistent_flow(frame: Tensor, before: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of `frame` was in the frame before, (H, W, 2) in pixels, and where that can be trusted, (H, W)."""
    grey = [cv2.cvtColor((x.permute(1, 2, 0).numpy() * 255).astype(np.uint8), cv2.COLOR_RGB2GRAY) for x in (frame, before)]
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    at = np.stack(np.meshgrid(np.arange(grey[0].shape[1]), np.arange(grey[0].shape[0])), -1).astype(np.float32)
    back, forth = dis.calc(grey[0], grey[1], None), dis.calc(grey[1], grey[0], None)
    there = at + back
    inside = (there >= 0).all(-1) & (there <= np.array(grey[0].shape[::-1]) - 1).all(-1)
    loop = np.linalg.norm(back + cv2.remap(forth, there[..., 0], there[..., 1], cv2.INTER_LINEAR), axis=-1)
    return there, inside & (loop < 1)


def warping_error(frames: Tensor, flows: list[tuple[np.ndarray, np.ndarray]]) -> float:
    pictures = (frames.permute(0, 2, 3, 1) * 255).numpy()
    errors = []
    for now, before, (there, valid) in zip(pictures[1:], pictures[:-1], flows, strict=True):
        warped = cv2.remap(before, there[..., 0], there[..., 1], cv2.INTER_LINEAR)
        errors.append(np.abs(now - warped)[valid].mean())
    return float(np.mean(errors))


if __name__ == "__main__":
    sys.exit(main())
