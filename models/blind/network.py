"""A recurrent U-Net for blind face restoration, from damaged crops of 512 pixels to restored ones.

Inputs per frame: the crop x_t; the previous crop and output, both warped to x_t along optical flow (zeros without a previous frame); a mask where
the flow stays inside; and the position in the face (CoordConv, Liu et al., 2018). The output is residual: y_t = x_t + f(...). Previous outputs as
inputs are recurrent propagation as in FRVSR (Sajjadi et al., 2018). The levels work at 1/4 of the crop's side, by pixel unshuffle (Shi et al.,
2016), then at 1/8, 1/16 and 1/32.

Blocks are EDSR's (Lim et al., 2017), without normalisation, each with FiLM conditioning (Perez et al., 2018): on statistics of the crop that tell
noise from blur, and on the crop's scale, as a face that was enlarged into its crop is soft without being damaged. Untrained it is the identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ...colour import luma
from ...resampling import interpolated, pooled

UNSHUFFLE = 4
FAITHFUL, DETAILED = "faithful.", "detailed."
"""Prefixes of the two sets of weights in a file."""
CONDITION, CONDITION_INPUTS = 32, 28
"""Widths of the FiLM condition and of its inputs: 27 statistics of the crop and its scale."""
QUANTILES = 0.1, 0.5, 0.9
"""Of local energies: flat, median and busy regions."""
BAND_GAINS = 20.0, 10.0
"""Gains of the finest and the second octave, which bring them to about 1."""
FOUR_VALUES = {torch.float32: torch.complex128, torch.bfloat16: torch.float64, torch.float16: torch.float64}
"""By dtype, a dtype of four times its size."""
INPUT_IMAGES = 3
"""x_t, x_{t-1} and y_{t-1}, three channels each."""


@dataclass(frozen=True)
class BlindSizes:
    """The U-Net's sizes.

    Attributes:
        widths: channels at 1/4, 1/8, 1/16, ... of the crop's side.
        blocks: residual blocks per level, in the encoder and again in the decoder; the last number is the bottleneck's, once.
    """

    widths: tuple[int, ...] = (64, 96, 128, 144)
    blocks: tuple[int, ...] = (3, 2, 2, 3)

    @property
    def multiple(self) -> int:
        """What the sides of images must be multiples of."""
        return UNSHUFFLE * 2 ** (len(self.widths) - 1)

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> BlindSizes:
        """The sizes of a state dict."""
        levels = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("down."))
        names = [f"before.{level}." for level in range(levels)] + ["middle."]
        blocks = tuple(len({key.removeprefix(name).split(".")[0] for key in state if key.startswith(name)}) for name in names)
        widths = (state["head.weight"].shape[0], *(state[f"down.{level}.weight"].shape[0] for level in range(levels)))
        return cls(widths, blocks)


class ResidualBlock(nn.Module):
    """x + conv(lrelu((1 + gamma) conv(x) + beta)), gamma and beta linear in the condition (FiLM, Perez et al., 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.film = nn.Linear(CONDITION, 2 * width)
        nn.init.kaiming_normal_(self.first.weight, 0.1)
        with torch.no_grad():
            self.second.weight.mul_(0.1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.second(F.leaky_relu(self._modulated(x, condition), 0.1, inplace=True)).add_(x)

    def _modulated(self, x: Tensor, condition: Tensor) -> Tensor:
        gamma, beta = self.film(condition).chunk(2, 1)
        gamma = 1 + gamma
        if len(x) > 1:
            return self.first(x) * gamma[:, :, None, None] + beta[:, :, None, None]
        weight, bias = self.first.weight, self.first.bias  # for one clip modulate the kernel, which saves two passes over the features
        return F.conv2d(x, weight * gamma.view(-1, 1, 1, 1), (bias * gamma + beta)[0], padding=1)


class Blocks(nn.ModuleList):
    """Residual blocks in sequence."""

    def __init__(self, width: int, number: int) -> None:
        super().__init__(ResidualBlock(width) for _ in range(number))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        for block in self:
            x = block(x, condition)
        return x


class BlindUNet(nn.Module):
    """See the module's text."""

    def __init__(self, sizes: BlindSizes | None = None) -> None:
        super().__init__()
        self.sizes = sizes or BlindSizes()
        widths, blocks = self.sizes.widths, self.sizes.blocks
        levels = range(len(widths) - 1)
        self.traits = nn.Sequential(nn.Linear(CONDITION_INPUTS, 64), nn.ReLU(), nn.Linear(64, CONDITION), nn.ReLU())
        self.head = nn.Conv2d(2 * 3 * INPUT_IMAGES * UNSHUFFLE**2 + 3, widths[0], 3, padding=1)
        self.before = nn.ModuleList(Blocks(widths[level], blocks[level]) for level in levels)
        self.down = nn.ModuleList(nn.Conv2d(widths[level], widths[level + 1], 2, stride=2) for level in levels)
        self.middle = Blocks(widths[-1], blocks[-1])
        self.up = nn.ModuleList(nn.Conv2d(widths[level + 1], 4 * widths[level], 1) for level in levels)
        self.after = nn.ModuleList(Blocks(widths[level], blocks[level]) for level in levels)
        self.tail = nn.Conv2d(widths[0], 3 * UNSHUFFLE**2, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> BlindUNet:
        """The network of a state dict, in eval mode."""
        network = cls(BlindSizes.of(state))
        network.load_state_dict(state)
        return network.eval()

    def forward(self, images: Tensor, valid: Tensor, positions: Tensor | None = None, scale: Tensor | None = None) -> Tensor:
        """One frame of each of B clips.

        Args:
            images: (B, 9, H, W) in [0, 1]: x_t, then x_{t-1} and y_{t-1} warped to x_t, zeros without a previous frame; H and W multiples of
                `sizes.multiple`.
            valid: (B, 1, H, W), 1 where the flow stays inside the previous frame, else 0.
            positions: (B, 2, H / 4, W / 4), x and y of each 4 x 4 pixels in the crop, in [-1, 1]; None for whole crops.
            scale: (B,), crop pixels per frame pixel, clamped to [1, 4]; None for 1.

        Returns:
            y_t, (B, 3, H, W), not clamped.
        """
        if positions is None:
            positions = positions_of(images)
        dtype = self.head.weight.dtype
        details = map(amplified_detail, images.split(3, 1))  # 3 channels at a time stay in a CPU's cache
        x = self.head(unshuffle_and_concat([images - 0.5, *details], [pooled(valid, UNSHUFFLE), positions], dtype))
        log_scale = images.new_zeros(len(images), 1) if scale is None else scale.to(images).clamp(1, 4).log2()[:, None]
        condition = self.traits(torch.cat([statistics(images[:, :3]), log_scale], 1)).to(dtype)
        skips = []
        for before, down in zip(self.before, self.down, strict=True):
            x = before(x, condition)
            skips.append(x)
            x = down(x)
        x = self.middle(x, condition)
        for after, up, skip in reversed(list(zip(self.after, self.up, skips, strict=True))):
            x = after(F.pixel_shuffle(up(x), 2) + skip, condition)
        return images[:, :3] + F.pixel_shuffle(self.tail(x), UNSHUFFLE).to(images.dtype)


def amplified_detail(images: Tensor) -> Tensor:
    """The two finest bands of a Laplacian pyramid (Burt and Adelson, 1983) of (B, C, H, W), scaled by `BAND_GAINS`, clamped to [-4, 4] and added."""
    halves, size = pooled(images, 2), (images.shape[-2], images.shape[-1])
    blurred = [interpolated(small, size, "bilinear") for small in (halves, pooled(halves, 2))]
    finest_gain, second_gain = BAND_GAINS
    finest = (images - blurred[0]).clamp_(-4 / finest_gain, 4 / finest_gain)
    second = blurred[0].sub_(blurred[1]).clamp_(-4 / second_gain, 4 / second_gain)
    return finest.mul_(finest_gain).add_(second, alpha=second_gain)


def unshuffle_and_concat(images: list[Tensor], maps: list[Tensor], dtype: torch.dtype) -> Tensor:
    """Pixel-unshuffled (B, C, H, W), then maps (B, C, H / 4, W / 4), concatenated along channels, channels last; each is copied only once."""
    batch, _, height, width = maps[0].shape
    area = UNSHUFFLE**2
    channels = area * sum(each.shape[1] for each in images) + sum(each.shape[1] for each in maps)
    joined = torch.empty(batch, height, width, channels, dtype=dtype, device=maps[0].device)
    first = 0
    for image in images:
        joined[..., first : first + area * image.shape[1]] = pixel_unshuffle(image.to(dtype))
        first += area * image.shape[1]
    for each in maps:
        joined[..., first : first + each.shape[1]] = each.permute(0, 2, 3, 1)
        first += each.shape[1]
    return joined.permute(0, 3, 1, 2)


def pixel_unshuffle(image: Tensor) -> Tensor:
    """F.pixel_unshuffle(image, 4) of (B, C, H, W), channels last: (B, H / 4, W / 4, 16 C)."""
    batch, channels, height, width = image.shape
    shape = batch, channels, height // UNSHUFFLE, UNSHUFFLE, width // UNSHUFFLE
    eager = not image.requires_grad and not torch.compiler.is_compiling()
    if eager and image.device.type == "cpu" and image.dtype in FOUR_VALUES:  # moving four values as one takes a third of the time
        moved = image.contiguous().view(FOUR_VALUES[image.dtype]).reshape(shape).permute(0, 2, 4, 1, 3).contiguous().view(image.dtype)
    else:
        moved = image.reshape(*shape, UNSHUFFLE).permute(0, 2, 4, 1, 3, 5)
    return moved.reshape(batch, shape[2], shape[4], -1)


def statistics(images: Tensor) -> Tensor:
    """Statistics that tell kinds of damage apart, (B, 27): log energies, over 8 x 8 pixels, of luma's second differences.

    At full, half and quarter size; mixed, horizontal and vertical; at `QUANTILES`.
    """
    grey = luma(images.float())
    found = []
    for _ in range(3):
        mixed = grey[..., 1:, 1:] - grey[..., :-1, 1:] - grey[..., 1:, :-1] + grey[..., :-1, :-1]
        horizontal = grey[..., :, 2:] - 2 * grey[..., :, 1:-1] + grey[..., :, :-2]
        vertical = grey[..., 2:, :] - 2 * grey[..., 1:-1, :] + grey[..., :-2, :]
        for difference in (mixed, horizontal, vertical):
            energy = F.avg_pool2d(difference.square(), 8).flatten(1)
            found.append((quantiles(energy, QUANTILES) + 1e-7).log() / 4 + 2)
        grey = pooled(grey, 2)
    return torch.cat(found, 1)


def quantiles(values: Tensor, levels: tuple[float, ...]) -> Tensor:
    """Quantiles of (B, n) with linear interpolation, (B, len(levels)). As torch.quantile, which would wait until the levels are on the device."""
    ordered, last = values.sort(1).values, values.shape[1] - 1
    found = []
    for level in levels:
        below = min(int(level * last), last - 1)
        found.append(torch.lerp(ordered[:, below], ordered[:, below + 1], level * last - below))
    return torch.stack(found, 1)


class BlindRestorers(nn.Module):
    """Two sets of weights of one network and all interpolations between them: trained for fidelity, and for plausible detail.

    Args:
        with_detail: whether there is a second set.
    """

    def __init__(self, sizes: BlindSizes | None = None, with_detail: bool = True) -> None:
        super().__init__()
        self.faithful = BlindUNet(sizes)
        self.detailed = BlindUNet(sizes) if with_detail else None

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> BlindRestorers:
        """The networks of a state dict, in eval mode."""
        first = {key.removeprefix(FAITHFUL): value for key, value in state.items() if key.startswith(FAITHFUL)}
        networks = cls(BlindSizes.of(first), any(key.startswith(DETAILED) for key in state))
        networks.load_state_dict(state)
        return networks.eval()

    def weights_at(self, detail: float) -> dict[str, Tensor]:
        """(1 - d) faithful + d detailed: network interpolation (ESRGAN, Wang et al., 2018, section 3.4).

        Args:
            detail: d in [0, 1]; without a second set the first is returned.
        """
        first: dict[str, Tensor] = dict(self.faithful.named_parameters())
        if self.detailed is None or detail == 0:
            return first
        second = dict(self.detailed.named_parameters())
        return {name: torch.lerp(value, second[name], detail) for name, value in first.items()}

    def decoder_parts(self) -> list[nn.Module]:
        """The modules that may run in half precision: all that compute the correction; the condition and x_t, to which it is added, stay float32."""
        return [
            part
            for network in (self.faithful, self.detailed)
            if network is not None
            for part in (network.head, network.before, network.down, network.middle, network.up, network.after, network.tail)
        ]

    def forward(self, images: Tensor, valid: Tensor, weights: dict[str, Tensor], scale: Tensor | None = None) -> Tensor:
        """As BlindUNet.forward of whole crops, with the weights of `weights_at`."""
        return functional_call(self.faithful, weights, (images, valid, positions_of(images)), {"scale": scale})


def positions_of(images: Tensor) -> Tensor:
    """`positions` of BlindUNet.forward for whole crops (B, C, H, W)."""
    return position_grid(images.shape[-2] // UNSHUFFLE, images.shape[-1] // UNSHUFFLE, images.device).expand(len(images), -1, -1, -1)


@lru_cache(maxsize=8)
def position_grid(height: int, width: int, device: torch.device) -> Tensor:
    """x and y of the centres of height x width cells that divide [-1, 1], (1, 2, height, width)."""
    with torch.inference_mode(False):
        y, x = ((torch.arange(length, device=device) + 0.5) * 2 / length - 1 for length in (height, width))
        return torch.stack(torch.meshgrid(x, y, indexing="xy"))[None]


def recurrent_inputs(crops: Tensor, previous: Tensor | None, restored: Tensor | None, flow: Tensor | None) -> tuple[Tensor, Tensor]:
    """`images` and `valid` of BlindUNet.forward, by backward warping.

    Args:
        crops: x_t, (B, 3, H, W) in [0, 1].
        previous, restored: x_{t-1} and y_{t-1} of that shape; None at the beginning of a clip.
        flow: (B, 2, H, W), from x_t into x_{t-1} in pixels; None with them.
    """
    batch, _, height, width = crops.shape
    if previous is None or restored is None or flow is None:
        return torch.cat([crops, torch.zeros_like(crops), torch.zeros_like(crops)], 1), crops.new_zeros(batch, 1, height, width)
    x = torch.arange(width, device=flow.device) + flow[:, :1]
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1:]
    grid = torch.cat([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], 1).permute(0, 2, 3, 1)
    warped = F.grid_sample(torch.cat([previous, restored], 1), grid, mode="bilinear", padding_mode="border", align_corners=False)
    valid = ((x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)).to(crops)
    return torch.cat([crops, warped.mul_(valid)], 1), valid
