"""KEEP's gain network: how much weight each place of each frame gives to the prediction from the past, against the frame itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from ..vq import ResBlock
from .attention import CrossAttention, FeedForward


@dataclass(frozen=True)
class LayerMemory:
    """What a layer keeps of the frames before a block: normalised tokens (B, 1, n, C) of the anchor (frame 0) and of the last frame."""

    anchor: Tensor
    last: Tensor


GainMemory = tuple[LayerMemory, ...]
"""One entry per layer; a block that gets it continues the frames before."""


class GainLayer(nn.Module):
    """Attention to the anchor and to the previous frame, a feed-forward network, attention of each place over all frames of the block."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = CrossAttention(width, heads, head_width)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)
        self.norm_temp = nn.LayerNorm(width)
        self.attn_temp = CrossAttention(width, heads, head_width)

    def forward(self, x: Tensor, memory: LayerMemory | None) -> tuple[Tensor, LayerMemory]:
        """Tokens (B, T, n, C) of a block of T frames; without memory its first frame is the anchor, and its own predecessor."""
        tokens = self.norm1(x)
        if memory is None:
            memory = LayerMemory(tokens[:, :1], tokens[:, :1])
        x = x + self._look_back(tokens, memory)
        x = x + self.ff(self.norm3(x))
        across = self.norm_temp(x).transpose(1, 2)
        temporal = self.attn_temp.attend(self.attn_temp.to_q(across), self.attn_temp.to_k(across), self.attn_temp.to_v(across))
        return x + temporal.transpose(1, 2), LayerMemory(memory.anchor, tokens[:, -1:])

    def _look_back(self, tokens: Tensor, memory: LayerMemory) -> Tensor:
        """Sparse-causal attention (Tune-A-Video, eq. 2): frame t to frames 0 and t - 1."""
        source = torch.cat([memory.anchor, memory.last, tokens[:, :-1]], 1)

        def pairs(projected: Tensor) -> Tensor:
            before = projected[:, 1:]
            return torch.cat([projected[:, :1].expand_as(before), before], 2)

        return self.attn1.attend(self.attn1.to_q(tokens), pairs(self.attn1.to_k(source)), pairs(self.attn1.to_v(source)))


class KalmanFilter(nn.Module):
    """The gain network (KGN, section 3.2): K_t from the observed latents of a block of frames."""

    def __init__(self, width: int, heads: int, head_width: int, layers: int) -> None:
        super().__init__()
        self.uncertainty_estimator = nn.ModuleList(GainLayer(width, heads, head_width) for _ in range(layers))
        self.kalman_gain_calculator = nn.Sequential(
            ResBlock(width, width), ResBlock(width, width), ResBlock(width, width), nn.Conv2d(width, 1, 1), nn.Sigmoid()
        )

    def forward(self, latents: Tensor, memory: GainMemory | None = None) -> tuple[Tensor, GainMemory]:
        """Observed latents (B, T, C, h, w) of a block of frames to gains (B, T, 1, h, w) in (0, 1), and what the next block needs to continue.

        Frames of a block see each other. Without memory of the blocks before, the first one is the anchor that all others look at.
        """
        batch, frames, _, height, _ = latents.shape
        x = rearrange(latents, "b t c h w -> b t (h w) c")
        remembered = []
        for number, layer in enumerate(self.uncertainty_estimator):
            x, layer_memory = layer(x, None if memory is None else memory[number])
            remembered.append(layer_memory)
        maps = rearrange(x, "b t (h w) c -> (b t) c h w", h=height)
        return self.kalman_gain_calculator(maps).unflatten(0, (batch, frames)), tuple(remembered)
