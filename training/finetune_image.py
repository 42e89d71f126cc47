"""Fine-tuning by pictures: L1, a perceptual distance and an adversary, for any network that restores a face."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..faces.types import CROP
from ..methods.detail_fusion import anchored
from ..models.code_prediction import CodeNetwork
from .discriminator import Adversary
from .engine import Batch
from .finetune_codes import CodeTargets
from .finetune_features import EarlyFeatures
from .finetune_networks import answer
from .finetune_stage import FineTuneStage
from .losses import lpips_or_none, pixel_loss

ANCHORED = 0.85
"""Share of L1 that looks at the picture as the restorer of a small network will use it, with the input's coarse means."""


class ImageStage(FineTuneStage):
    """L = pixels x L1 + perceptual x LPIPS + adversary x GAN (pseudo-targets, eq. 8); code terms too where the network predicts codes.

    Attributes:
        reals: clean faces (3, S, S) uint8 that the discriminator takes for real; the targets if there are none (None).
        width: the discriminator's, of its first convolution.
        compared: what the perceptual distance is: "lpips", "encoder" or "off".
    """

    reals: Sequence[Tensor] | Tensor | None = None
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
        self.codes = CodeTargets(network, self.device) if isinstance(network, CodeNetwork) and (options.tokens or options.features) else None
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
        share = ANCHORED if picture.shape[-1] < CROP else 0.0
        pixels = (1 - share) * pixel_loss(picture, target)
        if share:
            pixels = pixels + share * pixel_loss(anchored(picture, source), target)
        terms = {"pixels": options.pixels * pixels / 2}  # images in [-1, 1] differ by twice as much as in [0, 1]
        if self.perceptual is not None:
            terms["perceptual"] = options.perceptual * self.perceptual(picture, target).mean()
        if self.codes is not None:
            entropy, distance = self.codes.terms(found, target, batch["which"])
            terms |= {"tokens": options.tokens * entropy, "features": options.features * distance}
        return terms, picture

    def extra(self) -> dict[str, Any]:
        return {**super().extra(), **({"adversary": self.adversary.state()} if self.adversary is not None else {})}

    def restore(self, extra: dict[str, Any]) -> None:
        super().restore(extra)
        if self.adversary is not None:
            self.adversary.restore(extra["adversary"])
