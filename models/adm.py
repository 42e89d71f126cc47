"""Blocks of guided diffusion's image UNets ("ADM", Dhariwal and Nichol 2021) on feature maps (N, C, H, W), under their published names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 32
MAX_PERIOD = 10000
"""The longest wave of the time embedding, in steps over 2 pi."""


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation over 32 groups."""
    return nn.GroupNorm(GROUPS, channels)


def timestep_embedding(t: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """sin and cos of t * 10000^(-i / half), i = 0 .. half - 1, half = width / 2: (N, half) float32 each for steps, noise levels or places (N,)."""
    half = width // 2
    rates = float(MAX_PERIOD) ** (-torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * rates
    return angles.sin(), angles.cos()


class ResBlock(nn.Module):
    """skip(x) + conv(silu(norm(conv(silu(norm(x)))) (1 + scale) + shift)), scale and shift linear in silu(embedding)."""

    takes_embedding = True

    def __init__(self, width_in: int, width: int, embedding: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(group_norm(width_in), nn.SiLU(inplace=True), nn.Conv2d(width_in, width, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * width))
        last = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.out_layers = nn.Sequential(group_norm(width), nn.SiLU(inplace=True), nn.Identity(), last)  # published: dropout at 2
        self.skip_connection = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm, activate, _, conv = self.out_layers
        scale, shift = self.emb_layers(emb)[..., None, None].chunk(2, 1)
        h = torch.addcmul(shift, norm(self.in_layers(x)), 1 + scale)
        return self.skip_connection(x) + conv(activate(h))


class Attention(nn.Module):
    """x + self-attention over the places of the map. Rows of `qkv` hold queries, keys and values of the first head, then of the next."""

    def __init__(self, width: int, head: int) -> None:
        super().__init__()
        if width % head:
            raise ValueError(f"attention over {width} channels cannot have heads of {head} channels")
        self.heads = width // head
        self.norm = group_norm(width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.proj_out = nn.Conv1d(width, width, 1)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).mT  # (N, places, C)
        q, k, v = F.linear(tokens, self.qkv.weight[..., 0], self.qkv.bias).unflatten(2, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + F.linear(mixed, self.proj_out.weight[..., 0], self.proj_out.bias).mT.unflatten(2, x.shape[2:])


class Downsample(nn.Module):
    """Half the side by a strided 3 x 3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """Twice the side: every pixel repeated, then a 3 x 3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class EmbeddedSequential(nn.Sequential):
    """Blocks in a row, of which those that take the embedding get it."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]
        for block in self:
            x = block(x, emb) if getattr(block, "takes_embedding", False) else block(x)
        return x
