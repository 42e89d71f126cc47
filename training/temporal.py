"""Common parts of training KEEP's and DicFace's temporal layers on a trained codebook network."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ..colour import luma
from ..methods.detail_fusion import anchored, fused
from ..methods.tasks import Mode, pull_push_fill
from ..metrics.fidelity import psnr
from ..metrics.lpips import lpips_or_none
from ..metrics.temporal import mean_warping_error
from ..models.code_prediction import CodeNetwork
from ..models.vq import Encoder
from ..physics.linear.inpaint import BrushStrokes
from .data.degradations import BENCHMARK, Blind, Coded, Streamed, benchmark_input
from .data.faces import MIRROR_ONLY, Faces, Jitter
from .data.synthetic_motion import Clips, Motion, animate, sample_clip
from .engine import Batch, Net, Stage, generator_for
from .evidence import EvidenceRecipe
from .losses import EncoderFeatures, pixel_loss
from .plan import Plan

VALIDATION_CLIPS, VALIDATION_FRAMES = 4, 8


@dataclass(frozen=True)
class TemporalRecipe:
    """Everything that determines the trained temporal layers except the base network, the faces and the seed.

    Attributes:
        name: of the recipe, stored in the weights file.
        plan: the schedule; a batch counts clips.
        frames: of a clip.
        blind: degradations.
        motion: synthetic motion of stills.
        jitter: of those stills, before they move.
        pixels, codes, features, perceptual: weights of L1, code cross-entropy, feature loss, and LPIPS (or our encoder's features).
        adversary: weight of a patch discriminator, without an adaptive factor; 0 for none.
        kaiming: whether the new layers are initialised by Kaiming normal, instead of so that the network starts out as its base.
        warping: weight of the temporal loss |y_t - warp(y_(t-1))|: ours; 0 in the papers.
        divergence: weight of DicFace's KL; -lambda_1 of eq. 9.
        prior: alpha of the Dirichlet prior.
        sampled: whether code weights are sampled from the posterior (eq. 10) instead of its mean.
        anchored: whether L1 is taken on the output with the input's coarse means (methods/detail_fusion.py), as small networks are used.
        frozen: whether the base network's parameters stay fixed.
        task: what the input is: the degraded clip ("restore"), its luminance ("colourise"), or the clip under white strokes ("inpaint").
        unfrozen: prefixes of base parameters that are trained nevertheless, DicFace only.
        stills: number of single frames per step, instead of a batch of clips, DicFace only; 0 for clips.
        filled: whether holes are filled from their surroundings, as in `methods.tasks.Task`, instead of left white.
        evidence: recipe of a second stage, see `evidence.EvidenceStage`, DicFace only; None for no such stage.
        tied: whether KEEP's encoder of restored frames is the base's own encoder, which saves a file a quarter of its size, instead of the
            autoencoder's.
    """

    name: str
    plan: Plan
    frames: int
    blind: Blind | Streamed | Coded
    motion: Motion = field(default_factory=Motion)
    jitter: Jitter = MIRROR_ONLY
    pixels: float = 1.0
    codes: float = 0.0
    features: float = 0.0
    perceptual: float = 1.0
    adversary: float = 0.0
    kaiming: bool = False
    warping: float = 0.0
    divergence: float = 0.0
    prior: float = 1.0
    sampled: bool = True
    anchored: bool = False
    frozen: bool = False
    unfrozen: tuple[str, ...] = ()
    stills: int = 0
    filled: bool = False
    tied: bool = False
    task: Mode = "restore"
    evidence: EvidenceRecipe | None = None


@dataclass
class TemporalStage(Stage[Net]):
    recipe: TemporalRecipe
    base: CodeNetwork
    faces: Faces
    held_out: Faces
    device: torch.device
    clean: Encoder | None
    clips: Clips | None = None

    name = "temporal"

    def start(self, network: Net, done: Mapping[str, Path]) -> None:
        self.clean = None if self.clean is None else self.clean.to(self.device).eval().requires_grad_(False)
        own = {key for key in self.base.state_dict() if not key.startswith(self.recipe.unfrozen)} if self.recipe.frozen else set()
        for key, parameter in network.named_parameters():
            parameter.requires_grad_(key not in own and key != "position_emb")
        self.perceptual: nn.Module | None = None
        if self.recipe.perceptual:
            sides = self.base.config.sides[1:3]
            self.perceptual = lpips_or_none(self.device) or EncoderFeatures(copy.deepcopy(self.encoder_of_clean()), sides)

    def encoder_of_clean(self) -> Encoder:
        """The autoencoder's. Raises ValueError if the recipe needs one and none was given."""
        if self.clean is None:
            raise ValueError(f"the recipe {self.recipe.name} compares with the codes of clean faces: give --autoencoder")
        return self.clean

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        pairs = [self._pair(generator) for _ in range(self.recipe.stills or self.plan.batch)]
        return {key: torch.stack([pair[key] for pair in pairs]) for key in pairs[0]}

    def _pair(self, generator: torch.Generator) -> Batch:
        """One training pair of a clip, or of a single frame where the recipe takes stills."""
        recipe = self.recipe
        if recipe.stills:
            target = self.faces.sample(1, recipe.jitter, generator)
        else:
            target = sample_clip(self.faces, self.clips, recipe.frames, recipe.motion, generator, mirror=recipe.jitter.mirror)
        return self._observe(target, generator)

    def _observe(self, target: Tensor, generator: torch.Generator) -> Batch:
        """The target clip (T, 3, S, S) in [0, 1] and its degraded input, both in [-1, 1]; if holes are filled also `hole` (T, 1, S, S), 1 inside.

        Strokes are the same in all frames of a clip and hide 5 to 40 % of it.
        """
        pair = {"target": target * 2 - 1}
        if self.recipe.task == "colourise":
            source = luma(target).expand_as(target)
        elif self.recipe.task == "inpaint":
            share, seed = 0.05 + 0.35 * float(torch.rand((), generator=generator)), int(torch.randint(1 << 31, (), generator=generator))
            strokes = BrushStrokes(share, 0.08, seed)
            source = strokes.observe(target)
            if self.recipe.filled:
                pair["hole"] = (1 - strokes.mask_for(target)).expand(len(target), 1, -1, -1)
                source = pull_push_fill(target, pair["hole"])
        else:
            source = self.recipe.blind.draw(generator)(target, generator)
        return {**pair, "source": source * 2 - 1}

    def targets(self, network: CodeNetwork, target: Tensor) -> Tensor:
        """Codes (N, tokens) of clean frames (N, 3, S, S)."""
        with torch.no_grad():
            return network.quantize.nearest(self.encoder_of_clean()(target)[0])

    def image_terms(self, output: Tensor, target: Tensor, source: Tensor) -> dict[str, Tensor]:
        """L1 and the perceptual term of frames (N, 3, S, S)."""
        if self.recipe.anchored:
            output = anchored(output, source)
        terms = {"pixels": self.recipe.pixels * pixel_loss(output, target)}
        if self.perceptual is not None:
            terms["perceptual"] = self.recipe.perceptual * self.perceptual(output, target).mean()
        return terms

    def restored(self, network: Net, source: Tensor) -> Tensor:
        """Restores a clip (T, 3, S, S) in [-1, 1] as the method does."""
        raise NotImplementedError

    def validate(self, network: Net) -> tuple[dict[str, float], Tensor]:
        """PSNR gain over the base network run frame by frame, and the ratio of their warping errors, under the first benchmark degradation."""
        name = next(iter(BENCHMARK))
        gains, shares, rows = [], [], []
        for number in range(min(VALIDATION_CLIPS, len(self.held_out))):
            still, generator = self.held_out.source(number), generator_for("validation", number)
            truth = animate(still, VALIDATION_FRAMES, self.recipe.motion, generator, self.held_out.side)
            source = benchmark_input(name, truth, seed=number)
            if self.recipe.task != "restore":
                source = self._observe(truth, generator_for("damage", number))["source"] / 2 + 0.5
            inputs = (source * 2 - 1).to(self.device)
            single = self._as_restored(self.base.to(self.device)(inputs, 1.0, match=False), source)
            joint = self._as_restored(self.restored(network, inputs), source)
            gains.append((psnr(joint, truth).mean() - psnr(single, truth).mean()).item())
            shares.append(mean_warping_error(joint, truth).rgb_sum / mean_warping_error(single, truth).rgb_sum)
            rows.append(torch.stack([source[-1], single[-1], joint[-1], truth[-1]]))
        figures = {"dB over the base, frame by frame": sum(gains) / len(gains), "warping error, of the base's": sum(shares) / len(shares)}
        return figures, torch.stack(rows)

    def _as_restored(self, images: Tensor, source: Tensor) -> Tensor:
        """A network's output in [0, 1]; for the task "restore" fused with the input's detail, as restorers do."""
        shown = (images.float().cpu() + 1) / 2
        return (fused(shown, source) if self.recipe.task == "restore" else shown).clamp(0, 1)
