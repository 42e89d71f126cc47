"""The vector-quantised face autoencoder that CodeFormer, KEEP and DicFace share: encoder, codebook, generator.

VQGAN (Esser et al., CVPR 2021) as CodeFormer (Zhou et al., NeurIPS 2022) configures it for 512 x 512 faces. Parameter names are those of the
published checkpoints. Sides (512, 256, ...) name the feature maps by their height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..products import Pointwise

Refine = Callable[[int, Tensor], Tensor]
"""(side, feature) -> feature, at a tap of the generator."""


@dataclass(frozen=True)
class VQConfig:
    """Sizes of the autoencoder; the defaults are the published networks'.

    Attributes:
        side: height and width of the image.
        channels: width of the first convolution.
        multipliers: width of each level in units of `channels`, from the image down.
        res_blocks: residual blocks per level.
        attention: sides at which every residual block is followed by self-attention.
        code_dim: channels of a code.
        codes: entries of the codebook.
    """

    side: int = 512
    channels: int = 64
    multipliers: tuple[int, ...] = (1, 2, 2, 4, 4, 8)
    res_blocks: int = 2
    attention: frozenset[int] = frozenset({16})
    code_dim: int = 256
    codes: int = 1024

    @property
    def sides(self) -> tuple[int, ...]:
        """Side of each level's feature maps, from the image down; the last is the code map's."""
        return tuple(self.side >> level for level in range(len(self.multipliers)))

    @property
    def latent_side(self) -> int:
        """Side of the code map: 16 for 512 x 512 faces."""
        return self.sides[-1]

    @property
    def tokens(self) -> int:
        """Codes per image."""
        return self.latent_side**2

    def width(self, side: int) -> int:
        """Channels of the feature maps of a side."""
        return self.channels * self.multipliers[self.sides.index(side)]

    @classmethod
    def of(cls, state: Mapping[str, Tensor], encoder: str = "encoder.") -> VQConfig:
        """The configuration that a state dict was made with.

        The image size follows from the position table of the code predictor; without one (a bare autoencoder) the code map is 16 x 16.

        Raises:
            KeyError: if it holds no such autoencoder.
        """
        blocks: dict[int, str] = {}
        for key in state:
            if key.startswith(f"{encoder}blocks."):
                place, _, name = key.removeprefix(f"{encoder}blocks.").partition(".")
                if name in ("conv1.weight", "q.weight", "conv.weight"):
                    blocks[int(place)] = name.split(".")[0]
        channels = len(state[f"{encoder}blocks.0.weight"])
        levels: list[list[int]] = [[]]  # of each its residual blocks
        attended: set[int] = set()
        for number in sorted(blocks)[:-3]:  # residual, attention, residual close the encoder
            if blocks[number] == "conv":
                levels.append([])
            elif blocks[number] == "q":
                attended.add(len(levels) - 1)
            else:
                levels[-1].append(number)
        widths, width = [], channels
        for level in levels:
            width = len(state[f"{encoder}blocks.{level[-1]}.conv1.weight"]) if level else width  # what a damaged file lacks is named on loading
            widths.append(width)
        codes, code_dim = state["quantize.embedding.weight"].shape
        latent = isqrt(len(state["position_emb"])) if "position_emb" in state else 16
        side = latent << (len(levels) - 1)
        return cls(
            side=side,
            channels=channels,
            multipliers=tuple(width // channels for width in widths),
            res_blocks=next(filter(None, map(len, levels)), 0),
            attention=frozenset(side >> level for level in attended),
            code_dim=code_dim,
            codes=codes,
        )


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation over 32 groups, as published; over fewer where a group would be a single channel and so forget its mean."""
    return nn.GroupNorm(min(32, channels // 2), channels, eps=1e-6)


class ResBlock(nn.Module):
    """x + f(x), f two normalised 3 x 3 convolutions; a 1 x 1 convolution carries x over where the width changes."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.norm1 = group_norm(width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.norm2 = group_norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = Pointwise(width_in, width) if width_in != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x), inplace=True))
        h = self.conv2(F.silu(self.norm2(h), inplace=True))
        return h + self.conv_out(x)


class Attention(nn.Module):
    """x + self-attention over the places of the map, one head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = group_norm(width)
        self.q = Pointwise(width, width)
        self.k = Pointwise(width, width)
        self.v = Pointwise(width, width)
        self.proj_out = Pointwise(width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (project(h).flatten(2).mT for project in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v).mT.reshape(x.shape)
        return x + self.proj_out(mixed)


class Downsample(nn.Module):
    """Half the side: a strided 3 x 3 convolution, padded at the right and the bottom only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the side: every value repeated 2 x 2, then a 3 x 3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] >= 64 and x.device.type == "cpu" and not torch.is_grad_enabled():
            return F.conv_transpose2d(x, self.folded(), self.conv.bias, stride=2, padding=1)
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))

    def folded(self) -> Tensor:
        """The 4 x 4 kernel of one transposed convolution that does both: 4 products per output instead of 9, equal up to rounding.

        Repeating is itself a transposed convolution, with a 2 x 2 kernel of ones; the two kernels convolve.
        """
        weight = self.conv.weight
        repeated = weight.new_zeros(*weight.shape[:2], 4, 4)
        for row in (0, 1):
            for column in (0, 1):
                repeated[..., row : row + 3, column : column + 3] += weight
        return repeated.flip(-2, -1).transpose(0, 1)


class Encoder(nn.Module):
    """Image to latent; `forward` also returns the features that the generator can be conditioned on."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Conv2d(3, config.channels, 3, padding=1)]
        self.taps: dict[int, int] = {}
        width = config.channels
        for side in config.sides:
            for _ in range(config.res_blocks):
                blocks.append(ResBlock(width, config.width(side)))
                self.taps[len(blocks) - 1] = side
                width = config.width(side)
                if side in config.attention:
                    blocks.append(Attention(width))
            if side != config.latent_side:
                blocks.append(Downsample(width))
        last = {side: number for number, side in self.taps.items()}
        self.taps = {number: side for side, number in last.items()}  # after each level's last residual block
        blocks += [ResBlock(width, width), Attention(width), ResBlock(width, width)]
        blocks += [group_norm(width), nn.Conv2d(width, config.code_dim, 3, padding=1)]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, sides: Collection[int] = ()) -> tuple[Tensor, dict[int, Tensor]]:
        """(B, 3, S, S) in [-1, 1] to the latent (B, code_dim, s, s) and the features of the wanted sides."""
        features: dict[int, Tensor] = {}
        for number, block in enumerate(self.blocks):
            x = block(x)
            side = self.taps.get(number)
            if side is not None and side in sides:
                features[side] = x
        return x, features


class Generator(nn.Module):
    """Code map to image; a caller may refine the features once per level on the way."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        width = config.width(config.latent_side)
        blocks: list[nn.Module] = [nn.Conv2d(config.code_dim, width, 3, padding=1)]
        blocks += [ResBlock(width, width), Attention(width), ResBlock(width, width)]
        self.taps: dict[int, int] = {}
        for side in reversed(config.sides):
            for index in range(config.res_blocks):
                blocks.append(ResBlock(width, config.width(side)))
                width = config.width(side)
                if index == 0 or side == config.latent_side:
                    self.taps[side] = len(blocks) - 1
                if side in config.attention:
                    blocks.append(Attention(width))
            if side != config.side:
                blocks.append(Upsample(width))
        self.taps = {number: side for side, number in self.taps.items()}  # after a level's first block, at the code map's after its last
        blocks += [group_norm(width), nn.Conv2d(width, 3, 3, padding=1)]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, z: Tensor, refine: Refine | None = None) -> Tensor:
        """(B, code_dim, s, s) to (B, 3, S, S) float32 around [-1, 1], computed in the dtype of the weights."""
        x = z.to(next(self.parameters()).dtype)
        for number, block in enumerate(self.blocks):
            x = block(x)
            if refine is not None and number in self.taps:
                x = refine(self.taps[number], x)
        return x.float()


class Codebook(nn.Module):
    """The learnt entries; `embedding.weight` is (codes, code_dim)."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.codes, config.code_dim)

    def lookup(self, index: Tensor) -> Tensor:
        """(B, tokens) entries to their code map (B, code_dim, s, s)."""
        return as_map(self.embedding(index))

    def mix(self, weights: Tensor) -> Tensor:
        """(B, tokens, codes) weights to the map of weighted sums (B, code_dim, s, s)."""
        return as_map(weights @ self.embedding.weight)

    def nearest(self, latent: Tensor) -> Tensor:
        """(B, code_dim, s, s) to the index (B, tokens) of the closest entry in the Euclidean sense; computed in float32."""
        tokens = latent.float().flatten(2).mT
        entries = self.embedding.weight.float()
        distance = entries.square().sum(1) - 2 * tokens @ entries.T
        return distance.argmin(-1)


class VQAutoEncoder(nn.Module):
    """The autoencoder alone, as `vqgan_code1024.pth` holds it: for fine-tuning, and as the base of the networks that predict codes."""

    def __init__(self, config: VQConfig | None = None) -> None:
        super().__init__()
        self.config = config or VQConfig()
        self.encoder = Encoder(self.config)
        self.quantize = Codebook(self.config)
        self.generator = Generator(self.config)


def as_map(tokens: Tensor) -> Tensor:
    """(B, s * s, C) to (B, C, s, s), row by row."""
    side = isqrt(tokens.shape[1])
    return tokens.mT.reshape(len(tokens), -1, side, side)
