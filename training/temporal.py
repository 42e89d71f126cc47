"""The temporal parts of KEEP and DicFace, on top of a trained codebook network."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ..colour import luma
from ..methods.detail_fusion import anchored, merged
from ..methods.tasks import Mode
from ..metrics.fidelity import psnr
from ..metrics.temporal import mean_warping_error
from ..models.code_prediction import CodeNetwork
from ..models.codeformer.network import CodeFormer
from ..models.dicface.network import DicFace, dirichlet_mean
from ..models.vq import Encoder
from ..physics.linear.inpaint import BrushStrokes
from .degradations import JUDGED, Blind, Streamed, judged
from .engine import Batch, Net, Plan, Stage, generator_for
from .faces import MIRROR_ONLY, Faces, Jitter, shrunk
from .losses import EncoderFeatures, dirichlet_divergence, lpips_or_none, pixel_loss
from .recipe import SMALL_128
from .synthetic_motion import Clips, Motion, degraded_clip, set_moving

VALIDATED_CLIPS, VALIDATED_FRAMES = 4, 8


@dataclass(frozen=True)
class TemporalRecipe:
    """All that decides what the temporal parts become, besides base, faces and seed.

    Attributes:
        name: of the recipe, kept in the file.
        plan: the schedule; a batch counts clips.
        frames: of a clip.
        blind: degradations.
        rate_factor: range of the H.264 recompression of half of the clips; None for none.
        motion: of stills that are set in motion.
        jitter: of those stills before.
        pixels, codes, features, perceptual: weights of L1, token cross-entropy, feature loss, and LPIPS (or our encoder's features).
        adversary: of a patch adversary, without an adaptive factor; 0 for none.
        kaiming: whether a network's own layers are drawn as He et al. do and none is made to begin as the base network.
        steady: weight of |y_t - warp(y_(t-1))|: ours; 0 in the papers.
        divergence: weight of DicFace's KL; -lambda_1 of eq. 9.
        prior: alpha of the Dirichlet prior.
        sampled: whether weights are drawn from the posterior (eq. 10) instead of its mean.
        anchored: whether L1 looks at the output with the input's coarse means (methods/detail_fusion.py), as a small network's is used.
        frozen: whether only what the base network lacks is trained.
        task: what a clip is restored from: itself damaged ("restore"), its luminance ("colourise"), or itself under white strokes ("inpaint").
        tied: whether KEEP's encoder of restored frames is the base's own encoder, which saves a file a quarter of its size, instead of the
            autoencoder's.
    """

    name: str
    plan: Plan
    frames: int
    blind: Blind | Streamed
    rate_factor: tuple[int, int] | None = (18, 25)
    motion: Motion = field(default_factory=Motion)
    jitter: Jitter = MIRROR_ONLY
    pixels: float = 1.0
    codes: float = 0.0
    features: float = 0.0
    perceptual: float = 1.0
    adversary: float = 0.0
    kaiming: bool = False
    steady: float = 0.0
    divergence: float = 0.0
    prior: float = 1.0
    sampled: bool = True
    anchored: bool = False
    frozen: bool = False
    tied: bool = False
    task: Mode = "restore"


# The blur and noise of DicFace's options file (after VFHQ's), for 512 x 512; its x4 downsampling is the middle of our range.
VFHQ = Blind(512, (0.1, 10.0), 0.7, (1.0, 8.0), (0.0, 10.0), (60, 100))

# DicFace's options file: Adam, rate 5e-5 to 2e-5 by cosine, 100 000 steps, EMA 0.997, two clips of 5 frames on each of (our count) 8 GPUs;
# lambda_1 = -1 and lambda_2 = 1 of eq. 9; prior 1 as the paper's best (the file's own is 0.1). All but the positions is trained.
DICFACE_PAPER = TemporalRecipe("DicFace 512", Plan(100_000, 16, 5e-5, 2e-5, ema=0.997), 5, VFHQ, divergence=1.0)

# Ours for the embedded codebook, on a CPU: only what the base lacks is trained, and DicFace's weights of codes (idx_pred_layer), which change
# their meaning. The KL weighs 1e-5: with its full weight, codes of a network this small fall to the prior.
DICFACE_SMALL = TemporalRecipe(
    "embedded DicFace 128",
    Plan(360, 1, 5e-4, 5e-5, warmup=20, ema=0.98, clip=1.0),
    5,
    SMALL_128.blind,
    rate_factor=None,
    jitter=Jitter(),
    pixels=10.0,
    codes=0.1,
    perceptual=0.0,
    divergence=1e-5,
    sampled=False,
    anchored=True,
    frozen=True,
)


def for_task(recipe: TemporalRecipe, task: str) -> TemporalRecipe:
    """DicFace's recipe for a task of `methods.tasks`. For the two that invent colours or parts its options files leave the KL out and train all.

    Raises:
        ValueError: for another task.
    """
    if task not in get_args(Mode):
        raise ValueError(f"DicFace learns to {', '.join(get_args(Mode))}, got --task {task}")
    mode: Mode = task  # type: ignore[assignment]
    return recipe if mode == "restore" else replace(recipe, name=f"{recipe.name}, {task}", task=mode, divergence=0.0, anchored=False, frozen=False)


@dataclass
class TemporalStage(Stage[Net]):
    recipe: TemporalRecipe
    base: CodeFormer
    faces: Faces
    held_out: Faces
    device: torch.device
    clean: Encoder
    clips: Clips | None = None

    name = "temporal"

    @property
    def plan(self) -> Plan:  # type: ignore[override]
        return self.recipe.plan

    def start(self, network: Net, done: Mapping[str, Path]) -> None:
        self.clean = self.clean.to(self.device).eval().requires_grad_(False)
        own = set(self.base.state_dict())
        for key, parameter in network.named_parameters():
            parameter.requires_grad_(not (self.recipe.frozen and key in own) and key != "position_emb")
        self.perceptual: nn.Module | None = None
        if self.recipe.perceptual:
            self.perceptual = lpips_or_none(self.device) or EncoderFeatures(copy.deepcopy(self.clean), self.clean_sides())

    def clean_sides(self) -> tuple[int, ...]:
        """The sides at which our own perceptual distance looks."""
        return self.base.config.sides[1:3]

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        pairs = [self._pair(generator) for _ in range(self.plan.batch)]
        return {key: torch.stack([pair[key] for pair in pairs]) for key in ("source", "target")}

    def _pair(self, generator: torch.Generator) -> Batch:
        recipe = self.recipe
        if self.clips is not None and torch.rand((), generator=generator) < 0.5:
            target = self.clips.piece(generator)
        else:
            still = self.faces.source(int(torch.randint(len(self.faces), (), generator=generator)))
            if recipe.jitter.mirror and torch.rand((), generator=generator) < 0.5:
                still = still.flip(-1)
            moving = set_moving(still, recipe.frames, recipe.motion, generator)
            target = torch.stack([shrunk(frame, self.faces.side) for frame in moving])
        source = self._damaged(target, generator)
        return {"source": source * 2 - 1, "target": target * 2 - 1}

    def _damaged(self, target: Tensor, generator: torch.Generator) -> Tensor:
        """What is shown of a clip (T, 3, S, S) in [0, 1]; strokes stay where they are through a clip and hide 5 to 40 % of it."""
        if self.recipe.task == "colourise":
            return luma(target).expand_as(target)
        if self.recipe.task == "inpaint":
            share, seed = 0.05 + 0.35 * float(torch.rand((), generator=generator)), int(torch.randint(1 << 31, (), generator=generator))
            return BrushStrokes(share, 0.08, seed).observe(target)
        return degraded_clip(target, self.recipe.blind, generator, self.recipe.rate_factor)

    def targets(self, network: CodeNetwork, target: Tensor) -> Tensor:
        """Codes (N, tokens) of clean frames (N, 3, S, S)."""
        with torch.no_grad():
            return network.quantize.nearest(self.clean(target)[0])

    def image_terms(self, output: Tensor, target: Tensor, source: Tensor) -> dict[str, Tensor]:
        """L1 and the perceptual term of frames (N, 3, S, S)."""
        if self.recipe.anchored:
            output = anchored(output, source)
        terms = {"pixels": self.recipe.pixels * pixel_loss(output, target)}
        if self.perceptual is not None:
            terms["perceptual"] = self.recipe.perceptual * self.perceptual(output, target).mean()
        return terms

    def restored(self, network: Net, source: Tensor) -> Tensor:
        """A clip (T, 3, S, S) in [-1, 1] to its restored frames, as the method restores it."""
        raise NotImplementedError

    def validate(self, network: Net) -> tuple[dict[str, float], Tensor]:
        """PSNR above the base network's, which goes frame by frame, and warping error as a share of its, under the first judged degradation."""
        name = next(iter(JUDGED))
        gains, shares, rows = [], [], []
        for number in range(min(VALIDATED_CLIPS, len(self.held_out))):
            still = self.held_out.source(number)
            moving = set_moving(still, VALIDATED_FRAMES, self.recipe.motion, generator_for("validation", number))
            truth = torch.stack([shrunk(frame, self.held_out.side) for frame in moving])
            source = judged(name, truth, seed=number) if self.recipe.task == "restore" else self._damaged(truth, generator_for("damage", number))
            inputs = (source * 2 - 1).to(self.device)
            single = self._finished(self.base.to(self.device)(inputs, 1.0, match=False), source)
            joint = self._finished(self.restored(network, inputs), source)
            gains.append((psnr(joint, truth).mean() - psnr(single, truth).mean()).item())
            shares.append(mean_warping_error(joint, truth).rgb_sum / mean_warping_error(single, truth).rgb_sum)
            rows.append(torch.stack([source[-1], single[-1], joint[-1], truth[-1]]))
        figures = {"dB over the base, frame by frame": sum(gains) / len(gains), "warping error, of the base's": sum(shares) / len(shares)}
        return figures, torch.stack(rows)

    def _finished(self, images: Tensor, source: Tensor) -> Tensor:
        """A network's images in [0, 1]; where it restores, filling in what the input lacks, as restorers give them."""
        shown = (images.float().cpu() + 1) / 2
        return (merged(shown, source) if self.recipe.task == "restore" else shown).clamp(0, 1)


class DicFaceStage(TemporalStage[DicFace]):
    """DicFace: the posterior of the codes learns from the window (eq. 7 to 9), L1 of what is drawn from it and the KL to the prior."""

    def first(self, network: DicFace, generator: torch.Generator) -> None:
        """Starts as the base network, frame by frame: temporal layers add nothing and the fused latent is the encoder's; codes are peaked."""
        if not self.recipe.frozen:
            return
        layer: Any
        for layer in network.dir_dist_layers:
            _silence(layer.self_attn.out_proj)
            _silence(layer.linear2)
        fuse = network.multiscale
        width = fuse.s16_conv.weight.shape[0]
        _silence(fuse.s16_conv)
        _silence(fuse.out)
        nn.init.dirac_(fuse.s16_conv.weight)
        head = network.idx_pred_layer[1]
        assert isinstance(head, nn.Linear)
        with torch.no_grad():
            fuse.out.weight[range(width), range(2 * width, 3 * width), 1, 1] = 1.0
            head.weight.mul_(SHARPENED)
            network.position_emb_temporal.normal_(std=0.02, generator=generator)

    def start(self, network: DicFace, done: Mapping[str, Path]) -> None:
        super().start(network, done)
        network.idx_pred_layer.requires_grad_(True)

    def losses(self, network: DicFace, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        recipe = self.recipe
        source, target = batch["source"], batch["target"]
        clips, frames = source.shape[:2]
        latent, features = network.encode(source.flatten(0, 1))
        kept = slice(frames // 2, frames // 2 + 1) if recipe.frozen else slice(None)  # a small network learns from the frame it will give
        alpha = network.alpha(network.tokens(latent).unflatten(0, (clips, frames)), kept).float()
        chosen = {side: value.unflatten(0, (clips, frames))[:, kept].flatten(0, 1) for side, value in features.items()}
        weights = gamma_sample(alpha, generator) if recipe.sampled else alpha
        output = network.decode(dirichlet_mean(weights).flatten(0, 1), chosen, 1.0)
        wanted = target[:, kept].flatten(0, 1)
        terms = self.image_terms(output, wanted, source[:, kept].flatten(0, 1))
        terms["divergence"] = recipe.divergence * dirichlet_divergence(alpha, recipe.prior)
        if recipe.codes:
            index = self.targets(network, wanted)
            likely = dirichlet_mean(alpha).flatten(0, 1).gather(-1, index[..., None])
            terms["codes"] = -recipe.codes * likely.clamp_min(1e-8).log().mean()
        return terms

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
    """Gamma(alpha, 1), one draw for each value; divided by their sum they are a draw of Dir(alpha), with alpha's gradient through the draw (eq. 10).

    Decided by `generator` alone: on another device than its own, the draws are those of a generator there that it seeds.
    """
    if generator.device != alpha.device:
        generator = torch.Generator(alpha.device).manual_seed(int(torch.randint(1 << 62, (), generator=generator)))
    return torch._standard_gamma(alpha, generator=generator)


SHARPENED = 12.0
"""How much steeper DicFace's parameters start out than the base network's logits, so that the mean code is near the likeliest one."""


def _silence(layer: nn.Linear | nn.Conv2d) -> None:
    """Makes a layer give 0."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def dicface_on(base: CodeFormer, frames: int) -> DicFace:
    """A DicFace with a codebook network's weights, its own parts at their start."""
    network = DicFace(base.sizes, frames)
    network.load_state_dict(base.state_dict(), strict=False)
    return network
