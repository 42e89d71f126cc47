"""Small generators for the tests of seed-space MAP: random weights, the layout of the real ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fvr.diffusion.schedule import linear_schedule
from fvr.methods.seed_map.generator import LatentGenerator, leading_times
from fvr.priors.base import Prior

CHANNELS = 8
SIDE = 16


class TinyDecoder(nn.Module):
    """(n, 4, 4, 4) to (n, 8, 16, 16): two doublings, GroupNorm and SiLU last, as Stable Diffusion's decoder before its last convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(4, CHANNELS, 3, padding=1),
            nn.SiLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
            nn.SiLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
            nn.GroupNorm(2, CHANNELS),
            nn.SiLU(),
        )
        self.conv_out = nn.Conv2d(CHANNELS, 3, 3, padding=1)


def tiny_parts(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, TinyDecoder, list[float]]:
    """A denoiser of latents, a decoder, and the levels of four steps."""
    torch.manual_seed(0)
    denoiser = nn.Sequential(nn.Conv2d(4, 12, 3, padding=1), nn.Tanh(), nn.Conv2d(12, 4, 3, padding=1))
    schedule = linear_schedule()
    return (
        denoiser.to(dtype).requires_grad_(False),
        TinyDecoder().to(dtype).requires_grad_(False),
        [schedule.alpha_bar(t) for t in leading_times(1000, 4)],
    )


def tiny_latent(size: tuple[int, int] = (SIDE, SIDE)) -> LatentGenerator:
    denoiser, decoder, alpha_bars = tiny_parts(torch.float32)
    return LatentGenerator(
        lambda x, i: x * alpha_bars[i] ** 0.5 + 0.3 * denoiser(x),
        alpha_bars,
        decoder.body,
        decoder.conv_out.weight,
        decoder.conv_out.bias,
        seed_shape=(1, 4, SIDE // 4, SIDE // 4),
        feature_shape=(CHANNELS, SIDE, SIDE),
        size=size,
    )


class TinyUNet(Prior):
    """An eps-predicting pixel network of three convolutions with a bottleneck."""

    def __init__(self, native_size: int | None = None) -> None:
        torch.manual_seed(1)
        self.schedule = linear_schedule()
        self.native_size = native_size
        self.down = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.up = nn.Conv2d(8, 3, 3, padding=1)
        for layer in (self.down, self.up):
            layer.requires_grad_(False)

    def predict_x0(self, x_t: Tensor, t: int, condition: Tensor | None = None) -> Tensor:
        alpha_bar = self.schedule.alpha_bar(t)
        eps = (1 - alpha_bar) ** 0.5 * x_t + 0.1 * nn.functional.interpolate(self.up(torch.tanh(self.down(x_t))), scale_factor=2.0)
        return (x_t - (1 - alpha_bar) ** 0.5 * eps) / alpha_bar**0.5
