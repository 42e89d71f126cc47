"""What fine-tuning gains on a camera's noise, what it costs where the restorer was at home, and how both depend on the number of pictures.

    python benchmarks/quality/finetune.py --faces ../shared/faces --base NAME_OR_FILE [--counts 20 100 500] [--iso 3200] [--factor 2]
        [--targets clean | pseudo --prior NAME_OR_FILE --set N=16 ...] [--recipe auto] [--plan short] [--steps N] [--precision bfloat16]
        [--work FOLDER]

Faces at the restorer's own side S, shrunk by `factor`, seen by a camera (unprocessed, noise on a mosaic, processed: eq. 12 of the paper) and
enlarged back. Fine-tuned on faces of the training split, each time from the same base, towards the clean faces or towards pseudo-targets made
by the base itself; judged on the validation split, which shares no person. One line for each number of pictures, as the paper's Table 4:
PSNR in dB and SSIM on the camera's noise, how far from the truth in the base's own first features ("features", LPIPS too where it is on this
machine), and PSNR on the degradations that the base was trained for ("at home": the mean of the three judged ones). At home it must not lose more
than 0.5 dB; the last column says so.

NAME is what the loaders' menus show ("embedded codeformer", "embedded face prior"). A stopped run goes on when it is called again, from the pairs
and the state in its work folder.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fvr.finetune.base_model import Base, base_from_file
from fvr.finetune.dataset import Pairs, as_bytes
from fvr.finetune.options import HeldOut
from fvr.finetune.perceptual import EarlyFeatures
from fvr.finetune.run import fine_tune, options_for, precision_for
from fvr.finetune.stage import restored
from fvr.methods.pseudo_target.algorithm import PRESETS
from fvr.methods.pseudo_target.dataset import PairFolder
from fvr.methods.pseudo_target.generate import ChosenFace, TargetMaker, make_pairs, parameters_of
from fvr.methods.registry import restorer_from
from fvr.metrics.fidelity import psnr, ssim
from fvr.metrics.lpips import lpips_or_none
from fvr.models.checkpoints.load import load_network
from fvr.models.embedded import PRIORS, RESTORERS, listed
from fvr.models.tuning import answer
from fvr.options import parse_settings
from fvr.physics import parse
from fvr.priors.base import Prior
from fvr.priors.load import prior_from_file
from fvr.priors.wiener import GaussianPrior
from fvr.training.data.degradations import BENCHMARK, benchmark_input
from fvr.training.data.faces import Faces
from fvr.training.engine import Run

BATCH = 8
ALLOWED = 0.5
"""What may be lost at home, in dB."""


@dataclass(frozen=True)
class Figures:
    """Means over the validation faces."""

    dB: float
    ssim: float
    features: float
    lpips: float | None
    home: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--base", default="embedded codeformer")
    parser.add_argument("--counts", type=int, nargs="+", default=[20, 100, 500])
    parser.add_argument("--iso", type=int, default=3200, choices=(800, 1600, 3200))
    parser.add_argument("--factor", type=int, default=2, help="how much smaller the camera sees the face than the network does")
    parser.add_argument("--targets", choices=("clean", "pseudo"), default="clean")
    parser.add_argument("--prior", default="embedded face prior", help="for pseudo-targets")
    parser.add_argument("--preset", choices=PRESETS, help="for pseudo-targets; the prior's own unless given")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="changes the preset")
    parser.add_argument("--recipe", choices=("auto", "codes", "image"), default="auto")
    parser.add_argument("--plan", choices=("short", "paper"), default="short")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16", "float16"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--limit", type=int, default=88, help="validation faces")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("finetune-benchmark"))
    options = parser.parse_args()
    path = listed(RESTORERS).get(options.base, Path(options.base))
    base = base_from_file(path)
    device = torch.device(options.device)
    truth = Faces(options.faces, "val", base.side).first(options.limit)
    measure = measuring(base, truth, options.iso, options.factor, device)
    before = measure(base.network)
    chosen = options_for(base, plan=options.plan, recipe=options.recipe, steps=options.steps)
    chosen = replace(chosen, held_out=HeldOut(guard=0))  # portraits, no neighbours
    print(
        f"{path.name}, {base.side} x {base.side}, by {chosen.recipe}, {chosen.plan.steps} steps of {chosen.plan.batch * chosen.plan.accumulate}; "
        f"camera at ISO {options.iso}, x{options.factor}; targets: {options.targets}; {len(truth)} validation faces.\n"
    )
    print("| pictures | dB | SSIM | features | LPIPS | at home | steps taken, best | s a step | verdict |\n" + "| --- " * 9 + "|")
    print(row("0 (base)", before, "-", "-", "-"), flush=True)
    faces = Faces(options.faces, "train", base.side)
    for count in options.counts:
        pairs = pairs_of(base, path, faces, count, options)
        run = Run(options.work / f"{options.targets}-{count}", options.seed, str(device), precision=precision_for(options.precision, device))
        started = time.perf_counter()
        done = fine_tune(base_from_file(path), pairs, chosen, run, options.work / f"{options.targets}-{count}.safetensors")
        pace = (time.perf_counter() - started) / done.steps
        after = measure(done.loaded.network)
        gained, kept = after.dB > before.dB or after.features < before.features, before.home - after.home <= ALLOWED
        verdict = ("better" if gained else "not better") + (", keeps its home" if kept else f", loses {before.home - after.home:.2f} dB at home")
        print(row(str(len(pairs)), after, f"{done.steps}, {done.best_step}", f"{pace:.2f}", verdict), flush=True)


def pairs_of(base: Base, path: Path, faces: Faces, count: int, options: argparse.Namespace) -> Pairs:
    """`count` faces of the training split (or all), the same first ones for every count, seen by the camera, with their targets."""
    order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(options.seed))[:count].tolist()
    count = len(order)
    clean = torch.stack([faces.face(i) for i in order])
    seen = camera(clean, options.iso, options.factor, options.seed + 1)
    if options.targets == "clean":
        return Pairs.of_images(seen, clean, base.side)
    preset = options.preset or ("embedded" if options.prior.startswith("embedded") else "codeformer")
    settings = parse_settings(PRESETS[preset], {"batch": str(BATCH), **dict(text.split("=", 1) for text in options.set)}, "pseudo-targets")
    maker = TargetMaker(restorer_from(load_network(path)), prior_of(options.prior), settings, device=options.device)
    folder = PairFolder(options.work / "pairs", parameters_of(maker, options.seed))
    chosen = [ChosenFace(crop, f"face {n}", 0, n) for crop, n in zip(seen, order, strict=True)]
    parts = (make_pairs(chosen[i : i + BATCH], maker, seed=options.seed, folder=folder).targets for i in range(0, count, BATCH))
    return Pairs(as_bytes(seen, base.side), torch.cat([as_bytes(part, base.side) for part in parts]))


def prior_of(name: str) -> Prior:
    """By a file, a menu's name, or "gaussian" for the one without weights, which only shows that all runs."""
    return GaussianPrior() if name == "gaussian" else prior_from_file(listed(PRIORS).get(name, Path(name)))


def camera(faces: Tensor, iso: int, factor: int, seed: int) -> Tensor:
    """Faces (n, 3, S, S) in [0, 1] as the camera gives them, the same size and range; each with its own noise."""
    text = f"isp_noise(iso={iso})" if factor == 1 else f"bicubic(factor={factor}) + isp_noise(iso={iso})"
    operator = parse(text)
    seen = torch.cat([operator.observe(face[None], torch.Generator().manual_seed(seed * 100_003 + i)) for i, face in enumerate(faces)])
    if seen.shape != faces.shape:
        seen = F.interpolate(seen, faces.shape[-2:], mode="bicubic", align_corners=False)
    return seen.clamp(0, 1)


def measuring(base: Base, truth: Tensor, iso: int, factor: int, device: torch.device) -> Callable[[nn.Module], Figures]:
    """A function from a network to its figures on the validation faces, against the base's own features."""
    distance = EarlyFeatures(base.network.to(device), lambda frozen, x: answer(frozen, x, base.use), base.side)
    lpips = lpips_or_none(device)
    sources = [camera(truth, iso, factor, seed=0), *(benchmark_input(name, truth, seed=0) for name in BENCHMARK)]

    def pictures(network: nn.Module, source: Tensor) -> Tensor:
        done = []
        for part in source.split(BATCH):
            found = answer(network, (part * 2 - 1).to(device), base.use).picture
            assert found is not None
            done.append(restored(found, part))
        return torch.cat(done)

    @torch.inference_mode()
    def measured(network: nn.Module) -> Figures:
        network = network.to(device).eval()
        at_camera, *at_home = (pictures(network, source) for source in sources)
        pairs = [((a * 2 - 1).to(device), (b * 2 - 1).to(device)) for a, b in zip(at_camera.split(BATCH), truth.split(BATCH), strict=True)]
        weights = [len(a) / len(truth) for a, _ in pairs]
        return Figures(
            psnr(at_camera, truth).mean().item(),
            ssim(at_camera, truth).mean().item(),
            sum(weight * float(distance(a, b)) for weight, (a, b) in zip(weights, pairs, strict=True)),
            None if lpips is None else sum(weight * float(lpips(a, b).mean()) for weight, (a, b) in zip(weights, pairs, strict=True)),
            sum(psnr(home, truth).mean().item() for home in at_home) / len(at_home),
        )

    return measured


def row(name: str, figures: Figures, steps: str, pace: str, verdict: str) -> str:
    lpips = "-" if figures.lpips is None else f"{figures.lpips:.4f}"
    return (
        f"| {name} | {figures.dB:.2f} | {figures.ssim:.4f} | {figures.features:.4f} | {lpips} | {figures.home:.2f} | {steps} | {pace} | {verdict} |"
    )


if __name__ == "__main__":
    main()
