"""What both of FLAIR's video networks do alike: their call, their flow, their dtype, their loading."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from .spynet import spynet_of
from .window import Flow, Flows, Size, Window


@dataclass(frozen=True)
class VideoConfig(ABC):
    """Sizes of a network. Widths must be multiples of 32.

    Attributes:
        side: height and width of the frames it is trained on.
        channels: the unit of widths.
        multipliers: width of each level in units of `channels`, from the frames down.
        res_blocks: blocks per level on the way down; one more on the way up.
        attention: levels with attention across frames, 0 the finest; the middle always has it.
        recurrence: levels at which features are carried from frame to frame.
        span: frames that temporal attention sees, an odd number; not visible in weights.
        head: channels of an attention head; not visible in weights.
    """

    side: int
    channels: int
    multipliers: tuple[float, ...]
    res_blocks: int
    attention: frozenset[int]
    recurrence: frozenset[int]
    span: int
    head: int
    takes_noise_level: ClassVar[bool]

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(int(self.channels * multiplier) for multiplier in self.multipliers)

    @classmethod
    @abstractmethod
    def of(cls, state: Mapping[str, Tensor]) -> Self:
        """The sizes that weights show; the published ones for what they do not. Raises KeyError if they are not this network's."""

    @classmethod
    def of_blocks(cls, channels: int, blocks: Iterable[tuple[int, bool, bool] | None]) -> Self:
        """The sizes of a way down: width, attention and recurrence of each block; None stands between levels."""
        levels: list[list[tuple[int, bool, bool]]] = [[]]
        for block in blocks:
            if block is None:
                levels.append([])
            else:
                levels[-1].append(block)
        return cls(
            channels=channels,
            multipliers=tuple(level[0][0] / channels for level in levels),
            res_blocks=len(levels[0]),
            attention=frozenset(number for number, level in enumerate(levels) if any(attends for _, attends, _ in level)),
            recurrence=frozenset(number for number, level in enumerate(levels) if any(carries for _, _, carries in level)),
        )  # type: ignore[call-arg]


class VideoUNet(nn.Module, ABC):
    """A UNet that predicts the noise in the frames of a clip, given the degraded frames brought to their size.

    It works on any size that is a multiple of `multiple`, with frames of at least 32 x 32 pixels where features are carried along flow.

    Attributes:
        config: its sizes.
        levels: how many sizes its features have.
        carried: the levels (0 the finest) at which features are carried from frame to frame.
    """

    config_type: ClassVar[type[VideoConfig]]

    def __init__(self, config: Any = None) -> None:
        super().__init__()
        self.config: Any = self.config_type() if config is None else config  # type: ignore[call-arg]
        self.levels, self.carried = len(self.config.multipliers), tuple(sorted(self.config.recurrence))

    @classmethod
    def of(cls, state: Mapping[str, Tensor], config: Any = None) -> Self:
        """The network with the weights of a flat state dict, in float32 and eval mode.

        Args:
            config: its sizes; None reads from the weights what they show and takes the published value for the rest.

        Raises:
            KeyError, RuntimeError: if the weights are not a network of this class.
        """
        with torch.device("meta"):
            network = cls(cls.config_type.of(state) if config is None else config)
        network.to_empty(device="cpu").load_state_dict(dict(state))
        return network.eval()

    @property
    def dtype(self) -> torch.dtype:
        """What features are computed in."""
        return next(self.torso()[0].parameters()).dtype

    @property
    def takes_noise_level(self) -> bool:
        """Whether `level` is sqrt(alpha_bar_t), a real number, rather than the step t."""
        return self.config.takes_noise_level

    @property
    def multiple(self) -> int:
        """What height and width must be a multiple of."""
        return 1 << (self.levels - 1)

    def forward(
        self,
        x_t: Tensor,
        condition: Tensor,
        level: Tensor,
        *,
        frames: int | None = None,
        temporal: bool = True,
        flows: Flows | None = None,
        weights: Tensor | float = 1.0,
        pixels: int | None = None,
    ) -> Tensor:
        """The noise in x_t, float32 of its shape.

        Args:
            x_t: (B T, 3, H, W), the noisy frames, clip by clip.
            condition: (B T, 3, H, W) in [-1, 1].
            level: (B T,) or one number: what the network knows of the noise; see the class.
            frames: T; None means that all frames are one clip.
            temporal: whether temporal layers act. Without them frames still share group norm statistics: only T = 1 makes the image network.
            flows: those that flows() gives; None computes them of `condition`.
            weights: annealing of what is carried (eq. 17): one number, or (B T or 1, 1, H, W) in [0, 1].
            pixels: see Window; less memory, the same result up to rounding.

        Raises:
            ValueError: if H or W is no multiple of `multiple`, or the number of frames none of T.
        """
        self._check(x_t, condition, frames)
        count = len(x_t) if frames is None else frames
        if flows is None:
            flows = self.flows(condition, frames) if temporal and count > 1 else {}
        at = torch.as_tensor(level, dtype=torch.float32, device=x_t.device).reshape(-1).expand(len(x_t))
        table = self.resized_weights(weights.expand(len(x_t), -1, -1, -1)) if isinstance(weights, Tensor) else float(weights)
        window = Window(count, self.embedding(at), temporal, flows, table, pixels)
        x = self.joint(x_t, condition).to(self.dtype).contiguous(memory_format=torch.channels_last)
        return self.predict(x, window)

    @abstractmethod
    def joint(self, x_t: Tensor, condition: Tensor) -> Tensor:
        """Both along the channels, in the order the network was trained with."""

    @abstractmethod
    def embedding(self, level: Tensor) -> Tensor:
        """(N, E) of the noise levels (N,)."""

    @abstractmethod
    def predict(self, x: Tensor, window: Window) -> Tensor:
        """(N, 6, H, W) to the noise (N, 3, H, W) float32."""

    @abstractmethod
    def guide(self, frames: Tensor, size: Size) -> Tensor:
        """Frames brought to the size at which their flow is wanted, as in training."""

    @abstractmethod
    def torso(self) -> tuple[nn.Module, ...]:
        """The modules that may run in half precision."""

    def sizes(self, height: int, width: int) -> list[Size]:
        """Sizes at which features are carried, for frames of height x width."""
        return [(height >> level, width >> level) for level in self.carried]

    def flows(self, guides: Tensor, frames: int | None = None) -> Flows:
        """Motion between neighbours among `guides` (B T, 3, H, W) in [-1, 1], at each size where it is wanted; two frames at a time."""
        flow_network = spynet_of(self)
        if flow_network is None:
            return {}
        clips = guides.float().unflatten(0, (-1, len(guides) if frames is None else frames))
        found = {}
        for size in self.sizes(guides.shape[-2], guides.shape[-1]):
            small = ((self.guide(clips.flatten(0, 1), size) + 1) / 2).clamp(0, 1).unflatten(0, clips.shape[:2])
            pairs = [(small[:, n], small[:, n + 1]) for n in range(clips.shape[1] - 1)]
            if pairs:
                found[size] = Flow(
                    back=torch.stack([flow_network(later, earlier) for earlier, later in pairs], 1),
                    ahead=torch.stack([flow_network(earlier, later) for earlier, later in pairs], 1),
                )
        return found

    def resized_weights(self, weights: Tensor) -> dict[Size, Tensor]:
        """Annealing weights (N, 1, H, W) at the sizes where features are carried; nearest, as in training."""
        return {size: F.interpolate(weights, size, mode="nearest") for size in self.sizes(weights.shape[-2], weights.shape[-1])}

    def to(self, *args: Any, memory_format: torch.memory_format | None = None, **kwargs: Any) -> Self:
        """nn.Module.to; `memory_format` reaches the convolutions over time in their own form of it, as torch refuses channels_last for them."""
        if args or kwargs:
            super().to(*args, **kwargs)
        if memory_format is not None:
            forms = {4: memory_format, 5: torch.channels_last_3d if memory_format == torch.channels_last else memory_format}
            self._apply(lambda x: x.to(memory_format=forms[x.ndim]) if x.ndim in forms else x)
        return self

    def working_bytes(self, frames: int, height: int, width: int) -> int:
        """About how much memory one call on one clip takes beside the weights, in pieces of one frame; seldom less than it really takes.

        All frames: features kept for the way up, the widest joint input with its two results, and a pass of the recurrence. One frame, in
        float32: the deformable convolution's nine-fold input, its offsets and weights.
        """
        widths, blocks = self.config.widths, self.config.res_blocks
        kept = widths[0] + sum((blocks + (0.25 if level < len(widths) - 1 else 0)) * w / 4**level for level, w in enumerate(widths))
        joint = widths[0] + widths[min(1, len(widths) - 1)]
        at_once = frames * (kept + joint + 3 * widths[0]) * self.dtype.itemsize
        return int(height * width * (at_once + 4 * (9 * widths[0] + 700)))

    def halved(self, dtype: torch.dtype) -> Self:
        """The network itself, its convolutions and temporal projections in `dtype` from now on.

        Group-norm statistics, embeddings, flow, sampling along flow, and the last convolution stay float32, as in the published code.
        """
        for module in self._convolutions():
            module.to(dtype)
        return self

    def _convolutions(self) -> Iterator[nn.Module]:
        spynet = spynet_of(self)
        flow = set() if spynet is None else set(spynet.modules())
        for part in self.torso():
            for module in part.modules():
                projections: Any = getattr(module, "projections", tuple)
                yield from projections()
                if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and module not in flow:
                    yield module

    def _check(self, x_t: Tensor, condition: Tensor, frames: int | None) -> None:
        height, width = x_t.shape[-2:]
        if height % self.multiple or width % self.multiple:
            raise ValueError(f"FLAIR's network takes sides that are multiples of {self.multiple}, got {height} x {width}; resize or pad the frames")
        if condition.shape != x_t.shape:
            raise ValueError(f"x_t and its condition must have one shape, got {tuple(x_t.shape)} and {tuple(condition.shape)}")
        if frames is not None and (frames < 1 or len(x_t) % frames):
            raise ValueError(f"{len(x_t)} frames cannot be split into clips of {frames}")
