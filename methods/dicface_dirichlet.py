"""Dirichlet distributions over the codebook: reproducible samples, and how far a sample may stray."""

from __future__ import annotations

import torch
from torch import Tensor

from .seeds import seeded_noise


def dirichlet_sample(alpha: Tensor, *key: int) -> Tensor:
    """w ~ Dir(alpha) along the last axis: w_k = g_k / sum g, g_k ~ Gamma(alpha_k, 1).

    Drawn on the CPU in float64, a pure function of alpha and of the integers of `key`, whatever the device.
    """
    generator = torch.Generator().manual_seed(int(seeded_noise((2,), *key).view(torch.int64)))
    gamma = torch._standard_gamma(alpha.detach().cpu().double(), generator)
    return (gamma / gamma.sum(-1, keepdim=True)).to(alpha)


def code_variance(alpha: Tensor, codebook: Tensor) -> Tensor:
    """tr Cov[v] of v = sum_k w_k c_k, w ~ Dir(alpha): (sum_k p_k |c_k|^2 - |sum_k p_k c_k|^2) / (A + 1), p = alpha / A, A = sum_k alpha_k.

    Args:
        alpha: (..., K).
        codebook: (K, code_dim), the c_k.

    Returns:
        (...), in squared units of the codes.
    """
    total = alpha.sum(-1)
    mean = alpha / total[..., None]
    entries = codebook - codebook.mean(0)  # variance does not see a shift; rounding does
    spread = mean @ entries.square().sum(-1) - (mean @ entries).square().sum(-1)
    return spread.clamp_min(0) / (total + 1)


def uncertainty(alpha: Tensor, codebook: Tensor) -> Tensor:
    """Where the network invents: u = V / (V + V0) in [0, 1], V the code's variance (code_variance), V0 that of the prior Dir(1).

    1/2 means as undecided as the prior, which the paper's network was held to (alpha = 1, eq. 8): the frames said nothing about this place.
    Towards 0 the input settles the code; above 1/2 few, mutually distant codes compete and a sample takes one of them. The variance is that
    of what the generator gets, so a firm blend of similar codes counts as certain; the entropy of the mean, which counts codes without
    asking how far apart they are, would call it doubtful.
    """
    variance = code_variance(alpha, codebook)
    prior = code_variance(torch.ones_like(alpha[..., :1, :]), codebook)
    return variance / (variance + prior)
