"""KEEP: Kalman-inspired feature propagation for video faces (Feng, Li and Loy, ECCV 2024): the network, one step at a time.

Per frame t, in the paper's notation, with the sign and the order of the released code:

    z~_t = E_L(x_t)                                   what the frame shows (11)
    K_t = KGN(z~)                                     from the observed latents of a block of frames
    z-_t = E_H(warp(y_(t-1), flow of t into t-1))     what the past predicts (6, 12)
    z+_t = (1 - K_t) z~_t + K_t z-_t                  the paper's (8) and (9) print K_t (z-_t - z~_t), which would move away from z~_t
    y_t = D_Q(codes of z+_t)                          steered by E_L's features and by frame t-1's (10, 13)

Frame 0 has no past: z+_0 = z~_0. The recurrence itself is methods/keep.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from typing_extensions import Self

from ..code_prediction import CodeConfig, CodeNetwork
from ..gmflow import FlowNet
from ..tuning import Use
from ..vq import Encoder
from .attention import CrossFrameFusion
from .gain import KalmanFilter

CrossFeatures = dict[int, Tensor]
"""Side to a frame's fused feature map (B, C, side, side), which the next frame attends to."""

RENAMED = {"cfa.": "cross_fuse.", "cft.": "fuse_convs_dict."}
"""Prefixes of release v1.0.0 and of the Asian variant, to those of v0.1.0."""


@dataclass(frozen=True)
class KeepConfig(CodeConfig):
    """Sizes of KEEP; the defaults are the published network's.

    Attributes:
        cross_fused: sides at which a frame attends to the previous one.
        cross_heads: heads of that attention; not visible in a state dict, 4 in every published network.
        cross_width: channels of each.
        gain_layers: layers of the gain network.
        gain_heads: its heads; not visible in a state dict, as many as the transformer's in every published network.
        gain_width: channels of each.
        flow_network: whether GMFlow is part of it; without, optical flow comes from elsewhere.
    """

    fused: tuple[int, ...] = (16, 32, 64)
    cross_fused: tuple[int, ...] = (16, 32)
    cross_heads: int = 4
    cross_width: int = 256
    gain_layers: int = 3
    gain_heads: int = 8
    gain_width: int = 48
    flow_network: bool = True

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> KeepConfig:
        """The configuration that a state dict (names of v0.1.0) was made with. Raises KeyError if it holds no such network."""
        shared = CodeConfig.of(state)
        gain = "kalman_filter.uncertainty_estimator."
        layers = {key.split(".")[2] for key in state if key.startswith(gain)}
        sides = tuple(sorted({int(key.split(".")[1]) for key in state if key.startswith("cross_fuse.")}))
        inner = len(state[f"cross_fuse.{sides[0]}.attn.to_q.weight"]) if sides else cls.cross_heads * cls.cross_width
        return cls(
            shared.vq,
            shared.width,
            shared.heads,
            shared.layers,
            shared.fused,
            cross_fused=sides,
            cross_width=inner // cls.cross_heads,
            gain_layers=len(layers),
            gain_heads=shared.heads,
            gain_width=len(state[f"{gain}0.attn1.to_q.weight"]) // shared.heads,
            flow_network=any(key.startswith("flownet.") for key in state),
        )


class KEEP(CodeNetwork):
    """The published network, its own GMFlow included.

    Attributes:
        flownet: GMFlow; None in a network that was made without.
        feeds_back: a frame's image decides on the next frame's codes, so that half precision would change them.
    """

    feeds_back = True

    def __init__(self, config: KeepConfig | None = None) -> None:
        sizes = config or KeepConfig()
        super().__init__(sizes)
        vq = sizes.vq
        self.hq_encoder = Encoder(vq)
        self.kalman_filter = KalmanFilter(vq.code_dim, sizes.gain_heads, sizes.gain_width, sizes.gain_layers)
        self.cross_fuse = nn.ModuleDict(
            {str(side): CrossFrameFusion(vq.width(side), sizes.cross_heads, sizes.cross_width) for side in sizes.cross_fused}
        )
        self.flownet = FlowNet() if sizes.flow_network else None

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Self:
        """As CodeNetwork.of, from a state dict of any release."""
        return super().of(rename(state))

    @classmethod
    def sized_for(cls, state: Mapping[str, Tensor]) -> Self:
        return cls(KeepConfig.of(state))

    def encode_clean(self, image: Tensor) -> Tensor:
        """E_H of a restored or a clean image (B, 3, S, S), around [-1, 1]: its latent (B, code_dim, s, s)."""
        return self.hq_encoder(image)[0]

    @staticmethod
    def update(latent: Tensor, prediction: Tensor, gain: Tensor) -> Tensor:
        """z+ = (1 - K) z~ + K z-: `gain` is the weight of the prediction."""
        return (1 - gain) * latent + gain * prediction

    def predict_codes(self, latent: Tensor) -> Tensor:
        """z+ (B, code_dim, s, s) to the index of the likeliest code for every place, (B, tokens)."""
        return self.logits(latent).argmax(-1)

    def decode(self, codes: Tensor, features: Mapping[int, Tensor], previous: CrossFeatures | None = None) -> tuple[Tensor, CrossFeatures]:
        """A code map to the image.

        Args:
            codes: (B, code_dim, s, s), from quantize.lookup.
            features: the encoder's, of the same frame.
            previous: what this returned for the frame before, None for the first.

        Returns:
            (B, 3, S, S) float32 around [-1, 1], and what the next frame's call needs.
        """
        steer = self.fuse(features, 1.0)
        cross: CrossFeatures = {}

        def refine(side: int, x: Tensor) -> Tensor:
            x = steer(side, x)
            if str(side) in self.cross_fuse:
                if previous is not None:
                    x = self.cross_fuse[str(side)](x, previous[side])
                cross[side] = x
            return x

        return self.generator(codes, refine), cross

    def drawn(self, log_probs: Tensor, latent: Tensor, features: dict[int, Tensor], use: Use) -> Tensor:
        return self.decode(self.quantize.lookup(log_probs.argmax(-1)), features)[0]

    def decoder_parts(self) -> list[nn.Module]:
        """As the base class says; in half precision they change no code of frame 0, and later ones by way of the image that is fed back."""
        return [*super().decoder_parts(), self.cross_fuse]


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of any release under the names of v0.1.0."""

    def renamed(key: str) -> str:
        for old, new in RENAMED.items():
            if key.startswith(old):
                return new + key.removeprefix(old)
        return key

    return {renamed(key): value for key, value in state.items()}
