"""Pseudo-targets against the restorer's own output, on faces degraded by a camera's noise; prints a markdown table.

    python benchmarks/quality/pseudo_target.py --faces ../shared/faces --restorer NAME_OR_FILE --prior NAME_OR_FILE
        [--iso 1600 3200] [--factor 4] [--limit 16] [--preset NAME] [--set K=500 ...] [--fidelity 0.5] [--batch 4] [--sheet FILE.png]

Faces of the validation split at 512, shrunk by `factor`, through the camera (unprocessed, noise on a mosaic, processed; eq. 12 of the paper),
enlarged back. NAME is that of embedded weights ("embedded codeformer"), or a method that needs none ("flair"); FILE is a checkpoint.

Columns: sharpness without a reference (Zhu and Milanfar's metric Q, which noise lowers too, at the prior's side, where restored and target both show
edges) of the restorer's output, the target and the truth; how many targets are the sharper ones, and by how much on average; how far their low
frequencies moved (mean and worst face, share of the range); PSNR in dB and SSIM, at the prior's side, of both; seconds a face. The preset is the
prior's own unless another is named: "embedded" for embedded ones, else "codeformer".
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fvr.assembly import named_weights
from fvr.methods.base import Restorer
from fvr.methods.pseudo_target.algorithm import PRESETS
from fvr.methods.pseudo_target.generate import TargetMaker, at_side
from fvr.methods.registry import build_restorer, methods, restorer_from
from fvr.metrics.fidelity import psnr, ssim
from fvr.metrics.metric_q import directed, image_content
from fvr.models.checkpoints.load import load_network
from fvr.options import parse_settings
from fvr.physics import parse
from fvr.priors.load import prior_from_file
from fvr.training.data.faces import Faces
from fvr.training.sheet import sheet_png

SIDE = 512


def restorer_of(name: str, fidelity: float | None) -> Restorer:
    """By a file, a method's name, or a name of the embedded ones."""
    restorer: Any = build_restorer(name) if name in methods() else restorer_from(load_network(named_weights(name)))
    return restorer if fidelity is None else restorer.configured(fidelity=fidelity)


def degraded(truth: Tensor, iso: int, factor: int, any_camera: bool = False) -> Tensor:
    """(n, 3, 512, 512): shrunk, seen by the camera, or each by one drawn at random, enlarged by bilinear interpolation as the paper's code does."""
    text = f"any_camera(iso={iso}, of=frame)" if any_camera else f"isp_noise(iso={iso}, mosaic=grbg)"
    seen = parse(text if factor == 1 else f"bicubic(factor={factor}) + {text}").observe(truth, torch.Generator().manual_seed(iso)).clamp(0, 1)
    return torch.nn.functional.interpolate(seen, (SIDE, SIDE), mode="bilinear", align_corners=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--restorer", required=True)
    parser.add_argument("--prior", required=True)
    parser.add_argument("--preset", choices=PRESETS)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--fidelity", type=float)
    parser.add_argument("--iso", type=int, nargs="+", default=[1600, 3200])
    parser.add_argument("--any-camera", action="store_true", help="white balance and colour matrix drawn for every face, as the paper's script does")
    parser.add_argument("--factor", type=int, default=4)
    parser.add_argument("--limit", type=int, default=16)
    parser.add_argument("--batch", type=int, default=1, help="faces at once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="degraded, restored, target and truth of up to 8 faces, of the last ISO")
    arguments = parser.parse_args()
    preset = arguments.preset or ("embedded" if arguments.prior.startswith("embedded") else "codeformer")
    options = parse_settings(PRESETS[preset], dict(text.split("=", 1) for text in arguments.set), "pseudo-targets")
    maker = TargetMaker(restorer_of(arguments.restorer, arguments.fidelity), prior_from_file(named_weights(arguments.prior)), options)
    held_out = Faces(arguments.faces, "val", SIDE)
    count = min(arguments.limit, len(held_out))
    truth = torch.stack([held_out.face(i * len(held_out) // count) for i in range(count)])
    side = maker.trajectory.side
    print(f"{count} faces, shrunk {arguments.factor} times. {maker.describe()}\n")
    print("| ISO | Q: restored | target | truth | sharper, by | low-pass moved, mean / worst | restored, PSNR / SSIM | target | s/face |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for iso in arguments.iso:
        seen = degraded(truth, iso, arguments.factor, arguments.any_camera)
        begun = time.perf_counter()
        parts = torch.arange(count).split(arguments.batch)
        made = [maker.make(seen[part], [(0, i) for i in part.tolist()], seed=arguments.seed) for part in parts]
        pace = (time.perf_counter() - begun) / count
        initial, targets = (torch.cat([getattr(one, part) for one in made]) for part in ("initial", "targets"))
        small = {name: at_side(part, side) for name, part in (("restored", initial), ("target", targets), ("truth", truth))}
        drift = torch.tensor([value for one in made for value in one.drift])
        gains = torch.tensor([value for one in made for value in one.sharper])
        seen_in = directed(small["restored"]) & directed(small["target"])
        sharp = {name: image_content(images, seen_in).mean() for name, images in small.items()}
        likeness = [f"{psnr(small[k], small['truth']).mean():.2f} / {ssim(small[k], small['truth']).mean():.3f}" for k in ("restored", "target")]
        print(
            f"| {iso} | {sharp['restored']:.2f} | {sharp['target']:.2f} | {sharp['truth']:.2f} | {(gains > 0).sum()} of {count}, {gains.mean():+.1%} "
            f"| {drift.mean():.2%} / {drift.max():.2%} | {likeness[0]} | {likeness[1]} | {pace:.1f} |",
            flush=True,
        )
    if arguments.sheet:
        sheet_png(torch.stack([at_side(part[:8], 256) for part in (seen, initial, targets, truth)], 1), arguments.sheet)
        print(f"\n{arguments.sheet}: degraded, restored, target, truth")


if __name__ == "__main__":
    main()
