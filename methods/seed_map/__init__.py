"""Seed-space MAP: video restoration with an image diffusion model as the prior (Wang et al., AAAI 2026), in the paper's notation.

R is the reverse process, D = D1 o D2 the decoder, z the shared seed, r_n = A_n B_n the residuals, A the degradation, Y the observation.
"""

from .conditioning import guides
from .cost import Cost, estimate
from .generator import LatentGenerator, PixelGenerator, SeedGenerator, leading_times
from .optimise import SeedMapResult, Terms, seed_map
from .options import SeedMapOptions
from .report import plot, summary, to_json

__all__ = [
    "Cost",
    "LatentGenerator",
    "PixelGenerator",
    "SeedGenerator",
    "SeedMapOptions",
    "SeedMapResult",
    "Terms",
    "estimate",
    "guides",
    "leading_times",
    "plot",
    "seed_map",
    "summary",
    "to_json",
]
