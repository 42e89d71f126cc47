"""The training stages of fine-tuning: their common part (batches, validation, best state, early stopping), and the recipes "codes" and "image"."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..faces.types import CROP
from ..methods.detail_fusion import fused
from ..metrics.fidelity import psnr
from ..metrics.lpips import lpips_or_none
from ..models.tuning import Answer, Use, answer, predicts_codes, train_only
from ..training.data.degradations import HEAVY, NATIVE_128, Blind
from ..training.discriminator import Adversary
from ..training.engine import Batch, Stage, write_weights
from ..training.losses import anchored_pixel_loss
from .checkpointing import checkpoint_blocks
from .dataset import Pairs
from .options import FineTune
from .perceptual import EarlyFeatures

NAME = "fine-tune"
BEST = "best.safetensors"
MAX_VALIDATED_PAIRS = 32
"""Largest number of held-out pairs in a validation; of more, evenly spread ones are taken."""
SHOWN = 4
LOSS, QUALITY = "held-out loss", "held-out dB"


class FineTuneStage(Stage):
    """One recipe on one network.

    Args:
        use: how the network is used once it is loaded.
        pairs: training and validation pairs.
        options: with the recipe of the class.
        folder: where the best state is kept.
        precision: of the run.
        check_interrupt: called before every pass; may raise.

    Attributes:
        before: the held-out figures of the base.
        best: the lowest held-out loss so far, starting with the base's.
        best_step: its step, 0 for the base.
        sheet: (rows, 4, 3, S, S) in [0, 1] of the last validation: input, base's output, current output, target.
    """

    name = NAME
    reals: Sequence[Tensor] | Tensor | None = None
    compared = ""

    def __init__(
        self,
        use: Use,
        pairs: Pairs,
        options: FineTune,
        folder: Path,
        device: torch.device,
        precision: torch.dtype | None = None,
        check_interrupt: Callable[[], None] = lambda: None,
    ) -> None:
        self.use, self.pairs, self.options, self.folder, self.device, self.precision = use, pairs, options, folder, device, precision
        self.plan = options.plan
        self.check_interrupt = check_interrupt
        self.train_pairs, held = options.held_out.split(len(pairs))
        every = -(-len(held) // MAX_VALIDATED_PAIRS)
        self.validation_pairs = held[::every]
        self.before: dict[str, float] = {}
        self.best, self.best_step, self.best_figures, self.idle, self.step = float("inf"), 0, self.before, 0, 0
        self.sheet: Tensor | None = None
        self._initial_output: Tensor | None = None

    @abstractmethod
    def prepare(self, network: nn.Module) -> None:
        """Prepares what the losses need of the base."""

    @abstractmethod
    def terms(self, network: nn.Module, batch: Batch, *, draw: bool) -> tuple[dict[str, Tensor], Tensor | None]:
        """The weighted terms without the adversary's, and the picture if it was drawn anyway or `draw` asks for it."""

    def start(self, network: nn.Module, done: Mapping[str, Path]) -> None:
        train_only(network, self.options.recipe)
        self.prepare(network)
        if self.options.checkpointing:
            checkpoint_blocks(network)
        with torch.inference_mode(), torch.autocast(self.device.type, self.precision, enabled=self.precision is not None):
            self.before, self._initial_output = self._judged(network)

    def initialise(self, network: nn.Module, generator: torch.Generator) -> None:
        self.best, self.best_step, self.best_figures, self.idle = self.before[LOSS], 0, self.before, 0
        write_weights(network, self.folder / BEST)

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        """Pairs in [-1, 1], and "which": twice their number, plus 1 where they are mirrored."""
        options = self.options
        index = torch.randint(len(self.train_pairs), (self.plan.batch,), generator=generator).tolist()
        mirrored = (torch.rand(self.plan.batch, generator=generator) < 0.5 * options.mirror).tolist()
        rehearsed = (torch.rand(self.plan.batch, generator=generator) < options.rehearsal).tolist()
        sources, targets = [], []
        for number, mirror, known in zip((self.train_pairs[i] for i in index), mirrored, rehearsed, strict=True):
            source, target = self.pairs.pair(number)
            if known:
                source = blind_for(target.shape[-1]).draw(generator)(target, generator)
            sources.append(source.flip(-1) if mirror else source)
            targets.append(target.flip(-1) if mirror else target)
        which = torch.tensor([2 * self.train_pairs[i] + mirror for i, mirror in zip(index, mirrored, strict=True)])
        return {"source": torch.stack(sources) * 2 - 1, "target": torch.stack(targets) * 2 - 1, "which": which}

    def losses(self, network: nn.Module, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        self.begin(step, generator)
        return self.terms(network, batch, draw=False)[0]

    def begin(self, step: int, generator: torch.Generator) -> None:
        """Called before every pass; seeds dropout and the like by the run's seed and the step."""
        self.check_interrupt()
        self.step = step + 1
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))

    def validate(self, network: nn.Module) -> tuple[dict[str, float], Tensor]:
        figures, pictures = self._judged(network)
        self.idle += 1
        if figures[LOSS] < self.best:
            self.best, self.best_step, self.best_figures, self.idle = figures[LOSS], self.step, figures, 0
            write_weights(network, self.folder / BEST)
        assert self._initial_output is not None
        rows = self.validation_pairs[:SHOWN]
        sources, targets = (torch.stack([self.pairs.pair(i)[part] for i in rows]) for part in (0, 1))
        self.sheet = torch.stack([sources, self._initial_output[: len(rows)], pictures[: len(rows)], targets], 1)
        return figures, self.sheet

    def finished(self) -> bool:
        return bool(self.options.patience) and self.idle >= self.options.patience

    def extra(self) -> dict[str, Any]:
        own = {"best": self.best, "best step": self.best_step, "best figures": self.best_figures, "idle": self.idle, "step": self.step}
        return own if self.adversary is None else own | {"adversary": self.adversary.state()}

    def restore(self, extra: dict[str, Any]) -> None:
        self.best, self.best_step, self.best_figures = extra["best"], extra["best step"], extra["best figures"]
        self.idle, self.step = extra["idle"], extra["step"]
        if self.adversary is not None:
            self.adversary.restore(extra["adversary"])

    def _judged(self, network: nn.Module) -> tuple[dict[str, float], Tensor]:
        """Held-out loss and PSNR of the restored validation faces, and the first of these faces, (n, 3, S, S) in [0, 1]."""
        sums: dict[str, float] = {}
        pictures: list[Tensor] = []
        size = max(1, self.plan.batch)
        for start in range(0, len(self.validation_pairs), size):
            self.check_interrupt()
            part = self.validation_pairs[start : start + size]
            pairs = [self.pairs.pair(i) for i in part]
            batch = {name: torch.stack([pair[place] for pair in pairs]) for place, name in enumerate(("source", "target"))}
            placed = {name: (images * 2 - 1).to(self.device) for name, images in batch.items()}
            terms, picture = self.terms(network, {**placed, "which": torch.tensor([2 * i for i in part])}, draw=True)
            assert picture is not None
            shown = restored(picture, batch["source"])
            found = {LOSS: sum(float(term) for term in terms.values()), QUALITY: float(psnr(shown, batch["target"]).mean())}
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value * len(part) / len(self.validation_pairs)
            if len(pictures) * size < SHOWN:
                pictures.append(shown)
        return sums, torch.cat(pictures)


def restored(picture: Tensor, source: Tensor) -> Tensor:
    """A network's picture as its restorer would give it at the network's side, (n, 3, S, S) in [0, 1] on the CPU (methods/detail_fusion.py)."""
    image = (picture.detach().float().cpu() + 1) / 2
    return (fused(image.clamp(0, 1), source) if image.shape[-1] < CROP else image).clamp(0, 1)


def blind_for(side: int) -> Blind:
    """The degradation that restorers of this side are first trained on."""
    return NATIVE_128.at(side) if side < CROP else HEAVY.at(side)


class CodeTargets:
    """Cross-entropy of codes and distance of latents to those that a frozen copy of the network finds for the targets.

    Codes of a target never change and are computed once per index. Always in float32: rounding would change which code is nearest.
    """

    def __init__(self, network: Any, device: torch.device) -> None:
        self.frozen = copy.deepcopy(network).eval().requires_grad_(False)
        self.frozen.generator, self.frozen.fuse_convs_dict = nn.Identity(), nn.ModuleDict()
        self.device = device
        self._known: dict[int, Tensor] = {}

    def terms(self, found: Answer, target: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """(token cross-entropy, mean |z - z of the target|^2), without weights.

        Args:
            found: with latent and log_probs.
            target: (B, 3, S, S) in [-1, 1].
            which: (B,), the same number for the same picture.
        """
        assert found.latent is not None and found.log_probs is not None
        index, weights, latent = self._wanted(target, which)
        if index is None:
            entropy = -(weights * found.log_probs).sum(-1).mean()
        else:
            entropy = F.nll_loss(found.log_probs.flatten(0, 1), index.flatten())
        return entropy, (found.latent.float() - latent).square().mean()

    @torch.no_grad()
    def _wanted(self, target: Tensor, which: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        numbers = which.tolist()
        if all(number in self._known for number in numbers):
            index = torch.stack([self._known[number] for number in numbers]).to(self.device, torch.long)
            return index, target.new_empty(0), self.frozen.quantize.lookup(index)
        with torch.autocast(self.device.type, enabled=False):
            found, weights, latent = self.frozen.true_codes(target.float())
        if found is not None:
            self._known.update(zip(numbers, found.to("cpu", torch.int32), strict=True))
        return found, weights, latent


class CodeFineTuneStage(FineTuneStage):
    """L = |z - c|^2 + tokens x CE (pseudo-targets, eq. 13; CodeFormer, eq. 4); codebook, generator and feature transforms stay as they are."""

    def prepare(self, network: nn.Module) -> None:
        self.codes = CodeTargets(network, self.device)

    def terms(self, network: nn.Module, batch: Batch, *, draw: bool) -> tuple[dict[str, Tensor], Tensor | None]:
        found = answer(network, batch["source"], self.use, draw=draw)
        entropy, distance = self.codes.terms(found, batch["target"], batch["which"])
        return {"tokens": self.options.tokens * entropy, "features": self.options.features * distance}, found.picture


ANCHORED_SHARE = 0.85
"""Share of L1 taken on the output with the input's coarse means, as restorers of small networks use it."""


class ImageFineTuneStage(FineTuneStage):
    """L = pixels x L1 + perceptual x LPIPS + adversary x GAN (pseudo-targets, eq. 8); code terms too where the network predicts codes.

    Attributes:
        reals: clean faces (3, S, S) uint8, the discriminator's real samples; None takes the targets.
        width: channels of the discriminator's first convolution.
        compared: the perceptual distance: "lpips", "encoder" or "off".
    """

    compared = "off"
    width = 64

    def prepare(self, network: nn.Module) -> None:
        options = self.options
        self.perceptual: nn.Module | None = None
        self.compared = "off"
        if options.perceptual and options.perceptual_by != "off":
            side = self.pairs.inputs[0].shape[-1]
            self.perceptual = lpips_or_none(self.device) if options.perceptual_by in ("auto", "lpips") else None
            self.compared = "lpips"
            if self.perceptual is None and options.perceptual_by == "lpips":
                raise ValueError(
                    "LPIPS needs the package lpips and its backbone vgg16-397923af.pth in torch's hub folder, and they are not both on this "
                    "machine; install them, or choose encoder or off as the perceptual distance"
                )
            if self.perceptual is None:
                self.perceptual = EarlyFeatures(network, lambda frozen, x: answer(frozen, x, self.use), side)
                self.compared = "encoder"
        self.codes = CodeTargets(network, self.device) if predicts_codes(network) and (options.tokens or options.features) else None
        self.adversary = (
            Adversary(options.adversary, self.plan.rate, self.plan.accumulate, self.device, width=self.width) if options.adversary else None
        )

    def before_step(self, network: nn.Module, step: int, generator: torch.Generator) -> bool:
        if self.adversary is not None:
            self.adversary.begin()
        return False

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        batch = super().batch(step, generator)
        if self.options.adversary and self.reals is not None:
            index = torch.randint(len(self.reals), (self.plan.batch,), generator=generator).tolist()
            batch["real"] = torch.stack([self.reals[i].float() / 127.5 - 1 for i in index])
        return batch

    def losses(self, network: nn.Module, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        self.begin(step, generator)
        terms, picture = self.terms(network, batch, draw=True)
        if self.adversary is not None:
            assert picture is not None
            terms["adversary"] = self.adversary.term(picture, batch.get("real", batch["target"]))
        return terms

    def terms(self, network: nn.Module, batch: Batch, *, draw: bool) -> tuple[dict[str, Tensor], Tensor | None]:
        options, source, target = self.options, batch["source"], batch["target"]
        found = answer(network, source, self.use)
        assert found.picture is not None
        picture = found.picture.float()
        pixels = anchored_pixel_loss(picture, target, source, ANCHORED_SHARE if picture.shape[-1] < CROP else 0.0)
        terms = {"pixels": options.pixels * pixels / 2}  # images in [-1, 1] differ by twice as much as in [0, 1]
        if self.perceptual is not None:
            terms["perceptual"] = options.perceptual * self.perceptual(picture, target).mean()
        if self.codes is not None:
            entropy, distance = self.codes.terms(found, target, batch["which"])
            terms |= {"tokens": options.tokens * entropy, "features": options.features * distance}
        return terms, picture
