"""`fvr train codebook|keep|dicface`: from a folder of aligned faces to a weights file."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from . import codebook
from .faces import FEDERAL, Faces
from .loop import Run, train

RECIPES = {"codebook": {"small": codebook.SMALL_128, "paper": codebook.PAPER}}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", choices=sorted(RECIPES))
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--recipe", default="small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--validate-every", type=int, default=100)


def run(options: argparse.Namespace) -> int:
    recipe = RECIPES[options.network][options.recipe]
    side = recipe.sizes.vq.side
    faces, held_out = Faces(options.faces, "train", side, FEDERAL), Faces(options.faces, "val", side, FEDERAL)
    device = torch.device("cpu")
    torch.manual_seed(options.seed)
    settings = Run(options.work, options.seed, validate_every=options.validate_every, minutes=options.minutes)

    def tick(stage, done, steps, losses):
        print(stage, done, steps, {k: round(v, 4) for k, v in losses.items()}, flush=True)

    train(codebook.network_of(recipe), codebook.stages_of(recipe, faces, held_out, device), settings, recipe.name, tick)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    raise SystemExit(run(parser.parse_args()))
