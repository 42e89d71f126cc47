"""`fvr finetune`: fine-tunes a restorer on a folder of pairs."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    from ..finetune.options import PERCEPTUAL, PLANS, PRECISIONS, RECIPES

    p = commands.add_parser(
        "finetune",
        help="fine-tune a restorer for a camera, archive or film",
        description="Fine-tunes a face restorer on pairs of degraded crops and targets, and writes a checkpoint that can be used like any other.",
    )
    p.set_defaults(command=finetune)
    p.add_argument(
        "--base", required=True, metavar="FILE", help='restorer to start from: a checkpoint, or an embedded one such as "embedded codeformer"'
    )
    p.add_argument("--pairs", type=Path, required=True, metavar="FOLDER", help="folder with inputs/NNNNNN.png and targets/NNNNNN.png")
    p.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write, .safetensors")
    p.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    p.add_argument("--work", type=Path, help="folder for states, curves and sheets (default: the file's name with -training)")
    p.add_argument("--plan", choices=PLANS, default="short", help="short: a few hundred steps; paper: the published schedule")
    p.add_argument(
        "--recipe", choices=RECIPES, default="auto", help="codes: predict the targets' codes; image: losses on images (default: what suits the base)"
    )
    p.add_argument("--steps", type=int, default=0, help="optimiser steps (default: the plan's)")
    p.add_argument("--rate", type=float, default=0.0, help="learning rate (default: the plan's)")
    p.add_argument("--batch", type=int, default=0, help="pairs per pass; smaller values accumulate gradients over more passes (default: the plan's)")
    p.add_argument("--fidelity", type=float, help="fidelity weight w at which the restorer will be used (default: what suits the base)")
    p.add_argument("--precision", choices=PRECISIONS, default="auto", help="precision of convolutions and matrix products")
    p.add_argument("--checkpointing", action="store_true", help="gradient checkpointing: less memory for one more forward pass per step")
    p.add_argument("--half", action="store_true", help="write float16 instead of float32")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: cuda if there is one)")
    p.add_argument("--workers", type=int, default=0, help="threads that prepare batches (default: 0, none)")
    p.add_argument("--minutes", type=float, default=0.0, help="stop cleanly after this time; the same command resumes")
    g = p.add_argument_group("held-out part and losses")
    g.add_argument(
        "--held-out", type=float, default=0.15, metavar="SHARE", help="fraction of the pairs held out for validation (default: 0.15, the last ones)"
    )
    g.add_argument("--block", type=int, default=0, metavar="N", help="hold out every k-th block of N pairs instead of the last pairs")
    g.add_argument("--patience", type=int, help="early stopping after this many validations without progress; 0 for never (default: the plan's)")
    g.add_argument("--perceptual", choices=PERCEPTUAL, default="auto", help="perceptual loss; auto: LPIPS if its weights are installed")
    g.add_argument("--adversary", type=float, help="weight of the discriminator, 0 for none (default: the plan's)")
    g.add_argument("--reals", type=Path, metavar="FOLDER", help="aligned clean faces for the discriminator (default: the targets)")
    g.add_argument("--rehearsal", type=float, help="fraction of inputs with the degradation of the original training (default: the plan's)")


def finetune(options: argparse.Namespace) -> int:
    """Fine-tunes; returns 0 when done and 130 when stopped, with everything on disk to go on.

    Raises:
        ValueError: one sentence for what cannot be done.
        FileExistsError: if the output exists.
    """
    import torch

    from ..finetune.base_model import base_from_file
    from ..finetune.dataset import Pairs
    from ..finetune.options import HeldOut
    from ..finetune.run import fine_tune, options_for, precision_for
    from ..training.bars import Bars
    from ..training.cli import EXIT_STOPPED
    from ..training.engine import Run, Stopped

    out = options.out
    if out.suffix != ".safetensors":
        raise ValueError(f"{out} does not end in .safetensors, which is what fine-tuning writes; name it so")
    if out.exists() and not options.overwrite:
        raise FileExistsError(f"{out} exists; give --overwrite to replace it, or another --out")
    base = base_from_file(_base_path(options.base))
    if options.fidelity is not None:
        base.use = replace(base.use, fidelity=options.fidelity)
    chosen = options_for(base, plan=options.plan, recipe=options.recipe, steps=options.steps, rate=options.rate, batch=options.batch)
    given: dict[str, Any] = {name: getattr(options, name) for name in ("patience", "adversary", "rehearsal") if getattr(options, name) is not None}
    chosen = replace(
        chosen, held_out=HeldOut(options.held_out, options.block), perceptual_by=options.perceptual, checkpointing=options.checkpointing, **given
    )
    pairs = Pairs.of_folder(options.pairs, base.side)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    folder, precision = options.work or out.with_name(f"{out.stem}-training"), precision_for(options.precision, device)
    save_every = max(50, chosen.plan.steps // 40)
    settings = Run(folder, options.seed, device, precision, save_every, minutes=options.minutes, workers=options.workers)
    with Bars() as bars:
        try:
            done = fine_tune(base, pairs, chosen, settings, out, half=options.half, reals=_reals(options.reals, base.side), tick=bars)
        except Stopped as stop:
            bars.write(f"{stop}; its state, curves and sheets are in {settings.folder}", sys.stdout)
            return EXIT_STOPPED
        bars.write(f"{done.text}\n{done.curves}\n{done.sheet}\nwritten to {out}", sys.stdout)
    return 0


def _base_path(text: str) -> Path:
    from ..models.embedded import RESTORERS, listed

    known = listed(RESTORERS)
    if text.startswith("embedded ") and text not in known:
        raise ValueError(f"no restorer is called {text!r}; there are {', '.join(known) or 'none in this installation'}, or give a file")
    return known.get(text, Path(text))


def _reals(folder: Path | None, side: int) -> Any:
    from ..finetune.dataset import ImageFiles
    from ..video.files import IMAGE_SUFFIXES

    if folder is None:
        return None
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ValueError(f"{folder} holds no pictures; give a folder of aligned clean faces, or leave --reals out")
    return ImageFiles(paths, side)
