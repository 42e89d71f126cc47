"""Training of the blind restorer on windows of moving faces that are damaged as footage is: single frames, then clips, then generated detail.

The recurrent network is unrolled over short clips and learns by truncated backpropagation through time, of one frame: no gradient passes through the
previous output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..faces.types import CROP
from ..methods.blind.restorer import optical_flow
from ..models.blind import BlindRestorers, BlindSizes, BlindUNet, recurrent_inputs
from ..models.blind.network import UNSHUFFLE, position_grid
from ..models.checkpoints.load import load_network
from ..models.codeformer.network import CodeFormer
from ..models.embedded import CODEBOOK, FOLDER
from .data.footage import KINDS, Footage
from .data.pairs import FRAMES, WINDOW, Pair, Pairs, pictures
from .discriminator import Adversary
from .engine import Batch, Stage
from .losses import EncoderFeatures
from .plan import Plan

QUANTISATION_NOISE = (0.3 / 255) ** 2
"""Mean squared error of rounding to 8 bits, added under roots and logarithms: below it a frame counts as right."""
VALIDATION_PAIRS = 64
"""Pairs of held-out faces for validation."""


@dataclass(frozen=True)
class BlindRecipe:
    """All hyperparameters; with the faces and the seed they determine the weights.

    Attributes:
        name: of the recipe, stored in the file.
        sizes: of the network.
        pixels: schedule of the first stage, on single frames.
        recurrent: schedule of the second stage, on clips of `frames` frames.
        footage: the degradation model.
        pairs: size of the training set.
        patch: side of the random crop of a pair's window for a step, a multiple of `BlindSizes.multiple`.
        frames: frames of a clip that have a loss.
        run_up: up to how many frames precede them without a loss, so that the recurrent state is as old as in a long clip.
        flicker: weight of the change of the error from frame to frame.
        detail: schedule of the last stage, of the second set of weights.
        faithful, features, bands, adversary: weights of its losses: L1, perceptual (features of a face encoder), octave energies, adversarial.
    """

    name: str
    sizes: BlindSizes = field(default_factory=BlindSizes)
    pixels: Plan = field(default_factory=lambda: Plan(4800, 16, 8e-4, 1e-4, warmup=100, ema=0.995, clip=0.1))
    recurrent: Plan = field(default_factory=lambda: Plan(8500, 6, 4e-4, 1e-6, warmup=100, ema=0.998, clip=0.1))
    footage: Footage = field(default_factory=Footage)
    pairs: int = 6000
    patch: int = 128
    frames: int = 3
    run_up: int = FRAMES - 3
    flicker: float = 0.4
    detail: Plan = field(default_factory=lambda: Plan(1500, 4, 1e-4, 1e-5, warmup=20, ema=0.99, clip=1.0))
    faithful: float = 10.0
    features: float = 1.0
    bands: float = 0.6
    adversary: float = 0.05


BLIND_512 = BlindRecipe("embedded blind 512")


class PixelStage(Stage):
    """Root mean squared error (RMSE) of each frame, at the crop's resolution and at the frame's own.

    The root gives every damage a gradient of the same length. Under the mean squared error only ruined frames count; under its logarithm, the mean
    PSNR, only clean ones, and the network learns to do nothing.
    """

    name = "pixels"

    def __init__(self, recipe: BlindRecipe, pairs: Pairs, held_out: Pairs, device: torch.device) -> None:
        self.recipe, self.pairs, self.held_out, self.device = recipe, pairs, held_out, device

    @property
    def frames(self) -> int:
        """Frames of each clip that have a loss."""
        return 1

    def sequence_length(self, generator: torch.Generator) -> int:
        """Frames of each clip in a step, the run-up without a loss included."""
        return self.frames

    def start(self, network: nn.Module, done: Mapping[str, Path]) -> None:
        network.requires_grad_(True)

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        """Pairs in the order in which they are made for the first epoch, then at random; see `collate`."""
        first = step * self.plan.batch
        if first + self.plan.batch <= len(self.pairs):
            chosen = list(range(first, first + self.plan.batch))
        else:
            chosen = torch.randint(len(self.pairs), (self.plan.batch,), generator=generator).tolist()
        return collate([self.pairs[index] for index in chosen], self.recipe.patch, generator, self.sequence_length(generator))

    def losses(self, network: nn.Module, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        errors = unroll(network, batch, self.frames) - batch["clean"][:, -self.frames :]
        losses = {"pixels": multiscale_rmse(errors.flatten(0, 1), batch["pool"].repeat_interleave(errors.shape[1]))}
        if errors.shape[1] > 1:
            change = errors[:, 1:] - errors[:, :-1].detach()
            losses["flicker"] = self.recipe.flicker * change.square().mean((2, 3, 4)).add(QUANTISATION_NOISE).sqrt().mean()
        return losses

    @torch.no_grad()
    def validate(self, network: nn.Module) -> tuple[dict[str, float], Tensor | None]:
        """PSNR gains over the input per kind of damage in dB, the share of windows that lose over 0.1 dB, and flicker relative to the input's."""
        gains: dict[str, list[float]] = {kind: [] for kind in KINDS}
        flicker: list[float] = []
        rows = []
        for index in range(len(self.held_out)):
            batch = collate([self.held_out[index]], WINDOW)
            batch = {key: value.to(self.device) for key, value in batch.items()}
            clean, damaged, y = (clip[0].clamp(0, 1) for clip in (batch["clean"], batch["damaged"], unroll(network, batch)))
            before, after = ((clip - clean).square().mean((1, 2, 3)).add(QUANTISATION_NOISE).log10().mean() for clip in (damaged, y))
            gains[KINDS[self.held_out[index].kind]].append(float(10 * (before - after)))
            flicker_in, flicker_out = (((clip - clean)[1:] - (clip - clean)[:-1]).abs().mean() for clip in (damaged, y))
            flicker.append(float(flicker_out / flicker_in.clamp_min(1e-4)))
            if index < 12:
                rows.append(torch.stack([damaged[-1], y[-1], clean[-1]]))
        every = [gain for kind in gains.values() for gain in kind]
        figures = {f"gain {kind}, dB": sum(values) / len(values) for kind, values in gains.items() if values}
        figures |= {"share worse": sum(gain < -0.1 for gain in every) / len(every), "flicker, of the input's": sum(flicker) / len(flicker)}
        return figures, torch.stack(rows)


class RecurrentStage(PixelStage):
    """The same over short clips, where the previous output is an input, and with a loss of the error's change from frame to frame."""

    name = "recurrent"

    @property
    def frames(self) -> int:
        return self.recipe.frames

    def sequence_length(self, generator: torch.Generator) -> int:
        return self.frames + int(torch.randint(self.recipe.run_up + 1, (), generator=generator))


class DetailStage(RecurrentStage):
    """From the recurrent stage's weights: L1, perceptual, octave energy and adversarial loss (U-Net discriminator, Real-ESRGAN, section 3.3).

    Args:
        encoder: of faces, frozen, for the perceptual loss; see EncoderFeatures.
    """

    name = "detail"

    def __init__(self, recipe: BlindRecipe, pairs: Pairs, held_out: Pairs, device: torch.device, encoder: nn.Module) -> None:
        super().__init__(recipe, pairs, held_out, device)
        self.perceptual = encoder.to(device)
        self.adversary = Adversary(recipe.adversary, 2e-4, self.plan.accumulate, device, width=24)

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        chosen = torch.randint(len(self.pairs), (self.plan.batch,), generator=generator).tolist()
        return collate([self.pairs[index] for index in chosen], self.recipe.patch, generator, self.sequence_length(generator))

    def before_step(self, network: nn.Module, step: int, generator: torch.Generator) -> bool:
        self.adversary.begin()
        return False

    def losses(self, network: nn.Module, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        outputs, clean = unroll(network, batch, self.frames), batch["clean"][:, -self.frames :]
        last = int(torch.randint(1, self.frames, (), generator=generator))
        y, x = outputs[:, last], clean[:, last]
        errors = outputs - clean
        return {
            "pixels": self.recipe.faithful * errors.abs().mean(),
            "flicker": self.recipe.faithful * self.recipe.flicker * (errors[:, 1:] - errors[:, :-1].detach()).abs().mean(),
            "features": self.recipe.features * self.perceptual(2 * y - 1, 2 * x - 1),
            "bands": self.recipe.bands * octave_energy_loss(y, x),
            "adversary": self.adversary.term(2 * y - 1, 2 * x - 1),
        }


def octave_energy_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean (log s_y - log s_x)^2 over three octaves, with the local standard deviations s of each over 32 x 32 of its pixels."""
    terms = []
    for _ in range(3):
        blurred = [F.interpolate(F.avg_pool2d(image, 2), image.shape[-2:], mode="bilinear", align_corners=False) for image in (output, target)]
        variances = [
            F.avg_pool2d((image - low).square().mean(1, keepdim=True), min(32, image.shape[-1]))
            for image, low in zip((output, target), blurred, strict=True)
        ]
        log_y, log_x = (variance.add((1 / 255) ** 2).log() / 2 for variance in variances)
        terms.append((log_y - log_x).square().mean())
        output, target = F.avg_pool2d(output, 2), F.avg_pool2d(target, 2)
    return torch.stack(terms).mean()


def rmse(errors: Tensor) -> Tensor:
    """(mean e^2 + r)^1/2 of each of errors (N, 3, H, W) in units of [0, 1], with r the noise of quantisation: (N,)."""
    return (errors.square().mean((1, 2, 3)) + QUANTISATION_NOISE).sqrt()


def multiscale_rmse(errors: Tensor, pool: Tensor) -> Tensor:
    """The mean `rmse` of errors (N, 3, H, W), half at their own resolution, half after average pooling by `pool` (N,) pixels: 1, 2 or 4."""
    fine = rmse(errors)
    coarse = fine.clone()
    for size in (2, 4):
        rows = pool == size
        if bool(rows.any()):
            coarse[rows] = rmse(F.avg_pool2d(errors[rows], size))
    return (fine + coarse).mean() / 2


def unroll(network: nn.Module, batch: Batch, frames: int | None = None) -> Tensor:
    """The outputs of a batch's clips, (B, T, 3, P, P).

    Args:
        frames: T, the last ones; None for all. Those before them only make the recurrent state and have no gradient.
    """
    damaged, flows, positions, scale = batch["damaged"], batch["flows"], batch["positions"], batch["scale"]
    run_up = 0 if frames is None else damaged.shape[1] - frames
    outputs: list[Tensor] = []
    for t in range(damaged.shape[1]):
        past = (damaged[:, t - 1], outputs[-1].detach().clamp(0, 1), flows[:, t - 1]) if t else (None, None, None)
        images, valid = recurrent_inputs(damaged[:, t], *past)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(torch.is_grad_enabled() and t >= run_up):
            outputs.append(network(images, valid, positions, scale))
        if t < run_up:
            torch.clear_autocast_cache()  # weights that were cast without a gradient would be used with one
    return torch.stack(outputs[run_up:], 1)


def collate(pairs: list[Pair], patch: int, generator: torch.Generator | None = None, frames: int = FRAMES) -> Batch:
    """Random patches of windows and `frames` successive frames, flipped horizontally half of the time; without a generator the top left, unflipped.

    Returns:
        damaged, clean (B, T, 3, P, P) in [0, 1]; flows (B, T - 1, 2, P, P), of each frame into the previous one, in pixels; positions (B, 2, P / 4,
        P / 4) in [-1, 1]; scale (B,), crop pixels per frame pixel; pool (B,), the same as 1, 2 or 4.
    """
    grid = position_grid(CROP // UNSHUFFLE, CROP // UNSHUFFLE, torch.device("cpu"))[0]
    parts: dict[str, list[Tensor]] = {"damaged": [], "clean": [], "flows": [], "positions": [], "scale": [], "pool": []}
    for pair in pairs:
        room = (WINDOW - patch) // UNSHUFFLE + 1
        left, top, flip = (0, 0, 0) if generator is None else [int(torch.randint(n, (), generator=generator)) for n in (room, room, 2)]
        first = 0 if generator is None else int(torch.randint(FRAMES - frames + 1, (), generator=generator))
        cut = (slice(first, first + frames), *(slice(UNSHUFFLE * start, UNSHUFFLE * start + patch) for start in (top, left)))
        damaged, clean = (pictures(clip[cut]) for clip in (pair.damaged, pair.clean))
        x, y = pair.corner[0] // UNSHUFFLE + left, pair.corner[1] // UNSHUFFLE + top
        positions = grid[:, y : y + patch // UNSHUFFLE, x : x + patch // UNSHUFFLE].clone()
        if flip:
            damaged, clean, positions = damaged.flip(-1), clean.flip(-1), positions.flip(-1)
            positions[0] = -positions[0]
        parts["damaged"].append(damaged)
        parts["clean"].append(clean)
        parts["flows"].append(optical_flow(damaged[1:], damaged[:-1]) if len(damaged) > 1 else damaged.new_empty(0, 2, patch, patch))
        parts["positions"].append(positions)
        parts["scale"].append(torch.tensor(1 / pair.scale))
        parts["pool"].append(torch.tensor(1 if pair.scale > 0.7 else 2 if pair.scale > 0.35 else 4))
    return {key: torch.stack(values) for key, values in parts.items()}


def stages_of(recipe: BlindRecipe, pairs: Pairs, held_out: Pairs, device: torch.device) -> list[Stage]:
    """Single frames, clips, then detail, whose perceptual loss is over the features of the embedded codebook's encoder."""
    codebook = cast(CodeFormer, load_network(FOLDER / CODEBOOK).network)
    features = EncoderFeatures(codebook.encoder, (64, 32))
    return [
        PixelStage(recipe, pairs, held_out, device),
        RecurrentStage(recipe, pairs, held_out, device),
        DetailStage(recipe, pairs, held_out, device, features),
    ]


def restorers_of(faithful: Mapping[str, Tensor] | None, trained: BlindUNet) -> BlindRestorers:
    """The networks of the exported file: the recurrent stage's weights and the detail stage's.

    Args:
        faithful: the recurrent stage's; None while that stage is not done.
        trained: of the stage that ran last.
    """
    networks = BlindRestorers(trained.sizes, with_detail=faithful is not None)
    networks.faithful.load_state_dict(trained.state_dict() if faithful is None else dict(faithful))
    if networks.detailed is not None:
        networks.detailed.load_state_dict(trained.state_dict())
    return networks.eval()
