"""FLAIR's network for bicubic downsampling by 8 and 16: an SR3 UNet (Saharia et al. 2022) with gated temporal layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from ..adm import timestep_embedding
from .attention import TemporalAttention
from .convolution import FrameConv, numbered, upsampled_nearest
from .recurrence import Recurrence
from .residual import NoiseBlock, NormedConv, ResBlock
from .spynet import SPyNet
from .temporal import Gated
from .unet import VideoConfig, VideoUNet
from .window import Size, Window


@dataclass(frozen=True)
class BicubicConfig(VideoConfig):
    """Sizes of the network; the defaults are the published one's.

    Attributes:
        groups: of the normalisations in 2-D blocks; not visible in weights.
    """

    side: int = 512
    channels: int = 64
    multipliers: tuple[float, ...] = (1, 2, 4, 8, 16)
    res_blocks: int = 1
    attention: frozenset[int] = frozenset({3, 4})
    recurrence: frozenset[int] = frozenset({0, 1})
    span: int = 7
    head: int = 64
    groups: int = 16
    takes_noise_level: ClassVar[bool] = True

    def network(self) -> BicubicUNet:
        """A network of these sizes, with PyTorch's own initialisation."""
        return BicubicUNet(self)

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Self:
        def block(name: str) -> tuple[int, bool, bool] | None:
            if f"{name}.wrapped_module.conv.weight" in state:
                return None
            width = len(state[f"{name}.res_block.block1.block.3.wrapped_module.weight"])
            return width, f"{name}.temp_attn.emb_layers.1.weight" in state, f"{name}.vsrpp.emb_layers.1.weight" in state

        channels = len(state["downs.0.wrapped_module.bias"])
        last = max(int(key.split(".")[1]) for key in state if key.startswith("downs."))
        return cls.of_blocks(channels, (block(f"downs.{number}") for number in range(1, 1 + last)))


class BicubicBlock(nn.Module):
    """A residual block of the image network, then the temporal layers of its level; run in order, one after the other."""

    takes_skip = True

    def __init__(self, width_in: int, width: int, config: BicubicConfig, *, attention: bool, spynet: SPyNet | None) -> None:
        super().__init__()
        embedding = config.channels
        self.res_block = NoiseBlock(width_in, width, embedding, config.groups)
        self.conv_3d = Gated(ResBlock(width, width, embedding, kernel=1, film=False), width, embedding)
        if attention:
            self.temp_attn = Gated(TemporalAttention(width, config.span, config.head), width, embedding)
        if spynet is not None:
            self.vsrpp = Gated(Recurrence(width, 5.0, spynet), width, embedding)


class Upsample(FrameConv):
    """Every value repeated 2 x 2, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, resampling=True)

    def forward(self, x: Tensor, window: Window) -> Tensor:
        return self.over(x.__getitem__, x, window, upsampled_nearest, 4)


class BicubicUNet(VideoUNet):
    """SR3's UNet with FLAIR's temporal layers. `level` is sqrt(alpha_bar_t), a continuous noise level in (0, 1); the condition comes before x_t."""

    config_type = BicubicConfig
    config: BicubicConfig

    def __init__(self, config: BicubicConfig | None = None) -> None:
        super().__init__(config)
        config = self.config
        spynet = SPyNet()
        embedding = config.channels
        self.noise_level_mlp = numbered({1: nn.Linear(embedding, 4 * embedding), 3: nn.Linear(4 * embedding, embedding)})

        def block(width_in: int, width: int, level: int) -> BicubicBlock:
            carries = spynet if level in config.recurrence else None
            return BicubicBlock(width_in, width, config, attention=level in config.attention, spynet=carries)

        downs: list[nn.Module] = [FrameConv(6, config.channels)]
        skips = [config.channels]
        for level, width in enumerate(config.widths):
            for _ in range(config.res_blocks):
                downs.append(block(skips[-1], width, level))
                skips.append(width)
            if level < self.levels - 1:
                downs.append(FrameConv(width, width, stride=2, resampling=True))
                skips.append(width)
        self.downs = nn.ModuleList(downs)
        width = config.widths[-1]
        self.mid = nn.ModuleList(BicubicBlock(width, width, config, attention=True, spynet=None) for _ in range(2))
        ups: list[nn.Module] = []
        for level, out in reversed(list(enumerate(config.widths))):
            for _ in range(config.res_blocks + 1):
                ups.append(block(width + skips.pop(), out, level))
                width = out
            if level:
                ups.append(Upsample(width))
        self.ups = nn.ModuleList(ups)
        self.final_conv = NormedConv(config.groups, width, 3)

    def torso(self) -> tuple[nn.Module, ...]:
        return self.downs, self.mid, self.ups

    def joint(self, x_t: Tensor, condition: Tensor) -> Tensor:
        return torch.cat([condition, x_t], 1)

    def embedding(self, level: Tensor) -> Tensor:
        first, second = self.noise_level_mlp["1"], self.noise_level_mlp["3"]
        return second(F.silu(first(torch.cat(timestep_embedding(level, self.config.channels), 1))))

    def guide(self, frames: Tensor, size: Size) -> Tensor:
        if tuple(frames.shape[-2:]) == size:
            return frames
        return F.interpolate(frames, size, mode="bilinear", align_corners=False, antialias=True)

    def predict(self, x: Tensor, window: Window) -> Tensor:
        skips = []
        for block in self.downs:
            for layer in _layers(block):
                x = layer(x, window)
            skips.append(x)
        for block in self.mid:
            for layer in _layers(block):
                x = layer(x, window)
        for block in self.ups:
            if getattr(block, "takes_skip", False):
                x = torch.cat([x, skips.pop()], 1)
            for layer in _layers(block):  # here rather than in the block: what went into the first is let go before the second
                x = layer(x, window)
        return self.final_conv(x, window)


def _layers(block: nn.Module) -> Iterable[nn.Module]:
    return block.children() if getattr(block, "takes_skip", False) else (block,)
