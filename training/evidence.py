"""A second training stage for DicFace, ours: its Dirichlet distributions learn how much evidence the input gives for each code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from scipy.stats import spearmanr
from torch import Tensor, nn

from ..atomic import write_tensors
from ..methods.detail_fusion import fused
from ..methods.dicface import SMALL_PRIOR, uncertainty
from ..models.code_prediction import CodeNetwork
from ..models.dicface.network import DicFace, dirichlet_mean
from .data.degradations import BENCHMARK, Blind, benchmark_input
from .data.faces import Faces, Jitter
from .engine import Batch, Stage, generator_for
from .plan import Plan
from .recipe import SMALL_128

EVIDENCE_FILE = "places.safetensors"
"""The evidence of the stills, cached in the work folder because computing it takes minutes."""


@dataclass(frozen=True)
class EvidenceRecipe:
    """Hyperparameters of the evidence stage.

    Attributes:
        plan: the schedule; a batch counts stills.
        stills: number of faces whose evidence is computed before the first step.
        blind: degradations.
        jitter: of the stills, before the damage.
        prior: alpha of the Dirichlet prior.
        observations: n, the evidence of a token restored with error `error`: the number of pixel values it stands for.
        error: RMS error at which the evidence is n, in [0, 1].
        most: largest evidence, as a multiple of n.
        blank, clean: fractions of the stills that are almost pure noise, and undamaged.
        logit_scale: factor on the base network's logits at the start.
        temporal_rate: learning rate of the temporal layers, relative to the plan's.
        validated: number of held-out faces per validation.
    """

    plan: Plan
    stills: int
    blind: Blind = SMALL_128.blind
    jitter: Jitter = field(default_factory=Jitter)
    prior: float = SMALL_PRIOR
    observations: float = 192.0
    error: float = 0.03
    most: float = 4.0
    blank: float = 0.15
    clean: float = 0.15
    logit_scale: float = 12.0
    temporal_rate: float = 0.1
    validated: int = 16


# The prior is the one in the paper's options file; over 512 codes the 1 of its text would outweigh 192 observations.
EVIDENCE_SMALL = EvidenceRecipe(Plan(440, 6, 1e-2, 3e-4, warmup=20, ema=0.97, decay=1e-4, clip=1.0), stills=420)


@dataclass
class EvidenceStage(Stage[DicFace]):
    """Fits alpha = prior + m p(c | x): the Dirichlet posterior after m observations of codes with the base network's probabilities p(c | x).

    The evidence m of a token is the precision with which it is restored: m = n (error / e)^2, e the true RMS error of the restored image there. So
    alpha says how far the image can be trusted; where the input shows nothing it is the prior. The temporal layers and the code head minimise the
    deviance of a Poisson regression, sum_k alpha_k - wanted_k log alpha_k, which is least at the expected counts. The KL of eq. 8 to the same
    distribution was tried: it fits the probabilities but never the sum.
    """

    recipe: EvidenceRecipe
    base: CodeNetwork
    faces: Faces
    held_out: Faces
    device: torch.device

    name = "evidence"

    def start(self, network: DicFace, done: Mapping[str, Path]) -> None:
        self.base = self.base.to(self.device).eval().requires_grad_(False)
        network.requires_grad_(False)
        for part in (network.dir_dist_layers, network.idx_pred_layer):
            part.requires_grad_(True)
        kept = done[self.name].with_name(EVIDENCE_FILE)
        if not kept.is_file():
            with torch.no_grad():
                stills = [self._evidence_of(network, generator_for("still", index)) for index in range(self.recipe.stills)]
            write_tensors({key: torch.cat([still[key] for still in stills]).contiguous() for key in stills[0]}, kept)
        self.evidence = load_file(kept)

    def groups(self, network: DicFace) -> list[dict[str, Any]]:
        return [
            {"params": list(network.dir_dist_layers.parameters()), "scale": self.recipe.temporal_rate},
            {"params": list(network.idx_pred_layer.parameters())},
        ]

    def initialise(self, network: DicFace, generator: torch.Generator) -> None:
        """Starts from the base network's code head, its logits scaled."""
        network.idx_pred_layer.load_state_dict(self.base.idx_pred_layer.state_dict())
        head = network.idx_pred_layer[1]
        assert isinstance(head, nn.Linear)
        with torch.no_grad():
            head.weight.mul_(self.recipe.logit_scale)

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        chosen = torch.randint(len(self.evidence["latent"]), (self.plan.batch,), generator=generator)
        return {key: value[chosen].float() for key, value in self.evidence.items()}

    def _evidence_of(self, network: DicFace, generator: torch.Generator) -> Batch:
        """Latent (1, code_dim, s, s), code probabilities (1, tokens, codes) and squared error of the restoration (1, tokens) of one still."""
        recipe = self.recipe
        (target,) = self.faces.sample(1, recipe.jitter, generator)
        kind = float(torch.rand((), generator=generator))
        if kind < recipe.blank:
            source = mostly_noise(target, generator)
        else:
            source = target if kind < recipe.blank + recipe.clean else recipe.blind.draw(generator)(target, generator)
        seen = source[None].to(self.device)
        latent, features = network.encode(2 * seen - 1)
        probabilities = self.base.log_probs(self.base.encode(2 * seen - 1, ())[0]).exp()
        wrong = (self._restored(network, probabilities, features, seen) - target[None].to(self.device)).square().mean(1)
        error = F.adaptive_avg_pool2d(wrong, network.config.latent_side).flatten(1)
        return {"latent": latent.half().cpu(), "chances": probabilities.half().cpu(), "error": error.cpu()}

    def losses(self, network: DicFace, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        recipe = self.recipe
        alpha = self._alpha(network, batch["latent"])
        counts = recipe.observations * (recipe.error**2 / batch["error"].clamp_min(1e-8)).clamp_max(recipe.most)
        wanted = recipe.prior + counts[..., None] * batch["chances"]
        deviance = (alpha - wanted * alpha.log()).sum(-1) - (wanted - wanted * wanted.log()).sum(-1)
        return {"deviance": deviance.mean() / recipe.observations}

    def _alpha(self, network: DicFace, latent: Tensor) -> Tensor:
        """Dirichlet parameters (B, tokens, codes) of stills, float32."""
        return network.alpha(network.tokens(latent)[:, None])[:, 0].float()

    def _restored(self, network: DicFace, probabilities: Tensor, features: Mapping[int, Tensor], seen: Tensor) -> Tensor:
        """The restorer's output at fidelity 1, (B, 3, S, S) in [0, 1]."""
        return fused((network.decode(probabilities, features).float() + 1) / 2, seen.float()).clamp(0, 1)

    def validate(self, network: DicFace) -> tuple[dict[str, float], Tensor]:
        """Mean uncertainty on held-out stills: clean, under the benchmark degradations, and on noise; for the degradations also the rank
        correlation, over tokens, of uncertainty with the true error at fidelity 1."""
        truth = self.held_out.first(self.recipe.validated)
        noise = torch.stack([mostly_noise(face, generator_for("noise", i), 0.0) for i, face in enumerate(truth)])
        sources = {"clean": truth} | {name: benchmark_input(name, truth, seed=0) for name in BENCHMARK} | {"noise": noise}
        codebook, side = network.quantize.embedding.weight.float(), network.config.latent_side
        figures, maps = {}, []
        for name, source in sources.items():
            seen = source.to(self.device)
            latent, features = network.encode(2 * seen - 1)
            alpha = self._alpha(network, latent)
            uncertainties = uncertainty(alpha, codebook, self.recipe.prior).cpu()
            figures[f"uncertainty, {name}"] = uncertainties.mean().item()
            maps.append(F.interpolate(uncertainties.unflatten(1, (1, side, side)), truth.shape[-2:]).expand_as(truth))
            if name in BENCHMARK:
                result = self._restored(network, dirichlet_mean(alpha), features, seen).cpu()
                error = F.adaptive_avg_pool2d((result - truth).abs().mean(1), side).flatten(1)
                figures[f"{name}: rank correlation with the error"] = float(spearmanr(uncertainties.flatten(), error.flatten()).statistic)
        return figures, torch.stack([truth, *maps], 1)[:6]


def mostly_noise(image: Tensor, generator: torch.Generator, most: float = 0.2) -> Tensor:
    """An image (3, S, S) in [0, 1] replaced by noise of random grain; at most the fraction `most` of its contrast remains."""
    left, grain, depth = torch.rand(3, generator=generator).tolist()
    side = max(8, round(image.shape[-1] / 2 ** (4 * grain)))
    noise = F.interpolate(torch.randn(1, 3, side, side, generator=generator), image.shape[-2:], mode="bicubic", align_corners=False)[0]
    return (0.5 + (0.05 + 0.35 * depth) * noise + max(0.0, 2 * left - 1) * most * (image - 0.5)).clamp(0, 1)
