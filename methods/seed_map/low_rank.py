"""Low-rank residuals of each frame, projected onto a ball (eq. 12 and 13)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...diffusion.rng import seeded_noise


@dataclass
class LowRank:
    """r = A B per channel: A (C, H, k), B (C, k, W), float32 leaves."""

    a: Tensor
    b: Tensor

    @classmethod
    def start(cls, shape: tuple[int, int, int], rank: int, scale: float, device: torch.device, *key: int) -> LowRank:
        """A of standard deviation `scale`, B of zeros: r begins at 0, and its gradient does not (with both at 0 it would stay there)."""
        channels, height, width = shape
        k = min(rank, height, width)
        a = (seeded_noise((channels, height, k), *key) * scale).to(device).requires_grad_()
        return cls(a, torch.zeros(channels, k, width, device=device, requires_grad=True))

    def dense(self) -> Tensor:
        """r, (1, C, H, W)."""
        return (self.a @ self.b)[None]

    @torch.no_grad()
    def norm(self) -> float:
        """||A B|| (Frobenius over all channels) without forming the product: ||AB||^2 = sum_c tr((A^T A)(B B^T))."""
        gram = (self.a.mT @ self.a).cpu().double() * (self.b @ self.b.mT).cpu().double()
        return float(gram.sum().clamp_min(0).sqrt())

    @torch.no_grad()
    def project(self, radius: float) -> None:
        """Eq. 13 read as a ball: where ||A B|| > rho, A and B are scaled by the same factor to ||A B|| = rho.

        The paper's text divides unconditionally; then radius 10 would enlarge residuals, but its Table 8 finds it like radius 1.
        """
        norm = self.norm()
        if norm > radius:
            factor = (radius / norm) ** 0.5
            self.a.mul_(factor)
            self.b.mul_(factor)
