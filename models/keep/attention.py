"""KEEP's attention between frames: projections, the gated feed-forward network, and the fusion of a frame's features with its predecessor's."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...products import Linear


class CrossAttention(nn.Module):
    """Multi-head attention whose queries, keys and values come without bias; `heads` times `head_width` need not be the tokens' width."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_width
        self.to_q = Linear(width, inner, bias=False)
        self.to_k = Linear(width, inner, bias=False)
        self.to_v = Linear(width, inner, bias=False)
        self.to_out = nn.ModuleList([Linear(inner, width)])

    def forward(self, tokens: Tensor, source: Tensor) -> Tensor:
        """Tokens (B, n, C) that look at (B, m, C), to (B, n, C)."""
        return self.attend(self.to_q(tokens), self.to_k(source), self.to_v(source))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Projected tokens (..., n, inner), (..., m, inner) twice, to (..., n, C)."""
        parts = (rearrange(part, "... n (heads d) -> ... heads n d", heads=self.heads) for part in (query, key, value))
        return self.to_out[0](rearrange(F.scaled_dot_product_attention(*parts), "... heads n d -> ... n (heads d)"))


class GEGLU(nn.Module):
    """Shazeer (2020): one half of a projection times the GELU of the other."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.proj(x).chunk(2, -1)
        return x * F.gelu(gate)


class FeedForward(nn.Module):
    """A gated network four times as wide inside; entry 1 was the dropout of training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(width, 4 * width), nn.Identity(), Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class CrossFrameFusion(nn.Module):
    """Cross-frame attention (eq. 13), as the code has it: post-norm, each step beside a shortcut, and a feed-forward network after it."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.attn = CrossAttention(width, heads, head_width)
        self.norm1 = nn.LayerNorm(width)
        self.ff = FeedForward(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        """A frame's feature map (B, C, h, w), and the previous frame's after its own fusion, to the fused map."""
        tokens, source = (rearrange(x, "b c h w -> b (h w) c") for x in (current, previous))
        tokens = tokens + self.norm1(self.attn(tokens, source))
        tokens = tokens + self.norm2(self.ff(tokens))
        return rearrange(tokens, "b (h w) c -> b c h w", h=current.shape[-2])
