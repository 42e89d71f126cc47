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
from ..motion.flow import FlowSource
from ..motion.warp import warp
from .codebook import PatchAdversarialLoss, kaiming_normal
from .data.degradations import Streamed
from .data.faces import Jitter
from .engine import Batch
from .flow_weights import load_gmflow
from .losses import code_losses, pixel_loss
from .plan import Plan
from .recipe import SMALL_128
from .temporal import TemporalRecipe, TemporalStage

# KEEP, section 4, stage III: Kaiming Normal, Adam, batch 4, rate 1e-4, 50,000 steps; lambda_1, lambda_VGG and lambda_GAN as in `KEEP_BASE`. Gains
# learn from the code losses alone, as the lookup passes no gradient; their weights are CodeFormer's, as the paper gives none. The degradation is
# that of its section 4 and of its released data set: blur, noise, x4, noise, a stream at some bitrate. 10 frames are ours: neither gives a length.
KEEP_PAPER = TemporalRecipe(
    "KEEP 512",
    Plan(50_000, 4, 1e-4, 1e-4),
    10,
    Streamed(512),
    pixels=0.01,
    codes=0.5,
    features=1.0,
    adversary=0.01,
    kaiming=True,
    frozen=True,
)

# Ours for the embedded codebook, on a CPU: only the layers that the base lacks are trained.
KEEP_SMALL = TemporalRecipe(
    "embedded KEEP 128",
    Plan(460, 1, 8e-4, 5e-5, warmup=20, ema=0.98, clip=1.0),
    4,
    SMALL_128.blind,
    jitter=Jitter(),
    pixels=10.0,
    codes=0.1,
    features=0.2,
    perceptual=0.0,
    warping=5.0,
    anchored=True,
    frozen=True,
    tied=True,
)


class KeepStage(TemporalStage[KEEP]):
    """KEEP's stage III: the Kalman gains and cross-frame attention are trained through the recurrence; the base is frozen."""

    def initialise(self, network: KEEP, generator: torch.Generator) -> None:
        """E_H starts as the encoder of clean faces. Without Kaiming initialisation the network starts as the base frame by frame: fusion adds nothing
        and gains are small."""
        network.hq_encoder.load_state_dict((network.encoder if self.recipe.tied else self.encoder_of_clean()).state_dict())
        if self.recipe.kaiming:
            kaiming_normal(network.kalman_filter)
            kaiming_normal(network.cross_fuse)
            return
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
        if network.flownet is not None:
            network.flownet.requires_grad_(False)
        self.adversary = PatchAdversarialLoss(self.recipe.adversary, self.plan, 0, self.device)

    def losses(self, network: KEEP, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        recipe = self.recipe
        outputs, latents, flows = self._unrolled(network, batch["source"])
        target = batch["target"]
        images, truth = outputs.flatten(0, 1), target.flatten(0, 1)
        terms = self.image_terms(images, truth, batch["source"].flatten(0, 1))
        terms |= self.adversary.term(images, truth, terms["pixels"], None, step)
        later = latents[:, 1:].flatten(0, 1)
        entropy, distance = code_losses(network.logits(later), later, self.targets(network, target[:, 1:].flatten(0, 1)), network.quantize)
        terms |= {"codes": recipe.codes * entropy, "features": recipe.features * distance}
        if recipe.warping:
            moved = warp(outputs[:, :-1].flatten(0, 1), flows.flatten(0, 1))
            terms["warping"] = recipe.warping * pixel_loss(outputs[:, 1:].flatten(0, 1), moved)
        return terms

    def _unrolled(self, network: KEEP, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Clips (B, T, 3, S, S) to images (B, T, 3, S, S), z+ (B, T, code_dim, s, s) and flows (B, T - 1, 2, S, S).

        The image fed back is detached: gains learn from the codes of their own frame.
        """
        clips, frames = source.shape[:2]
        found, maps = network.encode(source.flatten(0, 1))
        observed = found.unflatten(0, (clips, frames))
        features = {side: value.unflatten(0, (clips, frames)) for side, value in maps.items()}
        gains = network.kalman_filter(observed)[0]
        flow: FlowSource = DisFlow() if network.flownet is None else network.flownet
        with torch.no_grad():
            seen = [flow.features(source[:, t].float()) for t in range(frames)]
        image: Tensor | None = None
        cross: CrossFeatures | None = None
        images, latents, flows = [], [], []
        for t in range(frames):
            latent = observed[:, t]
            if image is not None:
                with torch.no_grad():
                    flows.append(flow.flow(seen[t], seen[t - 1]))
                predicted = network.encode_clean(warp(image.detach(), flows[-1]))
                latent = network.update(latent, predicted, gains[:, t])
            codes = network.quantize.lookup(network.predict_codes(latent.detach()))
            image, cross = network.decode(codes, {side: value[:, t] for side, value in features.items()}, cross)
            images.append(image)
            latents.append(latent)
        motion = torch.stack(flows, 1) if flows else source.new_zeros(clips, 0, 2, *source.shape[-2:])
        return torch.stack(images, 1), torch.stack(latents, 1), motion

    def restored(self, network: KEEP, source: Tensor) -> Tensor:
        return self._unrolled(network, source[None])[0][0]


def keep_config(sizes: CodeConfig, flow_network: bool = False) -> KeepConfig:
    """KEEP's configuration for a codebook network: the published one for CodeFormer's sizes, else a small one. Without GMFlow, flow is OpenCV's."""
    vq = sizes.vq
    small: dict[str, Any] = {}
    if vq.side != VQConfig().side:
        cross_fused = vq.latent_side, 2 * vq.latent_side
        small = dict(fused=sizes.fused, cross_fused=cross_fused, cross_width=16, gain_layers=2, gain_width=24)
    return KeepConfig(vq, sizes.width, sizes.heads, sizes.layers, gain_heads=sizes.heads, flow_network=flow_network, **small)


def keep_on(base: CodeFormer, gmflow: Path | None = None) -> KEEP:
    """A KEEP with a codebook network's weights, its own layers newly initialised; with GMFlow if a file of its weights is given.

    Raises:
        FileNotFoundError, ValueError: as `load_gmflow`.
    """
    network = KEEP(keep_config(base.sizes, gmflow is not None))
    network.load_state_dict(base.state_dict(), strict=False)
    if gmflow is not None:
        load_gmflow(network, gmflow)
    return network
