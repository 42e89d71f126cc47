"""Fine-tuning by codes: CodeFormer's second stage on footage, towards what the network itself sees in the targets."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.code_prediction import CodeNetwork
from .engine import Batch
from .finetune_networks import Answer, answer, true_codes
from .finetune_stage import FineTuneStage


class CodeTargets:
    """Cross-entropy of codes and distance of latents, towards what a frozen copy of the network finds in the targets.

    Codes of a target never change, so those with an index are found once. Always in float32: rounding would change which code is nearest.
    """

    def __init__(self, network: CodeNetwork, device: torch.device) -> None:
        self.frozen = copy.deepcopy(network).eval().requires_grad_(False)
        self.frozen.generator, self.frozen.fuse_convs_dict = nn.Identity(), nn.ModuleDict()  # type: ignore[assignment]
        self.device = device
        self._known: dict[int, Tensor] = {}

    def terms(self, found: Answer, target: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """(token cross-entropy, mean |z - z of the target|^2), without weights.

        Args:
            found: with latent and chances.
            target: (B, 3, S, S) in [-1, 1].
            which: (B,), the same number for the same picture.
        """
        assert found.latent is not None and found.chances is not None
        index, weights, latent = self._wanted(target, which)
        if index is None:
            entropy = -(weights * found.chances).sum(-1).mean()
        else:
            entropy = F.nll_loss(found.chances.flatten(0, 1), index.flatten())
        return entropy, (found.latent.float() - latent).square().mean()

    @torch.no_grad()
    def _wanted(self, target: Tensor, which: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        numbers = which.tolist()
        if all(number in self._known for number in numbers):
            index = torch.stack([self._known[number] for number in numbers]).to(self.device, torch.long)
            return index, target.new_empty(0), self.frozen.quantize.lookup(index)
        with torch.autocast(self.device.type, enabled=False):
            found, weights, latent = true_codes(self.frozen, target.float())
        if found is not None:
            self._known.update(zip(numbers, found.to("cpu", torch.int32), strict=True))
        return found, weights, latent


class CodeStage(FineTuneStage):
    """L = |z - c|^2 + tokens x CE (pseudo-targets, eq. 13; CodeFormer, eq. 4); codebook, generator and feature transforms stay as they are."""

    def prepare(self, network: nn.Module) -> None:
        assert isinstance(network, CodeNetwork)
        self.codes = CodeTargets(network, self.device)

    def terms(self, network: nn.Module, batch: Batch, *, draw: bool) -> tuple[dict[str, Tensor], Tensor | None]:
        found = answer(network, batch["source"], self.use, draw=draw)
        entropy, distance = self.codes.terms(found, batch["target"], batch["which"])
        return {"tokens": self.options.tokens * entropy, "features": self.options.features * distance}, found.picture
