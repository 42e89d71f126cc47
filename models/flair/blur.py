"""FLAIR's network for blur and JPEG: the UNet of Dhariwal and Nichol (2021) with temporal layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from ..adm import timestep_embedding
from .attention import SpatialAttention, TemporalAttention
from .convolution import FrameConv, numbered, zero_initialised
from .norm import ClipNorm
from .recurrence import Recurrence
from .residual import GROUPS, ResBlock
from .spynet import SPyNet
from .temporal import Temporal
from .unet import VideoConfig, VideoUNet
from .window import Size, Window, joined


@dataclass(frozen=True)
class BlurConfig(VideoConfig):
    """Sizes of the network; the defaults are the published one's. Levels with attention across frames have it within them too."""

    side: int = 512
    channels: int = 128
    multipliers: tuple[float, ...] = (0.5, 1, 1, 2, 2, 4, 4)
    res_blocks: int = 2
    attention: frozenset[int] = frozenset({4, 5, 6})
    recurrence: frozenset[int] = frozenset({0, 1})
    span: int = 5
    head: int = 64
    takes_noise_level: ClassVar[bool] = False

    def network(self) -> BlurUNet:
        """A network of these sizes, with PyTorch's own initialisation."""
        return BlurUNet(self)

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Self:
        def block(name: str) -> tuple[int, bool, bool] | None:
            if f"{name}.1.wrapped_module.in_layers.0.wrapped_module.weight" not in state:
                return None
            carries = any(f"{name}.{place}.wrapped_module.conv_last.weight" in state for place in (2, 4))
            return len(state[f"{name}.0.in_layers.2.wrapped_module.weight"]), f"{name}.2.qkv.weight" in state, carries

        channels = state["time_embed.0.weight"].shape[1]
        last = max(int(key.split(".")[1]) for key in state if key.startswith("input_blocks."))
        return cls.of_blocks(channels, (block(f"input_blocks.{number}") for number in range(1, 1 + last)))


class BlurUNet(VideoUNet):
    """The UNet of guided diffusion with FLAIR's temporal layers. `level` is the timestep t in 0 .. 999; x_t comes before the condition.

    What the last convolution says of the reverse step's variance is not computed, as FLAIR's sampler does not use it.
    """

    config_type = BlurConfig
    config: BlurConfig

    def __init__(self, config: BlurConfig | None = None) -> None:
        super().__init__(config)
        config = self.config
        unit, wide = config.channels, 4 * config.channels
        self.time_embed = numbered({0: nn.Linear(unit, wide), 2: nn.Linear(wide, wide)})
        self.spynet = SPyNet()
        width = first = config.widths[0]
        inputs: list[nn.ModuleList] = [nn.ModuleList([FrameConv(6, width)])]
        skips = [width]
        for level, out in enumerate(config.widths):
            for _ in range(config.res_blocks):
                inputs.append(nn.ModuleList(self._block(width, out, level)))
                width = out
                skips.append(width)
            if level < self.levels - 1:
                inputs.append(nn.ModuleList([ResBlock(width, width, wide, change="down")]))
                skips.append(width)
        self.input_blocks = nn.ModuleList(inputs)
        self.middle_block = nn.ModuleList(
            [
                ResBlock(width, width, wide),
                Temporal(ResBlock(width, width, wide, kernel=3)),
                SpatialAttention(width, config.head, wide),
                Temporal(TemporalAttention(width, config.span, config.head)),
                ResBlock(width, width, wide),
                Temporal(ResBlock(width, width, wide, kernel=3)),
            ]
        )
        outputs: list[nn.ModuleList] = []
        for level, out in reversed(list(enumerate(config.widths))):
            for number in range(config.res_blocks + 1):
                layers = self._block(width + skips.pop(), out, level)
                width = out
                if level and number == config.res_blocks:
                    layers.append(ResBlock(width, width, wide, change="up"))
                outputs.append(nn.ModuleList(layers))
        self.output_blocks = nn.ModuleList(outputs)
        self.out = numbered({0: ClipNorm(GROUPS, width), 2: zero_initialised(FrameConv(first, 6))})

    def _block(self, width_in: int, width: int, level: int) -> list[nn.Module]:
        config, wide = self.config, 4 * self.config.channels
        layers: list[nn.Module] = [ResBlock(width_in, width, wide), Temporal(ResBlock(width, width, wide, kernel=3))]
        if level in config.attention:
            layers += [SpatialAttention(width, config.head), Temporal(TemporalAttention(width, config.span, config.head))]
        if level in config.recurrence:
            layers.append(Temporal(Recurrence(width, 10.0)))
        return layers

    def torso(self) -> tuple[nn.Module, ...]:
        return self.input_blocks, self.middle_block, self.output_blocks

    def joint(self, x_t: Tensor, condition: Tensor) -> Tensor:
        return torch.cat([x_t, condition], 1)

    def embedding(self, level: Tensor) -> Tensor:
        sin, cos = timestep_embedding(level, self.config.channels)
        return self.time_embed["2"](F.silu(self.time_embed["0"](torch.cat([cos, sin], 1))))

    def guide(self, frames: Tensor, size: Size) -> Tensor:
        return frames if tuple(frames.shape[-2:]) == size else F.interpolate(frames, size, mode="bicubic", align_corners=False)

    def predict(self, x: Tensor, window: Window) -> Tensor:
        skips = []
        for block in self.input_blocks:
            for layer in block.children():
                x = layer(x, window)
            skips.append(x)
        for layer in self.middle_block:
            x = layer(x, window)
        for block in self.output_blocks:
            x = torch.cat([x, skips.pop()], 1)
            for layer in block.children():  # one by one: what went into the first is let go before the second
                x = layer(x, window)
        norm, last = self.out["0"], self.out["2"].conv
        read = norm.read(x, window, dtype=last.weight.dtype)
        return joined((F.conv2d(read(part), last.weight[:3], last.bias[:3], padding=1) for part in window.parts(x)), len(x))
