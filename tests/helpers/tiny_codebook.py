"""A codebook network that trains in seconds, and faces for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fvr.models.code_prediction import CodeConfig
from fvr.models.codeformer.network import CodeFormer
from fvr.models.vq import VQConfig
from fvr.training.codebook import network_of, stages_of
from fvr.training.data.degradations import HEAVY
from fvr.training.data.faces import Faces, Jitter
from fvr.training.engine import Run, train
from fvr.training.plan import Plan
from fvr.training.recipe import CodebookRecipe

SIDE = 64
SIZES = CodeConfig(
    VQConfig(side=SIDE, channels=32, multipliers=(1, 1, 1), res_blocks=1, attention=frozenset({16}), code_dim=32, codes=32),
    width=64,
    heads=1,
    layers=1,
    fused=(16, 32),
)
SHORT = Plan(6, 1, 1e-3, 1e-4, ema=0.5, clip=1.0)
TINY = CodebookRecipe(
    "tiny", SIZES, SHORT, SHORT, SHORT, Jitter(), HEAVY.at(SIDE), HEAVY.at(SIDE), settle=2, revive=4, pixels=10.0, perceptual=0.0, open_generator=True
)


def draw_faces(folder: Path, number: int = 6) -> Path:
    """Ovals with eyes, of various colours: (64 x 64) pictures in train and val."""
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for index in range(number):
            random = np.random.default_rng(index + 100 * (split == "val"))
            page = np.full((64, 64, 3), random.integers(0, 256, 3), np.uint8)
            cv2.ellipse(page, (32, 34), (20, 26), 0, 0, 360, random.integers(60, 256, 3).tolist(), -1)
            for x in (24, 40):
                cv2.circle(page, (x, 28), 4, (20, 20, 20), -1)
            cv2.imwrite(str(folder / split / f"{split}{index}.png"), page)
    return folder


def faces_of(folder: Path) -> tuple[Faces, Faces]:
    draw_faces(folder)
    return Faces(folder, "train", SIDE), Faces(folder, "val", SIDE)


def trained(folder: Path, recipe: CodebookRecipe = TINY, **changes) -> CodeFormer:
    """The tiny network after its three stages; they leave their files in folder / "work"."""
    torch.manual_seed(0)
    faces, held_out = faces_of(folder / "faces")
    network = network_of(recipe)
    settings = Run(folder / "work", validate_every=0, precision=None)
    train(network, stages_of(replace(recipe, **changes), faces, held_out, torch.device("cpu")), settings, recipe.name)
    return network


@pytest.fixture(scope="session")
def codebook_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codebook")
    trained(folder)
    return folder
