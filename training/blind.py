"""Trains the blind restorer: recurrent from the first step, on windows of moving faces that are damaged as footage is."""

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

ROUNDING = (0.3 / 255) ** 2
"""Squared error below which a frame counts as right: that of 8 bits."""
JUDGED = 64
"""Pairs of held-out faces that validate."""


@dataclass(frozen=True)
class BlindRecipe:
    """All that decides what the network becomes, besides the faces and the seed.

    Attributes:
        name: of the recipe, kept in the file.
        sizes: of the network.
        pixels: the schedule of the first stage, of single frames.
        recurrent: that of the second, of clips of `frames` frames.
        footage: the damage.
        pairs: how many are made.
        patch: side of what is cut out of a pair's window for a step, a multiple of the network's.
        frames: of a pair's clip that a step learns from,
        run_up: and how many before them it may be shown first, so that what is carried is as old as in a long clip.
        flicker: weight of the error's change from frame to frame.
        detail: the schedule of the last stage, of the second set of weights.
        faithful, features, bands, adversary: weights of its L1, of the distance in features of a face encoder, of the strength of each octave
            and of a discriminator.
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
    """Root mean squared error of each frame, at 512 and at the frame's own resolution.

    The root gives every damage a gradient of the same length. Squares look at ruined frames only; their logarithm, a mean of decibels, looks at
    clean ones only and learns to do nothing.
    """

    name = "pixels"

    def __init__(self, recipe: BlindRecipe, pairs: Pairs, held_out: Pairs, device: torch.device) -> None:
        self.recipe, self.pairs, self.held_out, self.device = recipe, pairs, held_out, device

    @property
    def frames(self) -> int:
        """Of each clip, that a step learns from."""
        return 1

    def shown(self, generator: torch.Generator) -> int:
        """Frames of each clip in a step, those before the ones that it learns from included."""
        return self.frames

    def start(self, network: nn.Module, done: Mapping[str, Path]) -> None:
        network.requires_grad_(True)

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        """Windows in the order in which they are made, once, and at random after that; see `collate`."""
        first = step * self.plan.batch
        if first + self.plan.batch <= len(self.pairs):
            chosen = list(range(first, first + self.plan.batch))
        else:
            chosen = torch.randint(len(self.pairs), (self.plan.batch,), generator=generator).tolist()
        return collate([self.pairs[index] for index in chosen], self.recipe.patch, generator, self.shown(generator))

    def losses(self, network: nn.Module, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        errors = restored(network, batch, self.frames) - batch["clean"][:, -self.frames :]
        pixels = {"pixels": root_error(errors.flatten(0, 1), batch["pool"].repeat_interleave(errors.shape[1]))}
        if errors.shape[1] == 1:
            return pixels
        return pixels | {
            "flicker": self.recipe.flicker * (errors[:, 1:] - errors[:, :-1].detach()).square().mean((2, 3, 4)).add(ROUNDING).sqrt().mean(),
        }

    @torch.no_grad()
    def validate(self, network: nn.Module) -> tuple[dict[str, float], Tensor | None]:
        """Gains over doing nothing per kind of damage in dB, the share of windows made worse by 0.1 dB, and the ratio of flicker."""
        gains: dict[str, list[float]] = {kind: [] for kind in KINDS}
        shaking: list[float] = []
        rows = []
        for index in range(len(self.held_out)):
            batch = collate([self.held_out[index]], WINDOW)
            batch = {key: value.to(self.device) for key, value in batch.items()}
            clean, damaged, y = (clip[0].clamp(0, 1) for clip in (batch["clean"], batch["damaged"], restored(network, batch)))
            before, after = ((clip - clean).square().mean((1, 2, 3)).add(ROUNDING).log10().mean() for clip in (damaged, y))
            gains[KINDS[self.held_out[index].kind]].append(float(10 * (before - after)))
            still, moving = (((clip - clean)[1:] - (clip - clean)[:-1]).abs().mean() for clip in (damaged, y))
            shaking.append(float(moving / still.clamp_min(1e-4)))
            if index < 12:
                rows.append(torch.stack([damaged[-1], y[-1], clean[-1]]))
        every = [gain for kind in gains.values() for gain in kind]
        figures = {f"gain {kind}, dB": sum(values) / len(values) for kind, values in gains.items() if values}
        figures |= {"share worse": sum(gain < -0.1 for gain in every) / len(every), "flicker, of the input's": sum(shaking) / len(shaking)}
        return figures, torch.stack(rows)


class RecurrentStage(PixelStage):
    """The same over short clips: what was made of a frame is an input for the next, and errors that change from frame to frame cost more."""

    name = "recurrent"

    @property
    def frames(self) -> int:
        return self.recipe.frames

    def shown(self, generator: torch.Generator) -> int:
        return self.frames + int(torch.randint(self.recipe.run_up + 1, (), generator=generator))


class DetailStage(RecurrentStage):
    """From the first stage's weights: L1, features of faces, the strength of each octave, and a U-Net discriminator (Real-ESRGAN, section 3.3).

    Args:
        encoder: of faces, frozen; see EncoderFeatures.
    """

    name = "detail"

    def __init__(self, recipe: BlindRecipe, pairs: Pairs, held_out: Pairs, device: torch.device, encoder: nn.Module) -> None:
        super().__init__(recipe, pairs, held_out, device)
        self.perceptual = encoder.to(device)
        self.adversary = Adversary(recipe.adversary, 2e-4, self.plan.accumulate, device, width=24)

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        chosen = torch.randint(len(self.pairs), (self.plan.batch,), generator=generator).tolist()
        return collate([self.pairs[index] for index in chosen], self.recipe.patch, generator, self.shown(generator))

    def before_step(self, network: nn.Module, step: int, generator: torch.Generator) -> bool:
        self.adversary.begin()
        return False

    def losses(self, network: nn.Module, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        outputs, clean = restored(network, batch, self.frames), batch["clean"][:, -self.frames :]
        last = int(torch.randint(1, self.frames, (), generator=generator))
        y, x = outputs[:, last], clean[:, last]
        errors = outputs - clean
        return {
            "pixels": self.recipe.faithful * errors.abs().mean(),
            "flicker": self.recipe.faithful * self.recipe.flicker * (errors[:, 1:] - errors[:, :-1].detach()).abs().mean(),
            "features": self.recipe.features * self.perceptual(2 * y - 1, 2 * x - 1),
            "bands": self.recipe.bands * band_strength(y, x),
            "adversary": self.adversary.term(2 * y - 1, 2 * x - 1),
        }


def band_strength(output: Tensor, target: Tensor) -> Tensor:
    """How far each octave's strength is from the target's: mean (log s_y - log s_x)^2 of local deviations s over 32 x 32 pixels, three octaves."""
    terms = []
    for _ in range(3):
        below = [F.interpolate(F.avg_pool2d(image, 2), image.shape[-2:], mode="bilinear", align_corners=False) for image in (output, target)]
        local = [
            F.avg_pool2d((image - low).square().mean(1, keepdim=True), min(32, image.shape[-1]))
            for image, low in zip((output, target), below, strict=True)
        ]
        first, second = (part.add((1 / 255) ** 2).log() / 2 for part in local)
        terms.append((first - second).square().mean())
        output, target = F.avg_pool2d(output, 2), F.avg_pool2d(target, 2)
    return torch.stack(terms).mean()


def root_square(errors: Tensor) -> Tensor:
    """(mean e^2 + r)^1/2 of each of errors (N, 3, H, W) in units of [0, 1]: (N,)."""
    return (errors.square().mean((1, 2, 3)) + ROUNDING).sqrt()


def root_error(errors: Tensor, pool: Tensor) -> Tensor:
    """The mean `root_square` of errors (N, 3, H, W) as they are and averaged over `pool` (N,) pixels, half each."""
    fine = root_square(errors)
    coarse = fine.clone()
    for size in (2, 4):
        rows = pool == size
        if bool(rows.any()):
            coarse[rows] = root_square(F.avg_pool2d(errors[rows], size))
    return (fine + coarse).mean() / 2


def restored(network: nn.Module, batch: Batch, frames: int | None = None) -> Tensor:
    """The last `frames` of a batch's clips through the network, or all, (B, T, 3, P, P); nothing before them, and nothing carried, has a gradient."""
    damaged, flows, place, enlarged = batch["damaged"], batch["flows"], batch["place"], batch["enlarged"]
    run_up = 0 if frames is None else damaged.shape[1] - frames
    outputs: list[Tensor] = []
    for t in range(damaged.shape[1]):
        earlier = (damaged[:, t - 1], outputs[-1].detach().clamp(0, 1), flows[:, t - 1]) if t else (None, None, None)
        images, seen = recurrent_inputs(damaged[:, t], *earlier)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(torch.is_grad_enabled() and t >= run_up):
            outputs.append(network(images, seen, place, enlarged))
        if t < run_up:
            torch.clear_autocast_cache()  # weights that were cast without a gradient would be used with one
    return torch.stack(outputs[run_up:], 1)


def collate(pairs: list[Pair], patch: int, generator: torch.Generator | None = None, frames: int = FRAMES) -> Batch:
    """Patches of windows, turned left for right half of the time; without a generator their top left corners, as they are.

    Returns:
        damaged, clean (B, T, 3, P, P) in [0, 1]; flows (B, T - 1, 2, P, P) in pixels; place (B, 2, P / 4, P / 4) in [-1, 1]; enlarged (B,), crop
        pixels per pixel of the frame; pool (B,), the same as 1, 2 or 4.
    """
    everywhere = position_grid(CROP // UNSHUFFLE, CROP // UNSHUFFLE, torch.device("cpu"))[0]
    parts: dict[str, list[Tensor]] = {"damaged": [], "clean": [], "flows": [], "place": [], "enlarged": [], "pool": []}
    for pair in pairs:
        room = (WINDOW - patch) // UNSHUFFLE + 1
        left, top, mirror = (0, 0, 0) if generator is None else [int(torch.randint(n, (), generator=generator)) for n in (room, room, 2)]
        first = 0 if generator is None else int(torch.randint(FRAMES - frames + 1, (), generator=generator))
        cut = (slice(first, first + frames), *(slice(UNSHUFFLE * start, UNSHUFFLE * start + patch) for start in (top, left)))
        seen, clean = (pictures(clip[cut]) for clip in (pair.damaged, pair.clean))
        x, y = pair.corner[0] // UNSHUFFLE + left, pair.corner[1] // UNSHUFFLE + top
        place = everywhere[:, y : y + patch // UNSHUFFLE, x : x + patch // UNSHUFFLE].clone()
        if mirror:
            seen, clean, place = seen.flip(-1), clean.flip(-1), place.flip(-1)
            place[0] = -place[0]
        parts["damaged"].append(seen)
        parts["clean"].append(clean)
        parts["flows"].append(optical_flow(seen[1:], seen[:-1]) if len(seen) > 1 else seen.new_empty(0, 2, patch, patch))
        parts["place"].append(place)
        parts["enlarged"].append(torch.tensor(1 / pair.scale))
        parts["pool"].append(torch.tensor(1 if pair.scale > 0.7 else 2 if pair.scale > 0.35 else 4))
    return {key: torch.stack(values) for key, values in parts.items()}


def stages_of(recipe: BlindRecipe, pairs: Pairs, held_out: Pairs, device: torch.device) -> list[Stage]:
    """Single frames, clips, then detail; features are those of the embedded codebook's encoder."""
    codebook = cast(CodeFormer, load_network(FOLDER / CODEBOOK).network)
    features = EncoderFeatures(codebook.encoder, (64, 32))
    return [
        PixelStage(recipe, pairs, held_out, device),
        RecurrentStage(recipe, pairs, held_out, device),
        DetailStage(recipe, pairs, held_out, device, features),
    ]


def both(faithful: Mapping[str, Tensor] | None, trained: BlindUNet) -> BlindRestorers:
    """The file's networks: the first stage's weights and what the second made of them; what there is, if the first is not done."""
    networks = BlindRestorers(trained.sizes, with_detail=faithful is not None)
    networks.faithful.load_state_dict(trained.state_dict() if faithful is None else dict(faithful))
    if networks.detailed is not None:
        networks.detailed.load_state_dict(trained.state_dict())
    return networks.eval()


def network_of(recipe: BlindRecipe) -> BlindUNet:
    """The network of a recipe, untrained."""
    return BlindUNet(recipe.sizes)
