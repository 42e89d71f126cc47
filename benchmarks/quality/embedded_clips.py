"""What each method restores of moving faces with nothing but the embedded weights: PSNR, SSIM, warping error, data residual, speed.

    python benchmarks/quality/embedded_clips.py --clips ../shared/clips [--frames 16] [--methods flair,keep] [--crops] [--sheet FILE.png]

Two clips that no network was trained on are aligned (faces/), brought to 128 x 128, the networks' native side, degraded there, and restored by
each method's default path. Baseline: bicubic enlargement of the observation. FLAIR is told the degradation, with and without data
consistency; the others are not. With --crops the degradations act on the crops of 512 instead, and a clean clip is restored too.
Warping error: mean over pairs and visible values of the squared difference along the truth's motion, times 1000 (metrics/temporal.py).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from fvr.assembly import EMBEDDED
from fvr.faces.align import align
from fvr.faces.detection.detectors import load_detector
from fvr.faces.tracking.selection import select_tracks
from fvr.faces.tracking.tracks import find_tracks
from fvr.methods.base import resized, restore_frames
from fvr.methods.flair.options import PRESETS
from fvr.methods.flair.sampler import FlairRestorer
from fvr.methods.registry import build_restorer
from fvr.metrics.fidelity import psnr, ssim
from fvr.metrics.temporal import mean_warping_error
from fvr.models import embedded
from fvr.physics.blind_video import LEVELS
from fvr.physics.parser import parse
from fvr.training.data.degradations import BENCHMARK
from fvr.training.sheet import sheet_png
from fvr.video import read_frames

CLIPS = {"clean_face_512.mp4": 30, "scene_720p_clean.mp4": 30}
"""Files, and the first frame that is used."""
SIDE = 128
STILL, DPM = "flair frame by frame", "flair with a DPM"
VARIANTS = {"flair without DC": {"data_consistency": "off"}, "flair without enhancer": {"enhance": "off"}, STILL: {"enhance": "off"}, DPM: {}}
"""Of FLAIR: its settings. One leaves out enhancer and temporal layers (the paper's Table 3); one has the prior itself, without condition, in the
codebook's place as the enhancer (Table 9)."""
SETS = {f"{level} video": f"blind_video(level={level})" for level in LEVELS}
"""KEEP's three test sets, for crops of 512."""
METHODS = ("flair", "flair without DC", "codeformer", "dicface", "keep")
UNCONDITIONAL = replace(PRESETS["embedded"], guidance=0.0, data_consistency=False, enhance=False)
CLEAN = "clean"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--crops", action="store_true", help="degrade the crops of 512, and restore a clean clip too")
    parser.add_argument("--sets", action="store_true", help="KEEP's test sets (mild, medium, heavy) instead, with --crops")
    parser.add_argument("--only", help="the one degradation whose name begins so")
    parser.add_argument("--set", action="append", default=[], help="NAME=VALUE for flair")
    parser.add_argument("--sheet", type=Path, help="write one frame of everything here")
    options = parser.parse_args()
    crops = {name: aligned(options.clips / name, first, options.frames) for name, first in CLIPS.items()}
    columns = ["clip", "degradation", "method", "PSNR", "gain", "SSIM", "gain", "warping", "residual", "frames/s"]
    print(row(columns), row(["---"] * len(columns)), sep="\n")
    sheet = []
    kinds = SETS if options.sets else BENCHMARK
    names = [name for name in (*kinds, CLEAN) if name.startswith(options.only or "") and (name != CLEAN or (options.crops and not options.sets))]
    for clip, crop in crops.items():
        for name in names:
            pictures = []
            for line, picture in measured(clip, crop, name, options):
                print(line, flush=True)
                pictures.append(picture)
            sheet.append(torch.stack(pictures))
    if options.sheet:
        sheet_png(torch.stack(sheet), options.sheet)


def aligned(path: Path, first: int, count: int) -> Tensor:
    """`count` aligned crops (count, 3, 512, 512) of a clip's largest face, followed as the pipeline does."""
    frames = read_frames(path)[0][first : first + count]
    track = select_tracks(find_tracks([(0, frames)], load_detector()), "largest")[0]
    return align(frames, track, 0)


def measured(clip: str, crop: Tensor, name: str, options: argparse.Namespace) -> Iterator[tuple[str, Tensor]]:
    """A table row and a picture of the middle frame for the baseline and each method."""
    side = crop.shape[-1] if options.crops else SIDE
    truth = resized(crop, side, "bilinear")
    text = "" if name == CLEAN else (SETS | BENCHMARK)[name]
    degradation = parse(text) if text else None
    y = truth if degradation is None else degradation.observe(truth, torch.Generator().manual_seed(0)).clamp(0, 1)
    baseline = resized(y, side, "bicubic").clamp(0, 1)
    middle = len(crop) // 2
    shown = resized(baseline, SIDE, "bilinear")[middle]
    yield row([clip, name, "bicubic", *scores(baseline, truth), "", ""]), shown
    for method in options.methods.split(","):
        settings = dict(text.split("=", 1) for text in options.set) if method.startswith("flair") else {}
        known, crops = None, baseline
        if method.startswith("flair"):
            if degradation is not None:
                known, crops = degradation if options.crops else parse(f"average_pool(factor={crop.shape[-1] // SIDE}) + {text}"), y
            settings |= VARIANTS.get(method, {})
        weights = embedded.listed(embedded.RESTORERS | embedded.PRIORS).get(EMBEDDED[method.split()[0]])
        restorer = build_restorer(method.split()[0], weights=weights, degradation=known, settings=settings)
        if isinstance(restorer, FlairRestorer):
            if method == DPM:
                restorer.enhancer = FlairRestorer(restorer.prior, options=UNCONDITIONAL)
            if method == STILL:
                network = restorer.prior.network  # type: ignore[attr-defined]
                network.forward = partial(network.forward, temporal=False)
        began = time.perf_counter()
        result = resized(restore_frames(restorer, crops), side, "bilinear")
        pace = len(crop) / (time.perf_counter() - began)
        residual = "" if degradation is None else f"{255 * (degradation.forward(result) - y).square().mean().sqrt():.2f}"
        line = row([clip, name, method, *scores(result, truth, baseline), residual, f"{pace:.2f}"])
        yield line, resized(result, SIDE, "bilinear")[middle]
    yield row([clip, name, "truth", *[""] * 4, scores(truth, truth)[-1], "", ""]), resized(truth, SIDE, "bilinear")[middle]


def scores(x: Tensor, truth: Tensor, baseline: Tensor | None = None) -> list[str]:
    """Cells of a row: PSNR in dB and SSIM, each followed by its gain over the baseline's, and the warping error."""
    cells = []
    for measure, digits in ((psnr, 2), (ssim, 3)):
        value = float(measure(x, truth).mean())
        cells += [f"{value:.{digits}f}", "" if baseline is None else f"{value - float(measure(baseline, truth).mean()):+.{digits}f}"]
    return [*cells, f"{1000 * mean_warping_error(x, truth).per_value:.3f}"]


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
