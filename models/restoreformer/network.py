"""RestoreFormer (Wang et al., CVPR 2022) and RestoreFormer++ (TPAMI 2023): codes attended to by features of the degraded face.

Both are one autoencoder whose codes are the nearest entries of a codebook. Its decoder attends across: queries come from the degraded
face, keys and values from the codes' features ("undegraded key-value pairs"). The first does so at 16 x 16, ++ at 32 x 32 too.
Parameter names are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from ..tuning import Answer, Use
from ..vq import Codebook, Downsample, Upsample, VQConfig


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation over 32 groups."""
    return nn.GroupNorm(32, channels, eps=1e-6)


@dataclass(frozen=True)
class RestoreFormerConfig:
    """Sizes of the network; the defaults are RestoreFormer's. Level 0 is the image's, each further one has half the side.

    Attributes:
        channels: width of the first convolution.
        multipliers: width of each level in units of `channels`.
        res_blocks: residual blocks per level of the encoder; the decoder has one more.
        attended: levels at which the encoder attends to itself.
        crossed: levels at which the decoder attends to the encoder's features.
        heads: of every attention; not visible in a state dict.
        code_dim: channels of a code.
        codes: entries of the codebook.
    """

    channels: int = 64
    multipliers: tuple[int, ...] = (1, 2, 2, 4, 4, 8)
    res_blocks: int = 2
    attended: tuple[int, ...] = (5,)
    crossed: tuple[int, ...] = (5,)
    heads: int = 8
    code_dim: int = 256
    codes: int = 1024

    @property
    def levels(self) -> int:
        return len(self.multipliers)

    def width(self, level: int) -> int:
        """Channels of the feature maps of a level."""
        return self.channels * self.multipliers[level]

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> RestoreFormerConfig:
        """The configuration that a state dict was made with.

        The number of heads follows the publications: 8, or 4 in ++, which crosses at more levels than its encoder attends.

        Raises:
            KeyError: if it holds no such network.
        """
        channels = len(state["encoder.conv_in.weight"])
        levels = 1 + max((int(key.split(".")[2]) for key in state if key.startswith("encoder.down.")), default=0)
        attended = tuple(level for level in range(levels) if f"encoder.down.{level}.attn.0.q.weight" in state)
        crossed = tuple(level for level in range(levels) if f"decoder.up.{level}.attn.0.q.weight" in state)
        codes, code_dim = state["quantize.embedding.weight"].shape
        return cls(
            channels=channels,
            multipliers=tuple(len(state[f"encoder.down.{level}.block.0.conv2.weight"]) // channels for level in range(levels)),
            res_blocks=sum(f"encoder.down.0.block.{index}.conv1.weight" in state for index in range(len(state))),
            attended=attended,
            crossed=crossed,
            heads=4 if len(crossed) > len(attended) else 8,
            code_dim=code_dim,
            codes=codes,
        )


class Residual(nn.Module):
    """x + f(x), f two normalised 3 x 3 convolutions; a 1 x 1 convolution carries x over where the width changes."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.norm1 = group_norm(width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.norm2 = group_norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        if width_in != width:
            self.nin_shortcut = nn.Conv2d(width_in, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x), inplace=True))
        h = self.conv2(F.silu(self.norm2(h), inplace=True))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class CrossAttention(nn.Module):
    """x + attention over the places of the map with several heads; the queries come from `asking`, by default x itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = group_norm(width)
        self.norm2 = group_norm(width)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, asking: Tensor | None = None) -> Tensor:
        known = self.norm1(x)
        asked = known if asking is None else self.norm2(asking)
        q, k, v = (part.flatten(2).unflatten(1, (self.heads, -1)).mT for part in (self.q(asked), self.k(known), self.v(known)))
        mixed = F.scaled_dot_product_attention(q, k, v)  # (B, heads, places, width / heads)
        return x + self.proj_out(mixed.mT.flatten(1, 2).unflatten(2, x.shape[2:]))


class Middle(nn.Module):
    """The blocks at the lowest level: residual, attention, residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.block_1 = Residual(width, width)
        self.attn_1 = CrossAttention(width, heads)
        self.block_2 = Residual(width, width)


class Level(nn.Module):
    """One level's residual blocks, each followed by an attention where there are any, and the change of side at its end."""

    downsample: nn.Module
    upsample: nn.Module

    def __init__(self, widths: list[int], heads: int, *, attends: bool, resample: tuple[str, nn.Module] | None) -> None:
        super().__init__()
        self.block = nn.ModuleList(Residual(width_in, width) for width_in, width in pairwise(widths))
        self.attn = nn.ModuleList(CrossAttention(width, heads) for width in widths[1:] if attends)
        if resample is not None:
            self.add_module(*resample)

    def forward(self, x: Tensor, asking: Tensor | None = None) -> Tensor:
        for index, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[index](x, asking)
        return x


class Encoder(nn.Module):
    def __init__(self, config: RestoreFormerConfig) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, config.channels, 3, padding=1)
        self.down = nn.ModuleList()
        width = config.channels
        for level in range(config.levels):
            widths = [width, *[config.width(level)] * config.res_blocks]
            width = widths[-1]
            last = level == config.levels - 1
            resample = None if last else ("downsample", Downsample(width))
            self.down.append(Level(widths, config.heads, attends=level in config.attended, resample=resample))
        self.mid = Middle(width, config.heads)
        self.norm_out = group_norm(width)
        self.conv_out = nn.Conv2d(width, config.code_dim, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[int, Tensor], Tensor]:
        """(B, 3, H, W) to the latent, the features of each level, and those of the middle; the last level's are the middle's first block's."""
        features = {}
        x = self.conv_in(x)
        stage: Any
        for level, stage in enumerate(self.down):
            x = stage(x)
            features[level] = x
            if hasattr(stage, "downsample"):
                x = stage.downsample(x)
        x = self.mid.block_1(x)
        features[len(self.down) - 1] = x
        middle = self.mid.block_2(self.mid.attn_1(x))
        return self.conv_out(F.silu(self.norm_out(middle))), features, middle


class Decoder(nn.Module):
    def __init__(self, config: RestoreFormerConfig) -> None:
        super().__init__()
        width = config.width(config.levels - 1)
        self.conv_in = nn.Conv2d(config.code_dim, width, 3, padding=1)
        self.mid = Middle(width, config.heads)
        stages = []
        for level in reversed(range(config.levels)):
            widths = [width, *[config.width(level)] * (config.res_blocks + 1)]
            width = widths[-1]
            resample = ("upsample", Upsample(width)) if level else None
            stages.append(Level(widths, config.heads, attends=level in config.crossed, resample=resample))
        self.up = nn.ModuleList(reversed(stages))
        self.norm_out = group_norm(width)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, z: Tensor, features: Mapping[int, Tensor], middle: Tensor) -> Tensor:
        """Codes (B, code_dim, h, w) and the encoder's features to (B, 3, H, W), computed in the dtype of the weights."""
        dtype = self.conv_in.weight.dtype
        x = self.mid.block_1(self.conv_in(z.to(dtype)))
        x = self.mid.block_2(self.mid.attn_1(x, middle.to(dtype)))
        for level in reversed(range(len(self.up))):
            stage: Any = self.up[level]
            x = stage(x, features[level].to(dtype) if stage.attn else None)
            if level:
                x = stage.upsample(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class RestoreFormer(nn.Module):
    """Both versions; the side of the image may be any multiple of 2^(levels - 1), 32 as published, where 512 was trained."""

    def __init__(self, config: RestoreFormerConfig | None = None) -> None:
        super().__init__()
        self.config = config or RestoreFormerConfig()
        code_dim = self.config.code_dim
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)
        self.quantize = Codebook(VQConfig(code_dim=code_dim, codes=self.config.codes))
        self.quant_conv = nn.Conv2d(code_dim, code_dim, 1)
        self.post_quant_conv = nn.Conv2d(code_dim, code_dim, 1)

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Self:
        """The network with the sizes and the weights of a state dict, in eval mode.

        Raises:
            KeyError, RuntimeError: if it is not one of this class.
        """
        network = cls(RestoreFormerConfig.of(state))
        network.load_state_dict(dict(state))
        return network.eval()

    @property
    def label(self) -> str:
        return "RestoreFormer++" if len(self.config.crossed) > len(self.config.attended) else "RestoreFormer"

    def encode(self, x: Tensor) -> tuple[Tensor, dict[int, Tensor], Tensor]:
        """(B, 3, H, W) in [-1, 1] to the codes' indices (B, h, w), the features that the decoder attends to, and the middle's."""
        latent, features, middle = self.encoder(x)
        latent = self.quant_conv(latent)
        index = self.quantize.nearest(latent).unflatten(1, latent.shape[2:])
        return index, {level: features[level] for level in self.config.crossed}, middle

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to the restored faces, the same shape, float32 around [-1, 1]."""
        index, features, middle = self.encode(x)
        codes = self.quantize.embedding(index).movedim(-1, 1)
        return self.decoder(self.post_quant_conv(codes), features, middle).float()

    def trainable(self, recipe: str) -> list[nn.Module]:
        """All but the codebook."""
        return [self.encoder, self.decoder, self.quant_conv, self.post_quant_conv]

    def answer(self, source: Tensor, use: Use, *, draw: bool = True) -> Answer:
        """The gradient of the codes goes straight through to the latent (van den Oord et al., 2017)."""
        latent, features, middle = self.encoder(source)
        latent = self.quant_conv(latent).float()
        index = self.quantize.nearest(latent).unflatten(1, latent.shape[2:])
        codes = self.quantize.embedding(index).movedim(-1, 1)
        through = latent + (codes - latent).detach()
        kept = {level: features[level] for level in self.config.crossed}
        return Answer(self.decoder(self.post_quant_conv(through), kept, middle).float())

    def decoder_parts(self) -> list[nn.Module]:
        """The modules behind the choice of codes; in half precision they change no code."""
        return [self.decoder]
