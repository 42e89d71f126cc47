"""FLAIR's published presets at the paper's noise (sigma 0.05), data consistency off and on, over the weight-free prior; prints a markdown table.

    python benchmarks/inverse_problems/flair_presets.py [--steps 8]

The picture is scikit-image's astronaut, 256 pixels of it enlarged to 512; x4 after a Gaussian of 2 pixels or a motion kernel of 25.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from solvers import portrait

from fvr.methods.base import restore_frames
from fvr.methods.flair.options import PRESETS
from fvr.methods.flair.sampler import FlairRestorer
from fvr.metrics.fidelity import psnr
from fvr.physics import Blur, GaussianNoise, Jpeg
from fvr.priors.wiener import GaussianPrior

NOISE = GaussianNoise(0.05)
TASKS = {
    "gaussian": NOISE @ Blur.gaussian(2.0, factor=4),
    "jpeg": Jpeg(60) @ NOISE @ Blur.gaussian(2.0, factor=4),
    "motion": NOISE @ Blur.motion(25, 0.5, 1, factor=4, boundary="circular"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="instead of the presets' own")
    steps = parser.parse_args().steps
    truth = portrait()
    print("| preset | PSNR, dB, off | on | distance from the observation, grey levels, off | on |\n| --- | --- | --- | --- | --- |")
    for name, operator in TASKS.items():
        y = operator.observe(truth, torch.Generator().manual_seed(0))
        figures = []
        for on in (False, True):
            options = replace(PRESETS[name], data_consistency=on)
            restorer = FlairRestorer(GaussianPrior(), operator, replace(options, steps=steps) if steps else options)
            found = restore_frames(restorer, y)
            figures.append((float(psnr(found, truth)), 255 * float((operator.forward(found) - y).square().mean().sqrt())))
        (off, left), (on_, kept) = figures
        print(f"| {name} | {off:.2f} | {on_:.2f} | {left:.2f} | {kept:.2f} |", flush=True)


if __name__ == "__main__":
    main()
