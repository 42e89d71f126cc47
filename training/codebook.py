"""Training of the face codebook (CodeFormer): autoencoder, code prediction and feature transforms, one stage each; the embedded one has a fourth."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..methods.detail_fusion import anchored, fused
from ..metrics.fidelity import psnr, ssim
from ..metrics.lpips import lpips_or_none
from ..models.checkpoints.state_dict import read_state
from ..models.codeformer.network import CodeFormer
from ..models.vq import Encoder
from .blind import rmse
from .data.cleaned import CleanedClips
from .data.degradations import BENCHMARK, Blind, benchmark_input
from .data.faces import Faces
from .engine import Batch, Stage
from .losses import EncoderFeatures, PatchDiscriminator, adaptive_weight, anchored_pixel_loss, code_losses, hinge_loss, pixel_loss, quantised
from .plan import Plan
from .recipe import CodebookRecipe

AUTOENCODER = "autoencoder"
VALIDATION_FACES = 16
"""Number of validation faces."""
VALIDATION_CLIPS = 32
"""Number of cleaned validation clips."""
REVIVAL_FACES = 16
MAX_SHIFT = 4
"""Largest shift of cleaned faces, in pixels at the network's side."""


def network_of(recipe: CodebookRecipe) -> CodeFormer:
    """The recipe's network, initialised: positions normal with deviation 0.02, codes uniform in +- 1 / codes."""
    network = CodeFormer(recipe.sizes)
    if recipe.kaiming:
        kaiming_normal(network)
    nn.init.normal_(network.position_emb, std=0.02)
    nn.init.uniform_(network.quantize.embedding.weight, -1 / recipe.sizes.vq.codes, 1 / recipe.sizes.vq.codes)
    return network


def stages_of(
    recipe: CodebookRecipe, faces: Faces, held_out: Faces, device: torch.device, cleaned: tuple[CleanedClips, CleanedClips] | None = None
) -> list[Stage]:
    """CodeFormer's three stages, and a fourth if cleaned clips (training, held out) are given."""
    stages: list[Stage] = [AutoEncoding(recipe, faces, held_out, device), CodePrediction(recipe, faces, held_out)]
    stages.append(Joint(recipe, faces, held_out, device))
    if cleaned is not None:
        stages.append(CleanedStage(recipe, faces, held_out, device, clips=cleaned[0], held_out_clips=cleaned[1]))
    return stages


@dataclass
class _CodebookStage(Stage[CodeFormer]):
    recipe: CodebookRecipe
    faces: Faces
    held_out: Faces
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def pair(self, blind: Blind, generator: torch.Generator) -> Batch:
        """Clean faces and their degraded versions, both in [-1, 1]."""
        target = self.faces.sample(self.plan.batch, self.recipe.jitter, generator)
        source = torch.stack([blind.draw(generator)(face, generator) for face in target])
        return {"source": source * 2 - 1, "target": target * 2 - 1}


class PatchAdversarialLoss:
    """A patch discriminator with its optimiser and loss; inactive when its weight is 0."""

    def __init__(self, weight: float, plan: Plan, start: int, device: torch.device) -> None:
        self.weight, self.start = weight, start
        self.net = PatchDiscriminator().to(device) if self.weight else None
        self.optimiser = None if self.net is None else torch.optim.Adam(self.net.parameters(), plan.rate, plan.betas)

    def term(self, output: Tensor, target: Tensor, faithful: Tensor, last: Tensor | None, step: int) -> dict[str, Tensor]:
        """Trains the adversary on the pictures, then gives the generator's term; in this order, as the term's gradient needs the weights it saw.

        Args:
            faithful, last: the other terms of the pictures, and the weight at which VQGAN's adaptive factor balances them; None for no such factor.
        """
        if self.net is None or self.optimiser is None or step < self.start:
            return {}
        self.net.requires_grad_(True)
        self.optimiser.zero_grad(set_to_none=True)
        hinge_loss(self.net(target).float(), self.net(output.detach()).float()).backward()
        self.optimiser.step()
        self.net.requires_grad_(False)
        fooled = -self.net(output).float().mean()
        return {"adversary": self.weight * (1 if last is None else adaptive_weight(faithful, fooled, last)) * fooled}

    def state(self) -> dict[str, Any]:
        return {} if self.net is None or self.optimiser is None else {"adversary": self.net.state_dict(), "optimiser": self.optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        if self.net is not None and self.optimiser is not None and state:
            self.net.load_state_dict(state["adversary"])
            self.optimiser.load_state_dict(state["optimiser"])


class AutoEncoding(_CodebookStage):
    """Stage I: a face through encoder, nearest codes and generator back to itself (CodeFormer, eq. 2): L1, codes, perceptual, adversary."""

    name = AUTOENCODER

    def start(self, network: CodeFormer, done: Mapping[str, Path]) -> None:
        network.requires_grad_(False)
        for part in (network.encoder, network.quantize, network.generator):
            part.requires_grad_(True)
        self.perceptual = lpips_or_none(self.device) if self.recipe.perceptual else None
        self.adversary = PatchAdversarialLoss(self.recipe.adversary[0], self.plan, self.recipe.adversary_from[0], self.device)

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        return {"target": self.faces.sample(self.plan.batch, self.recipe.jitter, generator) * 2 - 1}

    def before_step(self, network: CodeFormer, step: int, generator: torch.Generator) -> bool:
        recipe = self.recipe
        beginning = bool(recipe.settle) and step == recipe.settle
        reviving = bool(recipe.revive) and step > recipe.settle and step % recipe.revive == 0 and step < 0.85 * self.plan.steps
        if not (beginning or reviving):
            return False
        with torch.no_grad():
            faces = (self.faces.sample(REVIVAL_FACES, recipe.jitter, generator) * 2 - 1).to(self.device)
            latent = network.encoder(faces.contiguous(memory_format=torch.channels_last))[0].float()
        tokens = latent.flatten(2).mT.flatten(0, 1)
        entries = network.quantize.embedding.weight
        chosen = tokens[torch.randperm(len(tokens), generator=generator)[: len(entries)].to(tokens.device)]
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            if beginning:
                entries[: len(chosen)] = chosen
            else:
                unused = torch.ones(len(entries), dtype=torch.bool, device=entries.device)
                unused[network.quantize.nearest(latent).unique()] = False
                entries[unused] = chosen[: int(unused.sum())]
        return beginning

    def losses(self, network: CodeFormer, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        target = batch["target"]
        latent = network.encoder(target)[0]
        terms: dict[str, Tensor] = {}
        codes = latent
        if step >= self.recipe.settle:
            codes, terms["codes"], _ = quantised(latent, network.quantize, self.recipe.commitment)
        output = network.generator(codes)
        terms["pixels"] = self.recipe.pixels * pixel_loss(output, target)
        if self.perceptual is not None:
            terms["perceptual"] = self.recipe.perceptual * self.perceptual(output, target).mean()
        faithful = terms["pixels"] + terms.get("perceptual", 0.0)
        last = conv_weight(network.generator.blocks[-1]) if self.recipe.adaptive else None
        return terms | self.adversary.term(output, target, faithful, last, step)

    def validate(self, network: CodeFormer) -> tuple[dict[str, float], Tensor]:
        truth = self.held_out.first(VALIDATION_FACES)
        latent = network.encoder((truth * 2 - 1).to(self.device))[0].float()
        index = network.quantize.nearest(latent)
        direct, coded = (((network.generator(z) + 1) / 2).clamp(0, 1).cpu() for z in (latent, network.quantize.lookup(index)))
        figures = {
            "direct dB": psnr(direct, truth).mean().item(),
            "coded dB": psnr(coded, truth).mean().item(),
            "codes used": float(len(index.unique())),
        }
        return figures, torch.stack([truth, direct, coded], 1)[:8]


class CodePrediction(_CodebookStage):
    """Stage II: the transformer, and an encoder of degraded faces, learn the clean face's codes (CodeFormer, eq. 4); all else is fixed."""

    name = "prediction"

    def start(self, network: CodeFormer, done: Mapping[str, Path]) -> None:
        network.requires_grad_(True)
        network.quantize.requires_grad_(False)
        network.generator.requires_grad_(False)
        network.fuse_convs_dict.requires_grad_(False)
        self.clean_encoder = clean_encoder(network, done[AUTOENCODER])

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        return self.pair(self.recipe.blind, generator)

    def losses(self, network: CodeFormer, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        latent = network.encode(batch["source"], ())[0]
        return self.code_terms(network, batch["target"], network.logits(latent), latent)

    def code_terms(self, network: CodeFormer, target: Tensor, logits: Tensor, latent: Tensor) -> dict[str, Tensor]:
        """Weighted cross-entropy and feature loss towards the clean face's codes."""
        with torch.no_grad():
            index = network.quantize.nearest(self.clean_encoder(target)[0])
        entropy, distance = code_losses(logits, latent, index, network.quantize)
        return {"codes": self.recipe.codes * entropy, "features": self.recipe.features * distance}

    def validate(self, network: CodeFormer) -> tuple[dict[str, float], Tensor]:
        return restoration_figures(network, self.held_out.first(VALIDATION_FACES), self.device, weight=0.0)


class Joint(CodePrediction):
    """Stage III: trains the transforms of the input's features into the generator (CodeFormer, eq. 5 to 7), and the codes further."""

    name = "joint"

    def start(self, network: CodeFormer, done: Mapping[str, Path]) -> None:
        super().start(network, done)
        network.fuse_convs_dict.requires_grad_(True)
        network.generator.requires_grad_(self.recipe.open_generator)
        self.last = conv_weight(network.generator.blocks[-1])
        if not self.recipe.open_generator:
            block: Any = network.fuse_convs_dict[str(max(network.sizes.fused))]
            self.last = conv_weight(block.shift[-1])
        self.perceptual: nn.Module | None = None
        if self.recipe.perceptual:
            sides = network.config.sides[1:3]
            self.perceptual = lpips_or_none(self.device) or EncoderFeatures(copy.deepcopy(self.clean_encoder), sides)
        self.adversary = PatchAdversarialLoss(self.recipe.adversary[1], self.plan, self.recipe.adversary_from[1], self.device)

    def joint_schedule(self, step: int) -> tuple[bool, float | None]:
        """Whether a step has heavy degradations and code losses only, and the w of its images (None: random).

        CodeFormer's stage III: 40 000 steps with w 1, 40 000 with 1.3, 40 000 on heavy degradations, then one step in 15 with images and w 1.3.
        Shorter plans keep these proportions.
        """
        if not self.recipe.schedule:
            return False, None
        share = step * 150_000 / self.plan.steps
        if share <= 80_000:
            return False, 1.0 if share <= 40_000 else 1.3
        return share <= 120_000 or step % 15 != 0, 1.3

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        return self.pair(self.recipe.blind if self.joint_schedule(step)[0] else self.recipe.gentle, generator)

    def losses(self, network: CodeFormer, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        codes_only, weight = self.joint_schedule(step)
        target = batch["target"]
        latent, features = network.encode(batch["source"])
        every = self.recipe.codes_every
        terms: dict[str, Tensor] = {}
        if codes_only or step % every == 0:
            logits = network.logits(latent)
            terms = {key: every * term for key, term in self.code_terms(network, target, logits, latent).items()}
            if codes_only:
                return terms
        else:
            with torch.no_grad():
                logits = network.logits(latent)
        codes = network.quantize.lookup(logits.argmax(-1))
        output = network.decode(codes, latent, features, self._fidelity(generator) if weight is None else weight, match=False)
        terms["pixels"] = self.recipe.pixels * anchored_pixel_loss(output, target, batch["source"], self.recipe.anchored)
        if self.perceptual is not None:
            terms["perceptual"] = self.recipe.perceptual * self.perceptual(output, target).mean()
        faithful = terms["pixels"] + terms.get("perceptual", 0.0)
        return terms | self.adversary.term(output, target, faithful, self.last if self.recipe.adaptive else None, step)

    def _fidelity(self, generator: torch.Generator) -> float:
        chance, free = torch.rand(2, generator=generator).tolist()
        for weight, share in self.recipe.fidelity:
            if chance < share:
                return weight
            chance -= share
        return free

    def validate(self, network: CodeFormer) -> tuple[dict[str, float], Tensor]:
        return restoration_figures(network, self.held_out.first(VALIDATION_FACES), self.device, weight=1.0)


@dataclass
class CleanedStage(_CodebookStage):
    """The feature transforms are trained further on small faces that the blind restorer cleaned, through `fused`, which combines both outputs.

    Everything that KEEP, DicFace and its tasks share with this network is frozen: encoder, codes, generator.
    """

    clips: CleanedClips = field(kw_only=True)
    held_out_clips: CleanedClips = field(kw_only=True)
    name = "cleaned"

    def start(self, network: CodeFormer, done: Mapping[str, Path]) -> None:
        network.requires_grad_(False)
        network.fuse_convs_dict.requires_grad_(True)

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        if torch.rand((), generator=generator) < self.recipe.uncleaned:
            return self.pair(self.recipe.blind, generator) | {"cleaned": torch.tensor(False)}
        pairs = []
        for index in torch.randint(len(self.clips), (self.plan.batch,), generator=generator).tolist():
            clip = torch.stack(self.clips[index])
            frame, mirror = (int(torch.randint(n, (), generator=generator)) for n in (clip.shape[1], 2))
            shift = torch.randint(-MAX_SHIFT, MAX_SHIFT + 1, (2,), generator=generator).tolist()
            pairs.append((clip[:, frame].flip(-1) if mirror else clip[:, frame]).roll(shift, (-2, -1)))
        source, target = torch.stack(pairs, 1) * 2 - 1
        return {"source": source, "target": target, "cleaned": torch.tensor(True)}

    def losses(self, network: CodeFormer, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        source, target = batch["source"], batch["target"]
        with torch.no_grad():
            latent, features = network.encode(source)
            codes = network.quantize.lookup(network.logits(latent).argmax(-1))
        output = network.decode(codes, latent, features, 1.0, match=False).float()
        together = fused((output + 1) / 2, (source + 1) / 2, bool(batch["cleaned"]))
        return {"answer": rmse((anchored(output, source) - target) / 2).mean(), "together": rmse(together - (target + 1) / 2).mean()}

    def validate(self, network: CodeFormer) -> tuple[dict[str, float], Tensor]:
        """Gain in PSNR over the cleaned input: the mean over held-out clips, and the least."""
        gains, rows = [], []
        for index in range(len(self.held_out_clips)):
            cleaned, truth = self.held_out_clips[index]
            output = network((cleaned * 2 - 1).to(self.device), 1.0, match=False).float().cpu()
            restored = fused((output + 1) / 2, cleaned, True).clamp(0, 1)
            gains.append((psnr(restored, truth) - psnr(cleaned, truth)).mean().item())
            rows.append(torch.stack([cleaned[0], restored[0], truth[0]]))
        return {"dB over what is cleaned": sum(gains) / len(gains), "dB, least": min(gains)}, torch.stack(rows[:12])


def clean_encoder(network: CodeFormer, autoencoder: Path) -> Encoder:
    """Stage I's encoder of clean faces, frozen, from that stage's file or from a checkpoint of the autoencoder.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no encoder of the network's sizes.
    """
    encoder = copy.deepcopy(network.encoder)
    state = read_state(autoencoder)
    try:
        encoder.load_state_dict({key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")})
    except RuntimeError as error:
        raise ValueError(
            f"{autoencoder.name} holds no encoder of the codebook network's sizes; give the autoencoder that this network was made from"
        ) from error
    return encoder.eval().requires_grad_(False)


def restoration_figures(network: CodeFormer, truth: Tensor, device: torch.device, weight: float) -> tuple[dict[str, float], Tensor]:
    """Gains in PSNR (dB) and SSIM over the bicubic baseline under each of the benchmark degradations; and a sheet of some of the faces.

    The output is fused with the input as in restoration (methods/detail_fusion.py). Columns of the sheet: input and output for each degradation,
    then the truth.
    """
    figures: dict[str, float] = {}
    columns = []
    for name in BENCHMARK:
        source = benchmark_input(name, truth, seed=0)
        output = torch.cat([network((part * 2 - 1).to(device), weight, match=False).float().cpu() for part in source.split(8)])
        restored = fused((output + 1) / 2, source).clamp(0, 1)
        figures[f"{name}: dB over the input"] = (psnr(restored, truth).mean() - psnr(source, truth).mean()).item()
        figures[f"{name}: SSIM over the input"] = (ssim(restored, truth).mean() - ssim(source, truth).mean()).item()
        columns += [source, restored]
    return figures, torch.stack([*columns, truth], 1)[:6]


def kaiming_normal(network: nn.Module) -> None:
    """Initialises convolutions and linear layers by Kaiming normal (He et al., 2015) with biases 0 (KEEP, section 4)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def conv_weight(module: nn.Module) -> Tensor:
    """The weight of a convolution, for `adaptive_weight`."""
    assert isinstance(module, nn.Conv2d)
    return module.weight
