"""A diffusion prior for frames of any size from a network for small ones: coarse scales by the network, finer ones by the prior without weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..diffusion.schedule import linear_schedule
from ..resampling import interpolated, pooled
from .base import Prior
from .flair_video import FlairPrior
from .wiener import SCALES, denoise


class FineScales(nn.Module):
    """The prior without weights as a module, so that hooks between the layers of networks (for interruption) also run between its frames."""

    def forward(self, noisy: Tensor, sigma: float, pilot: Tensor | None, scales: int) -> Tensor:
        """See wiener.denoise."""
        return denoise(noisy, sigma, pilot, scales)


class PyramidPrior(Prior):
    """E[x_0 | x_t, c] on S x S frames by a network of side s, S = f s.

    Averaged over f x f pixels, x_t / sqrt(alpha_bar_t) = x_0 + sigma_t n is the averaged face plus white noise of deviation sigma_t / f, which the
    network can denoise as a cleaner step. Its estimate replaces the coarse means of the Gaussian prior's:

        x = D(x_t, c) + up(N(mean(x_t), mean(c); sigma_t / f) - mean(D(x_t, c)))

    so that each band of frequencies comes from the prior that knows it best. Frames of side s or smaller are left to the network alone.

    Args:
        coarse: one of FLAIR's networks, told the noise level as a real number (the bicubic one).
    """

    def __init__(self, coarse: FlairPrior) -> None:
        self.coarse = coarse
        self.fine = FineScales()
        self.schedule = linear_schedule()
        self.temporal = coarse.temporal
        self.conditional = coarse.conditional
        self.upsampling, self.multiple = coarse.upsampling, coarse.multiple

    @property
    def network(self) -> Any:
        """The network, for memory management."""
        return self.coarse.network

    def native(self) -> FlairPrior:
        return self.coarse

    def scale_at(self, height: int, width: int) -> int:
        return max(1, min(height, width) // self.network.config.side)

    def working_bytes(self, frames: int, height: int, width: int) -> int:
        scale = self.scale_at(height, width)
        return self.coarse.working_bytes(frames, height // scale, width // scale)

    def predict_x0(self, x_t: Tensor, t: int, condition: Tensor | None = None) -> Tensor:
        """See Prior; frames (N, 3, H, W) are one window, H and W multiples of the network's side or of its `multiple`.

        Raises:
            ValueError: if the frames do not fit the network.
        """
        sigma = self.schedule.sigma(t)
        noisy = x_t / self.schedule.alpha_bar(t) ** 0.5
        side = self.coarse.network.config.side
        factor = min(x_t.shape[-2:]) // side
        if factor < 2:
            return self.coarse.denoise(noisy, sigma, condition)
        if any(length % factor for length in x_t.shape[-2:]):
            raise ValueError(f"a prior of side {side} takes frames whose sides are multiples of {factor}, got {x_t.shape[-2]} x {x_t.shape[-1]}")
        few = None if condition is None else pooled(condition, factor)
        coarse = self.coarse.denoise(pooled(noisy, factor), sigma / factor, few)
        fine = x_t.new_empty(x_t.shape)
        scales = SCALES if condition is None else min(factor.bit_length() - 1, SCALES)  # the network answers for what is coarser
        for i in range(len(x_t)):  # frames do not influence each other here, and one at a time is kinder to caches
            fine[i : i + 1] = self.fine(noisy[i : i + 1], sigma, None if condition is None else condition[i : i + 1], scales)
        step = interpolated(coarse - pooled(fine, factor), (x_t.shape[-2], x_t.shape[-1]), "bicubic")
        return fine + step
