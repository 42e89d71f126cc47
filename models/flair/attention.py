"""Attention within a frame, and across the frames of a sliding window at each place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..adm import timestep_embedding
from .convolution import FrameConv, numbered, zero_initialised
from .norm import ClipNorm
from .residual import GROUPS
from .window import Window


class SpatialAttention(nn.Module):
    """x + self-attention over the places of each frame.

    Args:
        width: channels.
        head: channels of a head.
        embedding: with it, a bias made of the embedding joins what attention gives; the network's middle has one.
    """

    def __init__(self, width: int, head: int, embedding: int | None = None) -> None:
        super().__init__()
        self.heads = width // head
        self.emb_layers = None if embedding is None else numbered({1: nn.Linear(embedding, width)})
        self.norm = ClipNorm(GROUPS, width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.proj_out = zero_initialised(nn.Conv1d(width, width, 1))

    def forward(self, x: Tensor, window: Window) -> Tensor:
        tokens = self.norm(x, window).flatten(2).mT  # (N, hw, C)
        q, k, v = F.linear(tokens, self.qkv.weight[..., 0], self.qkv.bias).unflatten(2, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        if self.emb_layers is not None:
            mixed = mixed + self.emb_layers["1"](F.silu(window.embedding))[:, None].to(mixed.dtype)
        out = F.linear(mixed, self.proj_out.weight[..., 0], self.proj_out.bias)
        return x + out.mT.unflatten(2, x.shape[-2:])


class TemporalAttention(nn.Module):
    """x + attention at each place from a frame to its neighbours within `span` frames, itself not among them.

    Beyond the ends of a clip the end frames are repeated. Places in the window (sin and cos of -span // 2 .. span // 2) are added to what
    queries and keys are made of, not to values. Keys and values of a frame are made once, not once for each window it is seen in: with
    p_j the place's code, W (x_s + p_j) + b = (W x_s + b) + W p_j.
    """

    def __init__(self, width: int, span: int, head: int) -> None:
        super().__init__()
        self.span, self.heads = span, width // head
        self.q_linear = nn.Linear(width, width)
        self.k_linear = nn.Linear(width, width)
        self.v_linear = nn.Linear(width, width)
        self.proj = zero_initialised(FrameConv(width, width, 1))
        self.norm = ClipNorm(GROUPS, width)

    def projections(self) -> tuple[nn.Module, ...]:
        """The layers whose dtype `VideoUNet.halved` changes."""
        return self.q_linear, self.k_linear, self.v_linear

    def forward(self, x: Tensor, window: Window) -> Tensor:
        frames, reach = window.frames, self.span // 2
        tokens = self.norm(x, window).flatten(2).mT  # (N, hw, C)
        offsets = torch.arange(-reach, reach + 1, device=x.device)
        sin, cos = timestep_embedding(offsets, x.shape[1])
        places = torch.cat([cos, sin], 1).to(tokens.dtype)
        q = self.q_linear(tokens + places[reach])
        k, v = self.k_linear(tokens), self.v_linear(tokens)
        at = F.linear(torch.cat([places[:reach], places[reach + 1 :]]), self.k_linear.weight)
        attended = []
        for index in range(len(x)):
            clip = index - index % frames
            seen = [clip + min(max(index - clip + step, 0), frames - 1) for step in range(-reach, reach + 1) if step]
            if x.device.type == "cpu" and not torch.is_grad_enabled():
                attended.append(_attended(q[index], [k[n] + at[step] for step, n in enumerate(seen)], [v[n] for n in seen], self.heads))
                continue
            keys, values = (torch.stack([part[n] for n in seen]) for part in (k, v))  # (span - 1, hw, C)
            query = q[index][:, None].unflatten(2, (self.heads, -1)).transpose(1, 2)  # (hw, heads, 1, d)
            keys, values = (part.unflatten(2, (self.heads, -1)).permute(1, 2, 0, 3) for part in (keys + at[:, None], values))
            attended.append(F.scaled_dot_product_attention(query, keys, values).flatten(1))
        mixed = torch.stack(attended).mT.unflatten(2, x.shape[-2:])
        return x + self.proj(mixed, window)


def _attended(query: Tensor, keys: list[Tensor], values: list[Tensor], heads: int) -> Tensor:
    """Attention of one query (hw, C) at each place to a few keys and values of that shape, in float32; a CPU's kernel takes twice as long."""
    q = query.float().unflatten(1, (heads, -1))
    scores = torch.stack([(q * key.unflatten(1, (heads, -1))).sum(-1, keepdim=True) for key in keys])
    weights = (scores * q.shape[-1] ** -0.5).softmax(0)
    mixed = torch.zeros_like(q)
    for weight, value in zip(weights, values, strict=True):  # stacked, they would leave the cache
        mixed += weight * value.unflatten(1, (heads, -1))
    return mixed.flatten(1).to(query.dtype)
