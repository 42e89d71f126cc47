"""What CodeFormer, KEEP and DicFace share beyond the autoencoder: a transformer that predicts codes, and features handed to the generator."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from ..products import Linear, linear
from .tuning import Answer, Use
from .vq import Refine, ResBlock, VQAutoEncoder, VQConfig


@dataclass(frozen=True)
class CodeConfig:
    """Sizes of a network that predicts codes; the defaults are the published networks'.

    Attributes:
        vq: the autoencoder's.
        width: channels of the transformer.
        heads: its attention heads; not visible in a state dict, 64 channels each in every published network.
        layers: its spatial layers.
        fused: sides at which encoder features steer the generator.
    """

    vq: VQConfig = field(default_factory=VQConfig)
    width: int = 512
    heads: int = 8
    layers: int = 9
    fused: tuple[int, ...] = (32, 64, 128, 256)

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> CodeConfig:
        """The configuration that a state dict was made with. Raises KeyError if it holds no such network."""
        width = len(state["feat_emb.weight"])
        layers = {key.split(".")[1] for key in state if key.startswith("ft_layers.")}
        fused = {int(key.split(".")[1]) for key in state if key.startswith("fuse_convs_dict.")}
        return cls(VQConfig.of(state), width, max(1, width // 64), len(layers), tuple(sorted(fused)))


class CodeLayer(nn.Module):
    """A pre-norm transformer layer over tokens (B, N, C); positions are added to queries and keys only."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads)
        self.linear1 = Linear(width, 2 * width)
        self.linear2 = Linear(2 * width, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, position: Tensor, keep: slice = slice(None)) -> Tensor:
        """(B, N, C) and positions that broadcast to it; returns the tokens that `keep` selects of the N, which cost less when few."""
        x = x[:, keep] + self._attend(x, position, keep)
        return x + self.linear2(F.gelu(self.linear1(self.norm2(x))))

    def _attend(self, x: Tensor, position: Tensor, keep: slice) -> Tensor:
        attn, width = self.self_attn, x.shape[-1]
        weight, bias = attn.in_proj_weight, attn.in_proj_bias
        value = self.norm1(x)
        key = value + position
        q = linear(key[:, keep], weight[:width], bias[:width])
        k = linear(key, weight[width : 2 * width], bias[width : 2 * width])
        v = linear(value, weight[2 * width :], bias[2 * width :])
        heads = [part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for part in (q, k, v)]
        mixed = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        return linear(mixed, attn.out_proj.weight, attn.out_proj.bias)


class FeatureTransform(nn.Module):
    """Controllable feature transformation (CodeFormer, eq. 5): d + w (d * scale(e) + shift(e)), e from encoder and decoder features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encode_enc = ResBlock(2 * width, width)
        self.scale = self._head(width)
        self.shift = self._head(width)

    @staticmethod
    def _head(width: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, encoded: Tensor, decoded: Tensor, weight: float | Tensor) -> Tensor:
        joint = self.encode_enc(torch.cat([encoded.to(decoded.dtype), decoded], 1))
        return decoded + weight * (decoded * self.scale(joint) + self.shift(joint))


class CodeNetwork(VQAutoEncoder):
    """An encoder, a transformer that names a code for every place, a codebook, and a generator steered by encoder features."""

    def __init__(self, config: CodeConfig | None = None) -> None:
        self.sizes = config or CodeConfig()
        super().__init__(self.sizes.vq)
        vq, width = self.sizes.vq, self.sizes.width
        self.position_emb = nn.Parameter(torch.zeros(vq.tokens, width))
        self.feat_emb = Linear(vq.code_dim, width)
        self.ft_layers = nn.ModuleList(CodeLayer(width, self.sizes.heads) for _ in range(self.sizes.layers))
        self.idx_pred_layer = nn.Sequential(nn.LayerNorm(width), Linear(width, vq.codes, bias=False))
        self.fuse_convs_dict = nn.ModuleDict({str(side): FeatureTransform(vq.width(side)) for side in self.sizes.fused})

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Self:
        """The network with the sizes and the weights of a state dict, in eval mode.

        Raises:
            KeyError, RuntimeError: if it is not one of this class.
        """
        network = cls.sized_for(state)
        network.load_state_dict(dict(state))
        return network.eval()

    @classmethod
    def sized_for(cls, state: Mapping[str, Tensor]) -> Self:
        """The network with the sizes of a state dict, untrained."""
        return cls(CodeConfig.of(state))

    def encode(self, x: Tensor, sides: Collection[int] | None = None) -> tuple[Tensor, dict[int, Tensor]]:
        """(B, 3, S, S) in [-1, 1] to the latent (B, code_dim, s, s) and the features of `sides` (default: those that steer the generator)."""
        return self.encoder(x, self.sizes.fused if sides is None else sides)

    def logits(self, latent: Tensor) -> Tensor:
        """(B, code_dim, s, s) to (B, tokens, codes), through the spatial layers."""
        x = self.feat_emb(latent.flatten(2).mT)
        for layer in self.ft_layers:
            x = layer(x, self.position_emb)
        return self.idx_pred_layer(x)

    def fuse(self, features: Mapping[int, Tensor], weight: float | Tensor) -> Refine:
        """The refinement that hands encoder features to the generator, with the same `weight` at every side, 0 for none."""
        steer = not isinstance(weight, (int, float)) or weight > 0

        def refine(side: int, x: Tensor) -> Tensor:
            if steer and str(side) in self.fuse_convs_dict:
                return self.fuse_convs_dict[str(side)](features[side], x, weight)
            return x

        return refine

    def recipe_for(self, use: Use) -> str:
        """Codes, as CodeFormer's paper and the pseudo-targets' fine-tune them."""
        return "codes"

    def trainable(self, recipe: str) -> list[nn.Module | nn.Parameter]:
        """Encoder, positions, transformer and heads; by pictures the feature transforms too. Codebook, generator and temporal parts are fixed."""
        parts: list[nn.Module | nn.Parameter] = [self.encoder, self.feat_emb, self.ft_layers, self.idx_pred_layer, self.position_emb]
        return [*parts, self.fuse_convs_dict] if recipe == "image" else parts

    def answer(self, source: Tensor, use: Use, *, draw: bool = True) -> Answer:
        """As to single faces: KEEP's as to the first frame of a clip, DicFace's as to a still one."""
        latent, features = self.encode(source, None if draw else ())
        log_probs = self.log_probs(latent)
        return Answer(self.drawn(log_probs, latent, features, use) if draw else None, latent, log_probs)

    def log_probs(self, latent: Tensor) -> Tensor:
        """(B, code_dim, s, s) to the logarithms of the codes' probabilities, (B, tokens, codes)."""
        return self.logits(latent).float().log_softmax(-1)

    def drawn(self, log_probs: Tensor, latent: Tensor, features: dict[int, Tensor], use: Use) -> Tensor:
        """The picture of the likeliest codes."""
        raise NotImplementedError

    def encode_clean(self, image: Tensor) -> Tensor:
        """Clean faces (B, 3, S, S) in [-1, 1] to their latent (B, code_dim, s, s)."""
        return self.encode(image, ())[0]

    def true_codes(self, target: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """What a frozen network finds in clean faces (B, 3, S, S) in [-1, 1]: the codes nearest to their latent.

        Returns:
            index (B, tokens) or None; the wanted weights of codes (B, tokens, codes), empty if there is an index; the wanted latent.
        """
        index = self.quantize.nearest(self.encode_clean(target))
        return index, target.new_empty(0), self.quantize.lookup(index)

    def decoder_parts(self) -> list[nn.Module]:
        """The modules behind the choice of codes; in half precision they change no code."""
        return [self.generator, self.fuse_convs_dict]


def adain(content: Tensor, style: Tensor) -> Tensor:
    """Adaptive instance normalisation: `content` (B, C, h, w) with each channel's mean and deviation those of `style` (unbiased, + 1e-5)."""

    def moments(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.mean((2, 3), keepdim=True), (x.var((2, 3), keepdim=True) + 1e-5).sqrt()

    mean, deviation = moments(content)
    style_mean, style_deviation = moments(style)
    return (content - mean) / deviation * style_deviation + style_mean
