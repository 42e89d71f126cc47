"""KEEP's stage III (Feng et al., ECCV 2024): the Kalman gain and the cross-frame attention, on top of a trained codebook network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..models.code_prediction import CodeConfig
from ..models.codeformer.network import CodeFormer
from ..models.keep.network import KEEP, CrossFeatures, KeepConfig
from ..models.vq import VQConfig
from ..motion.dis import DisFlow
from ..motion.warp import warp
from .engine import Batch, Plan
from .faces import Jitter
from .losses import code_losses, pixel_loss
from .recipe import SMALL_128
from .temporal import VFHQ, TemporalRecipe, TemporalStage

# KEEP, section 4, stage III: Adam, batch 4, rate 1e-4, 50 000 steps; lambda_1 = 1e-2 weighs the code losses (our reading: the paper does not
# say which term it belongs to). 10 frames are ours; the paper gives no length. Its adversary (weight 1e-2) is not here.
KEEP_PAPER = TemporalRecipe("KEEP 512", Plan(50_000, 4, 1e-4, 1e-4), 10, VFHQ, codes=0.01, features=0.01, frozen=True)

# Ours for the embedded codebook, on a CPU: only what the base lacks is trained.
KEEP_SMALL = TemporalRecipe(
    "embedded KEEP 128",
    Plan(460, 1, 8e-4, 5e-5, warmup=20, ema=0.98, clip=1.0),
    4,
    SMALL_128.blind,
    rate_factor=None,
    jitter=Jitter(),
    pixels=10.0,
    codes=0.1,
    features=0.2,
    perceptual=0.0,
    steady=5.0,
    anchored=True,
    frozen=True,
    tied=True,
)


class KeepStage(TemporalStage[KEEP]):
    """KEEP's stage III: gains and cross-frame attention learn on the recurrence; the base stays as it is."""

    def first(self, network: KEEP, generator: torch.Generator) -> None:
        """Starts as the base network, frame by frame: fusion adds nothing, gains are small, and E_H is the encoder of clean faces."""
        network.hq_encoder.load_state_dict((network.encoder if self.recipe.tied else self.clean).state_dict())
        fusion: Any
        for fusion in network.cross_fuse.values():
            for norm in (fusion.norm1, fusion.norm2):
                nn.init.zeros_(norm.weight)
        last = network.kalman_filter.kalman_gain_calculator[-2]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.constant_(last.bias, -1.0)

    def start(self, network: KEEP, done: Mapping[str, Path]) -> None:
        super().start(network, done)
        network.hq_encoder.requires_grad_(False)

    def losses(self, network: KEEP, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        recipe = self.recipe
        outputs, latents, flows = self._unrolled(network, batch["source"])
        target = batch["target"]
        terms = self.image_terms(outputs.flatten(0, 1), target.flatten(0, 1), batch["source"].flatten(0, 1))
        later = latents[:, 1:].flatten(0, 1)
        entropy, distance = code_losses(network.logits(later), later, self.targets(network, target[:, 1:].flatten(0, 1)), network.quantize)
        terms |= {"codes": recipe.codes * entropy, "features": recipe.features * distance}
        if recipe.steady:
            moved = warp(outputs[:, :-1].flatten(0, 1), flows.flatten(0, 1))
            terms["steady"] = recipe.steady * pixel_loss(outputs[:, 1:].flatten(0, 1), moved)
        return terms

    def _unrolled(self, network: KEEP, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Clips (B, T, 3, S, S) to images (B, T, 3, S, S), z+ (B, T, code_dim, s, s) and flows (B, T - 1, 2, S, S).

        The image that is fed back carries no gradient: gains learn from the codes of their own frame.
        """
        clips, frames = source.shape[:2]
        found, maps = network.encode(source.flatten(0, 1))
        observed = found.unflatten(0, (clips, frames))
        features = {side: value.unflatten(0, (clips, frames)) for side, value in maps.items()}
        gains = network.gain(observed)[0]
        flow = DisFlow()
        seen = [flow.features(source[:, t].float()) for t in range(frames)]
        image: Tensor | None = None
        cross: CrossFeatures | None = None
        images, latents, flows = [], [], []
        for t in range(frames):
            latent = observed[:, t]
            if image is not None:
                flows.append(flow.flow(seen[t], seen[t - 1]))
                predicted = network.encode_clean(warp(image.detach(), flows[-1]))
                latent = network.update(latent, predicted, gains[:, t])
            codes = network.quantize.lookup(network.name_codes(latent.detach()))
            image, cross = network.decode(codes, {side: value[:, t] for side, value in features.items()}, cross)
            images.append(image)
            latents.append(latent)
        motion = torch.stack(flows, 1) if flows else source.new_zeros(clips, 0, 2, *source.shape[-2:])
        return torch.stack(images, 1), torch.stack(latents, 1), motion

    def restored(self, network: KEEP, source: Tensor) -> Tensor:
        return self._unrolled(network, source[None])[0][0]


def keep_config(sizes: CodeConfig) -> KeepConfig:
    """KEEP's sizes on a codebook network's: the published ones on CodeFormer's, small ones else. Flow comes from OpenCV, as no GMFlow is trained."""
    vq = sizes.vq
    if vq.side == VQConfig().side:
        return KeepConfig(vq, sizes.width, sizes.heads, sizes.layers, gain_heads=sizes.heads, flow_network=False)
    return KeepConfig(
        vq,
        sizes.width,
        sizes.heads,
        sizes.layers,
        sizes.fused,
        cross_fused=(vq.latent_side, 2 * vq.latent_side),
        cross_width=16,
        gain_layers=2,
        gain_heads=sizes.heads,
        gain_width=24,
        flow_network=False,
    )


def keep_on(base: CodeFormer) -> KEEP:
    """A KEEP with a codebook network's weights, without GMFlow, its own parts at their start."""
    network = KEEP(keep_config(base.sizes))
    network.load_state_dict(base.state_dict(), strict=False)
    return network
