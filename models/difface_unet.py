"""DifFace's unconditional diffusion network for FFHQ faces (Yue and Loy, TPAMI 2024): guided diffusion's UNet with blocks counted per level.

Parameter names are those of the published checkpoint (iddpm_ffhq512_ema500000.pth: 159.8 million parameters, 512 x 512).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .adm import Attention, Downsample, EmbeddedSequential, ResBlock, Upsample, group_norm, timestep_embedding


@dataclass(frozen=True)
class DifFaceConfig:
    """Sizes of the network; the defaults are the published ones. Level 0 is the image's, each further one has half the side.

    Attributes:
        channels: width of the first convolution, a multiple of 32.
        multipliers: width of each level in units of `channels`.
        res_blocks: residual blocks of each level on the way down; the way up has one more.
        attended: levels whose residual blocks are followed by self-attention; the middle always has it.
        head: channels of an attention head.
        inputs: channels of the input: 3, or 6 with a condition beside the noisy frame.
        outputs: 3 for the noise alone, 6 with the variance channels of Nichol and Dhariwal (2021).
    """

    channels: int = 32
    multipliers: tuple[int, ...] = (1, 2, 4, 8, 8, 16, 16)
    res_blocks: tuple[int, ...] = (1, 2, 2, 2, 2, 3, 4)
    attended: tuple[int, ...] = (4, 5, 6)
    head: int = 64
    inputs: int = 3
    outputs: int = 6

    @property
    def levels(self) -> int:
        return len(self.multipliers)

    @property
    def multiple(self) -> int:
        """What the sides of a frame must be a multiple of."""
        return 1 << (self.levels - 1)

    @property
    def side(self) -> int:
        """The side of the frames it was trained on, by rule, as weights do not show it: 8 pixels at the deepest level, but at least 64."""
        return max(64, 8 * self.multiple)

    def width(self, level: int) -> int:
        """Channels of the feature maps of a level."""
        return self.channels * self.multipliers[level]

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> DifFaceConfig:
        """The configuration that a state dict was made with; heads, which weights do not show, have 64 channels, as published, but are two at least.

        Raises:
            KeyError: if it holds no such network.
        """
        channels, inputs = state["input_blocks.0.0.weight"].shape[:2]
        widths: list[list[int]] = [[]]
        attended: list[int] = []
        for index in range(1, len(state)):
            if f"input_blocks.{index}.0.op.weight" in state:
                widths.append([])
            elif f"input_blocks.{index}.0.in_layers.2.weight" in state:
                widths[-1].append(len(state[f"input_blocks.{index}.0.in_layers.2.weight"]))
                if f"input_blocks.{index}.1.qkv.weight" in state and len(widths) - 1 not in attended:
                    attended.append(len(widths) - 1)
            else:
                break
        narrowest = min([len(state["middle_block.1.norm.weight"]), *(widths[level][0] for level in attended)])
        return cls(
            channels=channels,
            multipliers=tuple(level[0] // channels for level in widths),
            res_blocks=tuple(len(level) for level in widths),
            attended=tuple(attended),
            head=min(64, narrowest // 2),
            inputs=inputs,
            outputs=len(state["out.2.weight"]),
        )


class DifFaceUNet(nn.Module):
    """The noise in x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise, for frames of any size that is a multiple of `config.multiple`."""

    def __init__(self, config: DifFaceConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DifFaceConfig()
        embedding = 4 * config.channels
        self.time_embed = nn.Sequential(nn.Linear(config.channels, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        width = config.width(0)
        self.input_blocks = nn.ModuleList([EmbeddedSequential(nn.Conv2d(config.inputs, width, 3, padding=1))])
        passed = [width]  # widths of what the way up gets from the way down
        for level in range(config.levels):
            for _ in range(config.res_blocks[level]):
                self.input_blocks.append(self._stage(width, level))
                width = config.width(level)
                passed.append(width)
            if level < config.levels - 1:
                self.input_blocks.append(EmbeddedSequential(Downsample(width)))
                passed.append(width)
        self.middle_block = EmbeddedSequential(ResBlock(width, width, embedding), Attention(width, config.head), ResBlock(width, width, embedding))
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(config.levels)):
            for number in range(config.res_blocks[level] + 1):
                stage = self._stage(width + passed.pop(), level)
                width = config.width(level)
                if level and number == config.res_blocks[level]:
                    stage.append(Upsample(width))
                self.output_blocks.append(stage)
        self.out = nn.Sequential(group_norm(width), nn.SiLU(inplace=True), nn.Conv2d(width, config.outputs, 3, padding=1))

    def _stage(self, width_in: int, level: int) -> EmbeddedSequential:
        width = self.config.width(level)
        block = ResBlock(width_in, width, 4 * self.config.channels)
        return EmbeddedSequential(block, Attention(width, self.config.head)) if level in self.config.attended else EmbeddedSequential(block)

    @classmethod
    def of(cls, state: Mapping[str, Tensor], config: DifFaceConfig | None = None) -> DifFaceUNet:
        """The network with the sizes and the weights of a flat state dict, in float32 and eval mode.

        Args:
            config: its sizes; None reads them from the weights, see DifFaceConfig.of.

        Raises:
            KeyError, RuntimeError: if the weights are not such a network.
        """
        with torch.device("meta"):
            network = cls(DifFaceConfig.of(state) if config is None else config)
        network.to_empty(device="cpu").load_state_dict(dict(state))
        return network.eval()

    def forward(self, x: Tensor, t: Tensor | int, *, variance: bool = False) -> Tensor:
        """The noise in x, float32 (N, 3, H, W); with `variance` all of the network's channels, (N, outputs, H, W).

        Args:
            x: (N, inputs, H, W) in the [-1, 1] range of clean frames; a condition, where the network has one, follows the noisy frame.
            t: steps of the training schedule, (N,) or one for all.

        Raises:
            ValueError: if H or W is no multiple of `config.multiple`, or the number of channels is not `config.inputs`.
        """
        self._check(x)
        dtype = next(self.parameters()).dtype
        steps = torch.as_tensor(t, device=x.device).reshape(-1).expand(len(x))
        sin, cos = timestep_embedding(steps, self.config.channels)
        emb = self.time_embed(torch.cat([cos, sin], 1).to(dtype))
        h = x.to(dtype)
        passed = []
        for stage in self.input_blocks:
            h = stage(h, emb)
            passed.append(h)
        h = self.middle_block(h, emb)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, passed.pop()], 1), emb)
        norm, activate, last = self.out
        assert isinstance(last, nn.Conv2d)
        h = activate(norm(h))
        if variance or self.config.outputs == 3:
            return last(h).float()
        return F.conv2d(h, last.weight[:3], None if last.bias is None else last.bias[:3], padding=1).float()

    def working_bytes(self, frames: int, height: int, width: int) -> int:
        """About what a forward pass over such frames takes beside the weights: the maps that wait for the way up, and the widest block's."""
        config = self.config
        area = height * width
        waiting = sum(config.width(level) * (blocks + 1) * (area >> 2 * level) for level, blocks in enumerate(config.res_blocks))
        widest = max((config.width(level) + config.width(min(level + 1, config.levels - 1))) * (area >> 2 * level) for level in range(config.levels))
        return frames * (waiting + 4 * widest) * next(self.parameters()).element_size()

    def _check(self, x: Tensor) -> None:
        config, (_, channels, height, width) = self.config, x.shape
        if height % config.multiple or width % config.multiple:
            raise ValueError(f"this diffusion network takes sides that are multiples of {config.multiple}, got {height} x {width}; resize the frames")
        if channels != config.inputs:
            raise ValueError(f"this diffusion network takes {config.inputs} channels, got {channels}; those of 6 want a condition, those of 3 none")
