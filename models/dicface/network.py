"""DicFace: video face restoration with Dirichlet-distributed codes (Chen et al., 2025).

Where paper and published checkpoints differ, the checkpoints are followed: nine pairs of layers, learnt positions, features of three sides
fused into the latent, encoder features handed to the generator. Equation numbers are the paper's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from ...products import Pointwise
from ..code_prediction import CodeConfig, CodeLayer, CodeNetwork
from ..tuning import Use
from ..vq import VQConfig

FLOOR = 0.01
"""The least Dirichlet parameter."""


class MultiScaleFuse(nn.Module):
    """The encoder's features at 4 s and 2 s, brought to the latent's side s without loss, and the latent, mixed into one map."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        side, width = config.latent_side, config.code_dim
        self.s64_conv = Pointwise(16 * config.width(4 * side), width)
        self.s32_conv = Pointwise(4 * config.width(2 * side), width)
        self.s16_conv = Pointwise(width, width)
        self.out = nn.Conv2d(3 * width, width, 3, padding=1)

    def forward(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> Tensor:
        """(B, C, 4 s, 4 s), (B, C, 2 s, 2 s) and (B, code_dim, s, s) to (B, code_dim, s, s)."""
        parts = [self.s64_conv(F.pixel_unshuffle(fine, 4)), self.s32_conv(F.pixel_unshuffle(middle, 2)), self.s16_conv(coarse)]
        return self.out(torch.cat(parts, 1))


class DicFace(CodeNetwork):
    """Restoration, colourisation and inpainting of a window of frames; the three checkpoints share this architecture.

    `encode` and `tokens` look at single frames, `alpha` at a whole window, `decode` at single frames again: a caller that slides the window
    encodes every frame once and decodes only the frame it keeps.

    Args:
        config: sizes; the defaults are the published networks'.
        frame_length: T, frames of a window.
    """

    def __init__(self, config: CodeConfig | None = None, frame_length: int = 5) -> None:
        super().__init__(config)
        width, heads = self.sizes.width, self.sizes.heads
        self.frame_length = frame_length
        self.position_emb_temporal = nn.Parameter(torch.zeros(frame_length, width))
        self.multiscale = MultiScaleFuse(self.sizes.vq)
        self.dir_dist_layers = nn.ModuleList(CodeLayer(width, heads) for _ in range(self.sizes.layers))

    @classmethod
    def sized_for(cls, state: Mapping[str, Tensor]) -> Self:
        return cls(CodeConfig.of(state), len(state["position_emb_temporal"]))

    def encode(self, x: Tensor, sides: Collection[int] | None = None) -> tuple[Tensor, dict[int, Tensor]]:
        """(B, 3, S, S) in [-1, 1] to the fused latent (B, code_dim, s, s) and the features of `sides` (default: those that steer the generator)."""
        wanted = self.sizes.fused if sides is None else sides
        side = self.sizes.vq.latent_side
        coarse, features = super().encode(x, {*wanted, 4 * side, 2 * side})
        latent = self.multiscale(features[4 * side], features[2 * side], coarse)
        return latent, {side: features[side] for side in wanted}

    def tokens(self, latent: Tensor) -> Tensor:
        """(B, code_dim, s, s) to (B, s * s, width): all of the transformer that comes before frames meet, the first spatial layer (eq. 12)."""
        return self.ft_layers[0](self.feat_emb(latent.flatten(2).mT), self.position_emb)

    def alpha(self, tokens: Tensor, keep: slice = slice(None)) -> Tensor:
        """Parameters of the codes' Dirichlet distributions, q(w | x) = Dir(alpha) (eq. 5).

        Args:
            tokens: (B, T, N, width), those of T = frame_length consecutive frames, or T = 1 for a clip that stands still: where all frames are
                one, attention over them gives what one gives.
            keep: the frames of the window that are wanted; the last layer and the head then run for these alone.

        Returns:
            (B, K, N, codes) float, each softplus(logit) + 0.01, for the K frames kept.
        """
        x = tokens
        for number, (space, time) in enumerate(zip(self.ft_layers, self.dir_dist_layers, strict=True)):
            if number:
                x = space(x.flatten(0, 1), self.position_emb).unflatten(0, x.shape[:2])
            places = x.transpose(1, 2)  # the temporal layer attends along the T frames of every place
            last = number == len(self.dir_dist_layers) - 1
            mixed = time(places.flatten(0, 1), self.position_emb_temporal[: x.shape[1]], keep if last else slice(None))
            x = mixed.unflatten(0, places.shape[:2]).transpose(1, 2)
        return F.softplus(self.idx_pred_layer(x)) + FLOOR

    def decode(self, weights: Tensor, features: Mapping[int, Tensor], weight: float = 1.0) -> Tensor:
        """Convex combinations of codes, v = w^T c (eq. 4), to the image.

        Args:
            weights: (B, N, codes), w of each place.
            features: the encoder's, of the same frames.
            weight: fidelity: 0 follows the codes alone, 1 the input's features as far as they go.

        Returns:
            (B, 3, S, S) float32 around [-1, 1].
        """
        return self.generator(self.quantize.mix(weights), self.fuse(features, weight))

    def log_probs(self, latent: Tensor) -> Tensor:
        """Of a still clip: the mean of its distributions."""
        return dirichlet_mean(self.alpha(self.tokens(latent)[:, None])[:, 0].float()).log()

    def drawn(self, log_probs: Tensor, latent: Tensor, features: dict[int, Tensor], use: Use) -> Tensor:
        return self.decode(log_probs.exp(), features, use.fidelity)

    def true_codes(self, target: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """The mean of its Dirichlet distributions, and the latent itself, which is no sum of codes."""
        latent = self.encode_clean(target)
        return None, self.log_probs(latent).exp(), latent

    def forward(self, x: Tensor, weight: float = 1.0) -> Tensor:
        """Whole windows (B, T, 3, S, S) in [-1, 1] to the restored frames, the same shape, with the Dirichlet mean as weights."""
        latent, features = self.encode(x.flatten(0, 1))
        weights = dirichlet_mean(self.alpha(self.tokens(latent).unflatten(0, x.shape[:2])))
        return self.decode(weights.flatten(0, 1), features, weight).unflatten(0, x.shape[:2])


def dirichlet_mean(alpha: Tensor) -> Tensor:
    """E[w] = alpha / sum_k alpha_k, along the last axis."""
    return alpha / alpha.sum(-1, keepdim=True)
