"""Small networks of FLAIR's two kinds, for the tests of their laws."""

from __future__ import annotations

import torch
from torch import Tensor

from fvr.models.flair.bicubic import BicubicConfig, BicubicUNet
from fvr.models.flair.blur import BlurConfig, BlurUNet
from fvr.models.flair.unet import VideoUNet
from helpers.seeded_weights import seeded_state

LEVELS = frozenset({0, 1})
SMALL = {
    "bicubic": (BicubicUNet, BicubicConfig(64, 32, (1, 2), 1, frozenset({1}), LEVELS, 5, 32)),
    "blur": (BlurUNet, BlurConfig(64, 64, (0.5, 1), 1, frozenset({1}), LEVELS, 5, 32)),
}
LIGHT = {
    "bicubic": (BicubicUNet, BicubicConfig(512, 32, (1, 1, 1, 1, 2), 1, frozenset({4}), frozenset({4}))),
    "blur": (BlurUNet, BlurConfig(512, 64, (0.5, 0.5, 0.5, 0.5, 1), 1, frozenset({4}), frozenset({4}))),
}
"""Light enough to sample frames of 512 x 512 with, and told apart from the published sizes by their weights alone."""
SIDE = 16


def published_spynet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in which SPyNet's six copies hold the same weights: those of the first by name."""
    first: dict[str, Tensor] = {}
    for name in sorted(state):
        _, found, tail = name.partition("spynet.")
        if found:
            state[name] = first.setdefault(tail, state[name])
    return state


def seeded(kind: str, salt: str = "law", sizes: dict = SMALL) -> VideoUNet:
    """A small network with seeded weights in eval mode."""
    build, config = sizes[kind]
    with torch.device("meta"):
        template = build(config).state_dict()
    template = {name: torch.zeros(value.shape) for name, value in template.items()}
    for name in template:
        if name.endswith(("spynet.mean", "spynet.std")):
            template[name] = torch.full((1, 3, 1, 1), 0.45 if name.endswith("mean") else 0.225)
    return build.of(published_spynet(seeded_state(template, salt)), config)


def clip(frames: int, side: int = SIDE, seed: int = 0) -> tuple[Tensor, Tensor]:
    """x_t and a condition that moves a little from frame to frame, both (frames, 3, side, side)."""
    draw = torch.Generator().manual_seed(seed)
    x_t = torch.randn(frames, 3, side, side, generator=draw)
    coarse = torch.randn(1, 3, 8, 8, generator=draw)
    scene = torch.nn.functional.interpolate(coarse, (2 * side, 2 * side), mode="bicubic").tanh()
    return x_t, torch.cat([scene[..., 2 * i : 2 * i + side, i : i + side] for i in range(frames)])


def gap(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b|."""
    return float((a - b).norm() / b.norm())
