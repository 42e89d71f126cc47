"""Training of DicFace (codes as Dirichlet variables) on a trained codebook network, for restoration, colourisation and inpainting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ..colour import luma
from ..methods.tasks import Mode
from ..models.code_prediction import CodeNetwork
from ..models.dicface.network import DicFace, dirichlet_mean
from ..models.flair.convolution import zero_initialised
from .data.degradations import Coded
from .data.faces import Jitter
from .engine import Batch, generator_for
from .evidence import EVIDENCE_SMALL
from .losses import dirichlet_divergence
from .plan import Plan
from .recipe import SMALL_128
from .temporal import TemporalRecipe, TemporalStage

# DicFace's options file: Adam, rate 5e-5 to 2e-5 by cosine, 100 000 steps, EMA 0.997, two clips of 5 frames on each of (our count) 8 GPUs;
# lambda_1 = -1 and lambda_2 = 1 of eq. 9; prior 1 as the paper's best (the file's own is 0.1). Everything but the positions is trained.
DICFACE_PAPER = TemporalRecipe("DicFace 512", Plan(100_000, 16, 5e-5, 2e-5, ema=0.997), 5, Coded(), divergence=1.0)

# Ours for the embedded codebook, on a CPU: only the layers that the base lacks and the code head (idx_pred_layer, whose outputs change their
# meaning) are trained. The KL weighs 1e-5: at full weight, the codes of a network this small collapse to the prior.
DICFACE_SMALL = TemporalRecipe(
    "embedded DicFace 128",
    Plan(360, 1, 5e-4, 5e-5, warmup=20, ema=0.98, clip=1.0),
    5,
    SMALL_128.blind,
    jitter=Jitter(),
    pixels=10.0,
    codes=0.1,
    perceptual=0.0,
    divergence=1e-5,
    sampled=False,
    anchored=True,
    frozen=True,
    evidence=EVIDENCE_SMALL,
)


# The other two tasks, starting from the restorer: the codes stay, and the fusion of the input's features into the generator learns the task. On
# stills only, as the temporal layers are already trained.
TASKS_SMALL = replace(
    DICFACE_SMALL,
    plan=Plan(120, 1, 2e-3, 2e-4, warmup=5, ema=0.9, clip=1.0),
    codes=0.0,
    divergence=0.0,
    anchored=False,
    unfrozen=("fuse_convs_dict",),
    stills=2,
    filled=True,
)


def for_task(recipe: TemporalRecipe, task: str) -> TemporalRecipe:
    """DicFace's recipe for a task of `methods.tasks`. For colourisation and inpainting its options files drop the KL and train all layers.

    Raises:
        ValueError: for another task.
    """
    if task not in get_args(Mode):
        raise ValueError(f"DicFace learns to {', '.join(get_args(Mode))}, got --task {task}")
    mode: Mode = task  # type: ignore[assignment]
    if mode == "restore":
        return recipe
    name = f"{recipe.name}, {task}"
    if recipe is DICFACE_SMALL:
        return replace(TASKS_SMALL, name=name, task=mode)
    return replace(recipe, name=name, task=mode, divergence=0.0, anchored=False, frozen=False)


VALIDATION_FACES = 6
"""Held-out faces of a validation."""


class DicFaceStage(TemporalStage[DicFace]):
    """DicFace: learns the posterior of the codes over a window (eq. 7 to 9) by L1 of the decoded frames and the KL to the prior."""

    def initialise(self, network: DicFace, generator: torch.Generator) -> None:
        """Starts as the base network frame by frame: temporal layers add nothing, the fused latent is the encoder's, the codes' logits are scaled."""
        if not self.recipe.frozen or self.recipe.task != "restore":
            return
        layer: Any
        for layer in network.dir_dist_layers:
            zero_initialised(layer.self_attn.out_proj)
            zero_initialised(layer.linear2)
        fuse = network.multiscale
        width = fuse.s16_conv.weight.shape[0]
        zero_initialised(fuse.s16_conv)
        zero_initialised(fuse.out)
        nn.init.dirac_(fuse.s16_conv.weight)
        head = network.idx_pred_layer[1]
        assert isinstance(head, nn.Linear)
        with torch.no_grad():
            fuse.out.weight[range(width), range(2 * width, 3 * width), 1, 1] = 1.0
            head.weight.mul_(LOGIT_SCALE)
            network.position_emb_temporal.normal_(std=0.02, generator=generator)

    def start(self, network: DicFace, done: Mapping[str, Path]) -> None:
        super().start(network, done)
        if self.recipe.task == "restore" or not self.recipe.frozen:
            network.idx_pred_layer.requires_grad_(True)  # its outputs change their meaning

    def losses(self, network: DicFace, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        recipe = self.recipe
        source, target = batch["source"], batch["target"]
        clips, frames = source.shape[:2]
        latent, features = network.encode(source.flatten(0, 1))
        middle = slice(frames // 2, frames // 2 + 1)
        kept = middle if recipe.frozen else slice(None)  # a small network learns from the frame it outputs
        alpha = network.alpha(network.tokens(latent).unflatten(0, (clips, frames)), kept).float()
        chosen = {side: value.unflatten(0, (clips, frames))[:, kept].flatten(0, 1) for side, value in features.items()}
        weights = gamma_sample(alpha, generator) if recipe.sampled else alpha
        output = network.decode(dirichlet_mean(weights).flatten(0, 1), chosen, 1.0)
        wanted = target[:, kept].flatten(0, 1)
        if "hole" in batch:  # outside the hole the input is pasted back exactly
            inside = batch["hole"][:, kept].flatten(0, 1)
            terms = {"pixels": recipe.pixels * (inside * (output.float() - wanted).abs()).sum() / (3 * inside.sum()).clamp_min(1)}
        else:
            terms = self.image_terms(output, wanted, source[:, kept].flatten(0, 1))
        terms["divergence"] = recipe.divergence * dirichlet_divergence(alpha, recipe.prior)
        if recipe.codes:
            index = self.targets(network, wanted)
            likely = dirichlet_mean(alpha).flatten(0, 1).gather(-1, index[..., None])
            terms["codes"] = -recipe.codes * likely.clamp_min(1e-8).log().mean()
        return terms

    def validate(self, network: DicFace) -> tuple[dict[str, float], Tensor]:
        """Restoration: as KEEP's. Colourisation: error of the colour differences relative to a grey picture's. Inpainting: PSNR gain inside the holes
        over the input."""
        if self.recipe.task == "restore" or not self.recipe.stills:
            return super().validate(network)
        truth = self.held_out.first(VALIDATION_FACES)
        shown = [self._observe(face[None], generator_for("shown", i)) for i, face in enumerate(truth)]
        source = torch.cat([pair["source"] for pair in shown])
        drawn = ((network(source[:, None].to(self.device))[:, 0].float().cpu() + 1) / 2).clamp(0, 1)
        source = (source + 1) / 2
        if self.recipe.task == "colourise":
            wrong, grey = ((picture - luma(picture) - (truth - luma(truth))).square().mean((1, 2, 3)).sqrt().mean() for picture in (drawn, source))
            return {"error of colour differences, of grey's": (wrong / grey).item()}, torch.stack([source, drawn, truth], 1)[:6]
        hole = torch.cat([pair["hole"] for pair in shown]) if "hole" in shown[0] else (source != truth).any(1, keepdim=True).float()
        before, after = ((hole * (picture - truth).square()).sum((1, 2, 3)) / (3 * hole.sum((1, 2, 3))) for picture in (source, drawn))
        gain = 10 * (before / after).log10()
        return {"holes: dB over what is shown": gain.mean().item()}, torch.stack([source, torch.lerp(truth, drawn, hole), truth], 1)[:6]

    def restored(self, network: DicFace, source: Tensor) -> Tensor:
        half = network.frame_length // 2
        latent, features = network.encode(source)
        tokens = network.tokens(latent)
        images = []
        for t in range(len(source)):
            window = [min(max(t + offset, 0), len(source) - 1) for offset in range(-half, half + 1)]
            alpha = network.alpha(tokens[window][None], slice(half, half + 1))[:, 0]
            images.append(network.decode(dirichlet_mean(alpha.float()), {side: value[t : t + 1] for side, value in features.items()}))
        return torch.cat(images)


def gamma_sample(alpha: Tensor, generator: torch.Generator) -> Tensor:
    """Samples of Gamma(alpha, 1), elementwise; divided by their sum they are a sample of Dir(alpha), differentiable in alpha (eq. 10).

    Determined by `generator` alone: on another device, it seeds a generator of that device.
    """
    if generator.device != alpha.device:
        generator = torch.Generator(alpha.device).manual_seed(int(torch.randint(1 << 62, (), generator=generator)))
    return torch._standard_gamma(alpha, generator=generator)


LOGIT_SCALE = 12.0
"""Initial factor on the base network's logits, so that the mean code is near the most likely one."""


def dicface_on(base: CodeNetwork, frames: int) -> DicFace:
    """A DicFace with the weights of a codebook network (its own layers newly initialised), or of another DicFace."""
    network = DicFace(base.sizes, frames)
    network.load_state_dict(base.state_dict(), strict=False)
    return network
