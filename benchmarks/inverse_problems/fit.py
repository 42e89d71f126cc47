"""How well Fit Degradation finds a known operator; prints a markdown table.

    python benchmarks/inverse_problems/fit.py CLIP [CLIP ...] [--frame 60]

One frame of each clip is damaged, stored in 8 bits, and fitted. A clip's own blur adds to the one applied (in quadrature), so the first row
gives what is found in the undamaged frame, and "expected" counts it in.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor

from fvr.physics import Blur, Degradation, GaussianNoise, Jpeg, degradation, fit_degradation
from fvr.physics.fit import enlarge
from fvr.video import open_source, read_frames


def stored(frames: Tensor) -> Tensor:
    return (frames.clamp(0, 1) * 255).round() / 255


def damages() -> dict[str, tuple[Degradation, int]]:
    """What is done, and how many times the result is then enlarged."""
    found: dict[str, tuple[Degradation, int]] = {}
    for sigma in (1.0, 2.0, 3.0, 5.0):
        found[f"blur {sigma:g} px"] = Blur.gaussian(sigma), 1
    for sigma, level in ((2, 3), (2, 8), (3, 8)):
        found[f"blur {sigma} px, noise of {level} levels"] = GaussianNoise(level / 255) @ Blur.gaussian(sigma), 1
    for quality in (30, 60, 75, 90):
        found[f"JPEG {quality}"] = Jpeg(quality), 1
    found["blur 2 px, JPEG 60"] = Jpeg(60) @ Blur.gaussian(2), 1
    for factor in (2, 3, 4):
        found[f"enlarged x{factor}"] = degradation("bicubic", factor=factor), factor
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--frame", type=int, default=60)
    arguments = parser.parse_args()
    print("| clip | damage | expected blur, px | blur | JPEG | enlarged | noise, levels of luma | of a channel |\n" + "| --- " * 8 + "|")
    for path in arguments.clips:
        frames, _ = read_frames(open_source(path))
        frame = frames[arguments.frame : arguments.frame + 1]
        side = min(frame.shape[-2:]) // 24 * 24
        frame = frame[..., :side, :side]
        own = fit_degradation(frame).sigma
        print(f"| {path.name} | none | - | {own:.2f} | - | - | - | - |", flush=True)
        for name, (operator, factor) in damages().items():
            seen = operator.observe(frame, torch.Generator().manual_seed(0))
            found = fit_degradation(stored(enlarge(seen, factor) if factor > 1 else seen))
            sigma = next((float(text.split()[1]) for text in name.split(", ") if text.startswith("blur")), 0.0)
            expected = "-" if factor > 1 else f"{math.hypot(sigma, own):.2f}"
            noise = f"{found.noise * 255:.2f} | {found.operator.noise_level * 255:.2f}"
            print(f"| {path.name} | {name} | {expected} | {found.sigma:.2f} | {found.quality or '-'} | x{found.enlargement} | {noise} |", flush=True)


if __name__ == "__main__":
    main()
