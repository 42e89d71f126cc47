"""Restorers that fine-tune in seconds, and pairs for them: portraits in noise, and as they were."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fvr.finetune.base_model import Base, base_from_file
from fvr.finetune.dataset import Pairs
from fvr.models.code_prediction import CodeConfig
from fvr.models.codeformer.network import CodeFormer
from fvr.models.dicface.network import DicFace
from fvr.models.keep.network import KEEP, KeepConfig
from fvr.models.restoreformer.network import RestoreFormer, RestoreFormerConfig
from fvr.models.vq import VQConfig
from helpers.code_networks import moving
from helpers.seeded_weights import seed_weights

SIDE = 32
VQ = VQConfig(side=SIDE, channels=32, multipliers=(1, 1), res_blocks=1, attention=frozenset({16}), code_dim=32, codes=16)
CODES = CodeConfig(VQ, width=64, heads=1, layers=1, fused=(16, 32))
KEPT = KeepConfig(VQ, 64, 1, 1, (16, 32), cross_fused=(16,), cross_width=8, gain_layers=1, gain_heads=1, gain_width=16, flow_network=False)
WINDOWED = VQConfig(side=SIDE, channels=32, multipliers=(1, 1, 1), res_blocks=1, attention=frozenset({8}), code_dim=32, codes=16)
"""DicFace looks at features of four times the latent's side."""


def networks() -> dict[str, nn.Module]:
    return {
        "codeformer": CodeFormer(CODES),
        "keep": KEEP(KEPT),
        "dicface": DicFace(CodeConfig(WINDOWED, width=64, heads=1, layers=1, fused=(16, 32)), frame_length=3),
        "restoreformer": RestoreFormer(RestoreFormerConfig(32, (1, 1), 1, attended=(1,), crossed=(1,), heads=2, code_dim=32, codes=16)),
    }


def file_of(folder: Path, kind: str = "codeformer", notes: dict[str, str] | None = None) -> Path:
    """A checkpoint of one of `networks` with seeded weights."""
    network = seed_weights(networks()[kind], "small")
    path = folder / f"base-{kind}.safetensors"
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path, notes)
    return path


def base(folder: Path, kind: str = "codeformer") -> Base:
    """A base of side 32, whatever the kind."""
    found = base_from_file(file_of(folder, kind))
    found.side = SIDE
    return found


def noisy(count: int = 16, side: int = SIDE, sigma: float = 0.15) -> tuple[Tensor, Tensor]:
    """(count, 3, side, side) in [0, 1], noisy and clean."""
    clean = moving(count, side)
    return (clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1), clean


def pairs(count: int = 16, side: int = SIDE) -> Pairs:
    return Pairs.of_images(*noisy(count, side), side)
