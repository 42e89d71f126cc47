"""Weights that two implementations of a network can both compute: each tensor is a function of a salt, its name and its shape.

The recipe is the one the reference outputs in tests/data were made with. It uses NumPy's legacy generator, whose stream is frozen.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

LOUD = {"feat_emb.weight": 8.0, "idx_pred_layer.1.weight": 4.0}
"""Names that end so get this much more, or random attention would see no difference between places."""
KEPT = (".mean", ".std", "attn_mask")
"""Names that end so are part of the definition of a network."""


def seeded_tensor(name: str, shape: tuple[int, ...], salt: str) -> Tensor:
    """float32: normalisation gains near 1, small biases, matrices scaled by their fan-in, position tables and codebooks of unit variance."""
    draw = np.random.RandomState(zlib.crc32(f"{salt}/{name}".encode()))
    if name.endswith("running_var"):
        return torch.from_numpy((0.5 + draw.random_sample(shape)).astype(np.float32))
    noise = draw.standard_normal(shape).astype(np.float32)
    if "position_emb" in name or name.endswith("embedding.weight"):
        return torch.from_numpy(noise)
    if len(shape) < 2:
        centre = 1.0 if name.rpartition(".")[2] == "weight" else 0.0
        return torch.from_numpy(np.asarray(centre + 0.1 * noise, dtype=np.float32))
    scale = 1.0 / math.sqrt(max(1, math.prod(shape[1:])))
    for ending, gain in LOUD.items():
        if name.endswith(ending):
            scale *= gain
    return torch.from_numpy(noise * np.float32(scale))


def seeded_state(template: Mapping[str, Tensor], salt: str = "parity") -> dict[str, Tensor]:
    """Every floating-point entry of a state dict, but for KEPT ones, replaced by its seeded tensor."""
    return {
        name: value if name.endswith(KEPT) or not value.is_floating_point() else seeded_tensor(name, tuple(value.shape), salt)
        for name, value in template.items()
    }


def seed_weights(network: nn.Module, salt: str = "parity") -> nn.Module:
    """`network` in eval mode with seeded weights."""
    network.load_state_dict(seeded_state(network.state_dict(), salt))
    return network.eval()
