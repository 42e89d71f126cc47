"""The face prior: FLAIR's network in two stages, the image network on stills, then its temporal layers on clips."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..diffusion.schedule import bicubic_schedule, linear_schedule
from ..metrics.fidelity import psnr
from ..models.flair.bicubic import BicubicConfig
from ..models.flair.blur import BlurConfig
from ..models.flair.residual import set_dropout
from ..models.flair.temporal import split_parameters
from ..models.flair.unet import VideoUNet
from ..models.flair.window import Flows
from ..priors.flair_video import smoothed
from ..priors.load import TASKS
from .data.degradations import BENCHMARK, NATIVE_128, Blind, Deblurring, KnownDegradation, benchmark_input
from .data.faces import MIRROR_ONLY, Faces, Jitter
from .data.synthetic_motion import Clips, Motion, animate, sample_clip
from .engine import Batch, Stage, generator_for
from .plan import Plan

VALIDATION_FACES = 8
"""Faces of the validation split that figures are made of."""
LOW_SIGNAL, HIGH_SIGNAL = 0.25, 0.9
"""sqrt(alpha_bar) of the single estimates that are validated: one nearly all from the condition, one nearly all from the noisy face."""


@dataclass(frozen=True)
class PriorRecipe:
    """Everything that determines a trained face prior except the faces and the seed.

    Attributes:
        name: of the recipe, stored in the weights file.
        sizes: of the network.
        image, video: the schedules of eq. 6 (spatial layers) and of eq. 7 (temporal layers, the others fixed); a batch of the latter counts clips.
        frames: of a clip.
        blind: degradations of the condition; a Known one for a network of one operator.
        video_blind: those of the video stage, where they differ.
        dropout: in the image network's residual blocks during the image stage.
        jitter: of the training faces.
        motion: synthetic motion of stills.
        dropped: probability that the condition is replaced by 0, which also trains an unconditional network.
        masked: probability that parts of the condition are down-weighted (eq. 15).
        levels: "schedule": t is uniform over the training schedule, as published; "angle": arccos sqrt(alpha_bar) is uniform, from 1 to 87
            degrees, which excludes levels too noisy for a network trained for an hour.
        weighting: "eps": the loss of eq. 6; "v": the same divided by alpha_bar, by which it is the error of
            v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0
            (Salimans and Ho, 2022, section 4), which also weighs the clean face at high noise; the factor is at most 50.
    """

    name: str
    sizes: BicubicConfig | BlurConfig
    image: Plan
    video: Plan
    frames: int = 10
    blind: Blind | KnownDegradation | Deblurring = NATIVE_128
    video_blind: Blind | KnownDegradation | Deblurring | None = None
    jitter: Jitter = MIRROR_ONLY
    motion: Motion = field(default_factory=Motion)
    dropped: float = 0.2
    masked: float = 0.2
    dropout: float = 0.0
    levels: Literal["schedule", "angle"] = "schedule"
    weighting: Literal["eps", "v"] = "eps"


def paper(task: str = "x8") -> PriorRecipe:
    """FLAIR's recipe for one of TASKS: Table 11, section 5.1 and supplement A.1 and A.3.

    2 M samples in batches of 64 are 31,250 steps of the image network, 0.3 M in batches of 4 are 75,000 of the temporal layers. The image network of
    all enlargements learns from x8 alone; that of the three blurs from both kinds of kernel, our reading of section 5.1. Weight decay is taken as
    AdamW's, which guided diffusion trains with.

    Raises:
        ValueError: for another task.
    """
    if task not in TASKS:
        raise ValueError(f"FLAIR was trained for {', '.join(TASKS)}, got {task!r}")
    image: KnownDegradation | Deblurring
    video: KnownDegradation | Deblurring
    if task.startswith("x"):
        image, video = (KnownDegradation(512, f"bicubic(factor={factor})") for factor in (8, int(task[1:])))
    else:
        quality = (60, 100) if task == "jpeg" else None
        image = Deblurring(quality=quality)
        video = Deblurring(motion={"gaussian": 0.0, "motion": 1.0, "jpeg": 0.5}[task], quality=quality)
    return PriorRecipe(
        f"FLAIR 512 {task}",
        BicubicConfig() if task.startswith("x") else BlurConfig(),
        image=Plan(31_250, 64, 1.5e-4, 1.5e-4, ema=0.9999, decay=0.05),
        video=Plan(75_000, 4, 1e-4, 1e-4, ema=0.0, decay=0.05),
        blind=image,
        video_blind=video,
        dropout=0.2,
    )


# Ours: 128 x 128 on one CPU core in about an hour and a half. Features are not warped along the flow, as that needs a flow network whose
# weights we do not have; 3-D convolutions and temporal attention are the only temporal layers.
PRIOR_128 = PriorRecipe(
    "embedded prior 128",
    BicubicConfig(side=128, channels=32, multipliers=(1, 2, 3, 4), res_blocks=1, attention=frozenset({2, 3}), recurrence=frozenset()),
    image=Plan(3600, 4, 6e-4, 1e-5, warmup=100, ema=0.998, clip=1.0),
    video=Plan(70, 1, 4e-4, 2e-5, warmup=20, ema=0.97, clip=1.0),
    frames=6,
    jitter=Jitter(turn=8.0, zoom=0.1, shift=0.03),
    levels="angle",
    weighting="v",
)


def stages_of(recipe: PriorRecipe, faces: Faces, held_out: Faces, device: torch.device, clips: Clips | None = None) -> list[Stage]:
    """Eq. 6, then eq. 7, with half of its clips from `clips` if given."""
    return [ImagePriorStage(recipe, faces, held_out, device), VideoPriorStage(recipe, faces, held_out, device, clips)]


@dataclass
class _PriorStage(Stage[VideoUNet]):
    recipe: PriorRecipe
    faces: Faces
    held_out: Faces
    device: torch.device
    clips: Clips | None = None

    def train_only(self, network: VideoUNet, names: Collection[str], dropout: float) -> None:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in names)
        set_dropout(network, dropout)

    def noised(self, target: Tensor, condition: Tensor, clips: int, generator: torch.Generator) -> Batch:
        """The network's input for clean frames and their condition, (B T, 3, S, S) in [-1, 1]; one noise level per clip."""
        level = self._levels(clips, generator).repeat_interleave(len(target) // clips)
        noise = torch.randn(target.shape, generator=generator)
        signal = level[:, None, None, None]
        return {"noisy": signal * target + (1 - signal**2).sqrt() * noise, "condition": condition, "level": level, "noise": noise}

    def _levels(self, number: int, generator: torch.Generator) -> Tensor:
        """sqrt(alpha_bar), (number,)."""
        share = torch.rand(number, generator=generator)
        if self.recipe.levels == "angle":
            return torch.cos(torch.deg2rad(1 + 86 * share))
        table = self._signal_levels()
        return table[(share * len(table)).long()]

    def _signal_levels(self) -> Tensor:
        """sqrt(alpha_bar) of the training schedule: T = 1000 for blur and JPEG, 2000 for enlargement (A.3)."""
        schedule = bicubic_schedule() if self.recipe.sizes.takes_noise_level else linear_schedule()
        return schedule.alphas_cumprod.sqrt().float()

    def level_input(self, level: Tensor) -> Tensor:
        """The network's noise-level input for sqrt(alpha_bar): that number itself, or the nearest timestep; see `FlairPrior.level`."""
        if self.recipe.sizes.takes_noise_level:
            return level
        return (self._signal_levels().to(level) - level[:, None]).abs().argmin(1).to(level)

    def denoising(self, network: VideoUNet, batch: Batch, frames: int, temporal: bool) -> dict[str, Tensor]:
        """|eps - eps_theta(x_t, c, t)|^2, weighted."""
        level = batch["level"]
        flows = self._flows(network, batch["condition"], frames, temporal)
        found = network(batch["noisy"], batch["condition"], self.level_input(level), frames=frames, temporal=temporal, flows=flows)
        error = (found.float() - batch["noise"]).square().mean((1, 2, 3))
        weight = level.pow(-2).clamp_max(50.0) if self.recipe.weighting == "v" else torch.ones_like(level)
        return {"noise": (weight * error).mean()}

    def _flows(self, network: VideoUNet, condition: Tensor, frames: int, temporal: bool) -> Flows:
        """Flow between the condition's frames if features are warped along it; in float32, in which SPyNet was trained, and without gradient."""
        if not (temporal and frames > 1 and self.recipe.sizes.recurrence):
            return {}
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return network.flows(condition if network.takes_noise_level else smoothed(condition), frames)

    def judged_estimates(self, network: VideoUNet, truth: Tensor, temporal: bool) -> tuple[dict[str, float], Tensor]:
        """PSNR gain of single estimates over the condition, per benchmark degradation, for frames (N, 3, S, S) in [0, 1]; and a sheet."""
        figures, columns = {}, []
        frames = len(truth) if temporal else 1
        for name in BENCHMARK:
            source = benchmark_input(name, truth, seed=0)
            noise = torch.randn(truth.shape, generator=generator_for("prior", name))
            flows = self._flows(network, (source * 2 - 1).to(self.device), frames, temporal)
            for level in (LOW_SIGNAL, HIGH_SIGNAL):
                noisy = level * (truth * 2 - 1) + math.sqrt(1 - level**2) * noise
                at = self.level_input(torch.full((len(truth),), level))
                inputs = [value.to(self.device) for value in (noisy, source * 2 - 1, at)]
                eps = network(*inputs, frames=frames, temporal=temporal, flows=flows).float().cpu()
                found = ((noisy - math.sqrt(1 - level**2) * eps) / level / 2 + 0.5).clamp(0, 1)
                figures[f"{name}, sqrt(alpha_bar) {level}: dB over the input"] = (psnr(found, truth).mean() - psnr(source, truth).mean()).item()
                columns += [source, found] if level == LOW_SIGNAL else [found]
        return figures, torch.stack([*columns, truth], 1)[:6]


class ImagePriorStage(_PriorStage):
    """Eq. 6: the spatial layers learn on single faces; conditions are dropped or masked at random."""

    name = "image"

    def start(self, network: VideoUNet, done: Mapping[str, Path]) -> None:
        self.train_only(network, split_parameters(network).spatial, self.recipe.dropout)

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        recipe, number = self.recipe, self.plan.batch
        target = self.faces.sample(number, recipe.jitter, generator)
        condition = torch.stack([recipe.blind.draw(generator)(face, generator) for face in target]) * 2 - 1
        kept = torch.rand(number, generator=generator) >= recipe.dropped
        thinned = torch.stack([random_weight_mask(target.shape[-1], generator) for _ in target])
        thin = torch.rand(number, generator=generator) < recipe.masked
        thinned[~thin] = 1.0
        condition = condition * thinned * kept[:, None, None, None]
        return self.noised(target * 2 - 1, condition, number, generator)

    def losses(self, network: VideoUNet, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        return self.denoising(network, batch, frames=1, temporal=False)

    def validate(self, network: VideoUNet) -> tuple[dict[str, float], Tensor]:
        return self.judged_estimates(network, self.held_out.first(VALIDATION_FACES), temporal=False)


class VideoPriorStage(_PriorStage):
    """Eq. 7: the temporal layers learn on clips, the spatial ones are frozen; conditions are never dropped.

    Clips are stills in synthetic motion; if `clips` are given, half are drawn from them.
    """

    name = "video"

    def start(self, network: VideoUNet, done: Mapping[str, Path]) -> None:
        self.train_only(network, split_parameters(network).temporal, dropout=0.0)

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        recipe = self.recipe
        pairs = []
        for _ in range(self.plan.batch):
            target = sample_clip(self.faces, self.clips, recipe.frames, recipe.motion, generator)
            pairs.append((target, (recipe.video_blind or recipe.blind).draw(generator)(target, generator)))
        target, condition = (torch.cat(part) * 2 - 1 for part in zip(*pairs, strict=True))
        return self.noised(target, condition, self.plan.batch, generator)

    def losses(self, network: VideoUNet, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        return self.denoising(network, batch, frames=self.recipe.frames, temporal=True)

    def validate(self, network: VideoUNet) -> tuple[dict[str, float], Tensor]:
        generator = generator_for("validation", "prior")
        truth = animate(self.held_out.source(0), self.recipe.frames, self.recipe.motion, generator, self.held_out.side)
        return self.judged_estimates(network, truth, temporal=True)


def random_weight_mask(side: int, generator: torch.Generator) -> Tensor:
    """m_c of eq. 15, (1, side, side): a share of the patches of a grid gets a weight below 1, uniform from 0; the others keep 1.

    The paper says that some pixels lose importance at random, after masked autoencoders; grid and share are ours. The product acts on
    conditions in [-1, 1], so that weight 0 is what a dropped condition shows.
    """
    weights = torch.rand(1, 8, 8, generator=generator)
    weights[torch.rand(1, 8, 8, generator=generator) >= 0.3] = 1.0
    return F.interpolate(weights[None], (side, side), mode="nearest")[0]
