"""The losses of the codebook networks: pixels, codes, features, an adversary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Dirichlet, kl_divergence

from ..methods.detail_fusion import anchored
from ..models.vq import Codebook, Encoder


def pixel_loss(output: Tensor, target: Tensor) -> Tensor:
    """mean |output - target|, images in [-1, 1]; what every stage of CodeFormer, KEEP and DicFace uses."""
    return (output.float() - target.float()).abs().mean()


def anchored_pixel_loss(output: Tensor, target: Tensor, source: Tensor, share: float) -> Tensor:
    """(1 - share) L1(output) + share L1(output with the source's coarse means, `methods.detail_fusion.anchored`), images in [-1, 1]."""
    loss = (1 - share) * pixel_loss(output, target)
    return loss + share * pixel_loss(anchored(output, source), target) if share else loss


def quantised(latent: Tensor, codebook: Codebook, commitment: float = 0.25) -> tuple[Tensor, Tensor, Tensor]:
    """The latent's nearest codes with straight-through gradient, the codebook and commitment loss, and the index.

    Loss (VQGAN; CodeFormer, eq. 1): |sg(z) - c|^2 + commitment |z - sg(c)|^2, means over all values.

    Args:
        latent: (B, code_dim, s, s).

    Returns:
        codes (B, code_dim, s, s), the scalar loss, index (B, tokens).
    """
    latent = latent.float()
    with torch.no_grad():
        index = codebook.nearest(latent)
    codes = codebook.lookup(index)
    loss = (codes - latent.detach()).square().mean() + commitment * (latent - codes.detach()).square().mean()
    return latent + (codes - latent).detach(), loss, index


def code_losses(logits: Tensor, latent: Tensor, index: Tensor, codebook: Codebook) -> tuple[Tensor, Tensor]:
    """Token cross-entropy, and |z - sg(c)|^2 with c the codes of the clean face (CodeFormer, eq. 3, without their weights).

    Args:
        logits: (B, tokens, codes).
        latent: (B, code_dim, s, s), the degraded face's.
        index: (B, tokens), the clean face's codes.
    """
    entropy = F.cross_entropy(logits.float().flatten(0, 1), index.flatten())
    with torch.no_grad():
        codes = codebook.lookup(index)
    return entropy, (latent.float() - codes).square().mean()


def dirichlet_divergence(alpha: Tensor, prior: float) -> Tensor:
    """KL(Dir(alpha) || Dir(prior, ..., prior)), mean over tokens; alpha (..., codes) > 0 (DicFace, eq. 8, with the digamma of sum alpha)."""
    alpha = alpha.float()
    return kl_divergence(Dirichlet(alpha), Dirichlet(torch.full_like(alpha, prior))).mean()


class FeatureDistance(nn.Module):
    """sum over maps of mean |f(x) / |f(x)| - f(y) / |f(y)||^2 in the features of a frozen network: LPIPS without its weights, and no downloads."""

    def maps(self, x: Tensor) -> Iterable[Tensor]:
        """The features (B, C, s, s) of images (B, 3, S, S) in [-1, 1]."""
        raise NotImplementedError

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self._directions(target)
        pairs = zip(self._directions(output), wanted, strict=True)
        return torch.stack([(got - want).square().sum(1).mean() for got, want in pairs]).sum()

    def _directions(self, x: Tensor) -> list[Tensor]:
        return [F.normalize(feature.float(), dim=1, eps=1e-6) for feature in self.maps(x)]


class EncoderFeatures(FeatureDistance):
    """The distance in the feature maps of some sides of a frozen face encoder."""

    def __init__(self, encoder: Encoder, sides: Sequence[int]) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()
        self.sides = tuple(sides)

    def maps(self, x: Tensor) -> Iterable[Tensor]:
        found = self.encoder(x, self.sides)[1]
        return [found[side] for side in self.sides]


class PatchDiscriminator(nn.Module):
    """PatchGAN discriminator (Isola et al., 2017): (B, 3, S, S) to a map of logits, after `layers` halvings of the side."""

    def __init__(self, width: int = 64, layers: int = 4) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        now = width
        for level in range(1, layers + 1):
            wide = width * min(2**level, 8)
            stride = 2 if level < layers else 1
            blocks += [nn.Conv2d(now, wide, 4, stride, 1, bias=False), nn.BatchNorm2d(wide), nn.LeakyReLU(0.2)]
            now = wide
        self.body = nn.Sequential(*blocks, nn.Conv2d(now, 1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """mean max(0, 1 - D(x)) + mean max(0, 1 + D(y))."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def adaptive_weight(faithful: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """|d faithful / d last| / (|d adversarial / d last| + 1e-4), at most 1 (VQGAN, eq. 7): keeps the adversary from overruling the pixels."""
    first = torch.autograd.grad(faithful, last, retain_graph=True)[0].norm()
    second = torch.autograd.grad(adversarial, last, retain_graph=True)[0].norm()
    return (first / (second + 1e-4)).clamp(0, 1).detach()
