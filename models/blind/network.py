"""A recurrent U-Net from damaged 512 crops to restored ones, for damage that nobody described.

Per frame it sees the crop x_t, the crop before and what it made of that one, both moved along optical flow to x_t (zeros where there is
none), a map of where the flow stays inside, and where in the face it looks. It answers with a correction: y_t = x_t + f(...). All of it works
on 4 x 4 pixels at a time (pixel unshuffle, Shi et al. 2016), then on 8, 16 and 32.

The blocks are EDSR's (Lim et al., 2017), without normalisation, steered by a few statistics of the crop that tell noise from blur and by how far
the face was enlarged into its crop, which softens it and is no damage. The network begins as the identity.
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

UNSHUFFLE = 4
FAITHFUL, DETAILED = "faithful.", "detailed."
"""Prefixes of the two sets of weights in a file."""
TRAITS, STATISTICS = 32, 28
"""What is known of the damage: numbers that steer every block, out of so many measured or told."""
SHARES = 0.1, 0.5, 0.9
"""Of all places, up to the flattest tenth, the middle and the busiest tenth."""
FINEST, FINE = 20.0, 10.0
FOUR = {torch.float32: torch.complex128, torch.bfloat16: torch.float64, torch.float16: torch.float64}
"""By dtype, one as wide as four of its values."""
IMAGES = 3
"""x_t, x_{t-1} and y_{t-1}, three channels each."""


@dataclass(frozen=True)
class BlindSizes:
    """The U-Net's sizes.

    Attributes:
        widths: channels at 1/4, 1/8, 1/16, ... of the crop's side.
        blocks: residual blocks at each of them, on the way down and again on the way up; the last are in the middle, once.
    """

    widths: tuple[int, ...] = (64, 96, 128, 144)
    blocks: tuple[int, ...] = (3, 2, 2, 3)

    @property
    def multiple(self) -> int:
        """What sides are multiples of."""
        return UNSHUFFLE * 2 ** (len(self.widths) - 1)

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> BlindSizes:
        """The sizes that a state dict shows."""
        levels = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("down."))
        names = [f"before.{level}." for level in range(levels)] + ["middle."]
        blocks = tuple(len({key.removeprefix(name).split(".")[0] for key in state if key.startswith(name)}) for name in names)
        widths = (state["head.weight"].shape[0], *(state[f"down.{level}.weight"].shape[0] for level in range(levels)))
        return cls(widths, blocks)


class ResidualBlock(nn.Module):
    """x + conv(lrelu((1 + g) conv(x) + b)), g and b linear in what is known of the damage (FiLM, Perez et al., 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.film = nn.Linear(TRAITS, 2 * width)
        nn.init.kaiming_normal_(self.first.weight, 0.1)
        with torch.no_grad():
            self.second.weight.mul_(0.1)

    def forward(self, x: Tensor, traits: Tensor) -> Tensor:
        return self.second(F.leaky_relu(self._steered(x, traits), 0.1, inplace=True)).add_(x)

    def _steered(self, x: Tensor, traits: Tensor) -> Tensor:
        gain, shift = self.film(traits).chunk(2, 1)
        gain = 1 + gain
        if len(x) > 1:
            return self.first(x) * gain[:, :, None, None] + shift[:, :, None, None]
        weight, bias = self.first.weight, self.first.bias  # of one clip the same, without two more passes over the map
        return F.conv2d(x, weight * gain.view(-1, 1, 1, 1), (bias * gain + shift)[0], padding=1)


class Blocks(nn.ModuleList):
    """Residual blocks in a row."""

    def __init__(self, width: int, number: int) -> None:
        super().__init__(ResidualBlock(width) for _ in range(number))

    def forward(self, x: Tensor, traits: Tensor) -> Tensor:
        for block in self:
            x = block(x, traits)
        return x


class BlindUNet(nn.Module):
    """See the module's text.

    Args:
        sizes: of the U-Net.
    """

    def __init__(self, sizes: BlindSizes | None = None) -> None:
        super().__init__()
        self.sizes = sizes or BlindSizes()
        widths, blocks = self.sizes.widths, self.sizes.blocks
        levels = range(len(widths) - 1)
        self.traits = nn.Sequential(nn.Linear(STATISTICS, 64), nn.ReLU(), nn.Linear(64, TRAITS), nn.ReLU())
        self.head = nn.Conv2d(2 * 3 * IMAGES * UNSHUFFLE**2 + 3, widths[0], 3, padding=1)
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

    def forward(self, images: Tensor, seen: Tensor, place: Tensor | None = None, enlarged: Tensor | None = None) -> Tensor:
        """One frame of each of B clips.

        Args:
            images: (B, 9, H, W) in [0, 1]: x_t, then x_{t-1} and y_{t-1} moved to x_t, zeros where there is no frame before; H and W multiples
                of `sizes.multiple`.
            seen: (B, 1, H, W), 1 where what was moved lies inside the frame before, 0 elsewhere.
            place: (B, 2, H / 4, W / 4), x and y of each 4 x 4 pixels in the crop, from -1 to 1; None for whole crops.
            enlarged: (B,), crop pixels per pixel of the frame, 1 to 4 (others count as these); None for 1.

        Returns:
            y_t, (B, 3, H, W), not clamped.
        """
        if place is None:
            place = whole(images.shape[-2] // UNSHUFFLE, images.shape[-1] // UNSHUFFLE, images.device).expand(len(images), -1, -1, -1)
        dtype = self.head.weight.dtype
        x = self.head(side_by_side([images - 0.5, detail_of(images)], [F.avg_pool2d(seen, UNSHUFFLE), place], dtype))
        octaves = images.new_zeros(len(images), 1) if enlarged is None else enlarged.to(images).clamp(1, 4).log2()[:, None]
        traits = self.traits(torch.cat([statistics(images[:, :3]), octaves], 1)).to(dtype)
        skips = []
        for before, down in zip(self.before, self.down, strict=True):
            x = before(x, traits)
            skips.append(x)
            x = down(x)
        x = self.middle(x, traits)
        for after, up, skip in reversed(list(zip(self.after, self.up, skips, strict=True))):
            x = after(F.pixel_shuffle(up(x), 2) + skip, traits)
        return images[:, :3] + F.pixel_shuffle(self.tail(x), UNSHUFFLE).to(images.dtype)


def detail_of(images: Tensor) -> Tensor:
    """The two finest octaves of (B, C, H, W), amplified to about 1, so that noise and blur are as plain to the network as light and shade."""
    images = images.contiguous(memory_format=torch.channels_last)  # which a CPU pools and enlarges in less than half of the time
    halves = F.avg_pool2d(images, 2)
    means = [
        F.interpolate(small, scale_factor=scale, mode="bilinear", align_corners=False)
        for small, scale in ((halves, 2.0), (F.avg_pool2d(halves, 2), 4.0))
    ]
    finest = (images - means[0]).clamp_(-4 / FINEST, 4 / FINEST)
    fine = means[0].sub_(means[1]).clamp_(-4 / FINE, 4 / FINE)
    return finest.mul_(FINEST).add_(fine, alpha=FINE)


def side_by_side(images: list[Tensor], maps: list[Tensor], dtype: torch.dtype) -> Tensor:
    """Pixel-unshuffled (B, C, H, W), then maps (B, C, H / 4, W / 4), as channels of one tensor that is channels last: each is written once."""
    batch, _, height, width = maps[0].shape
    grown = UNSHUFFLE**2
    channels = grown * sum(each.shape[1] for each in images) + sum(each.shape[1] for each in maps)
    joined = torch.empty(batch, height, width, channels, dtype=dtype, device=maps[0].device)
    first = 0
    for image in images:
        joined[..., first : first + grown * image.shape[1]] = cells_of(image.to(dtype))
        first += grown * image.shape[1]
    for each in maps:
        joined[..., first : first + each.shape[1]] = each.permute(0, 2, 3, 1)
        first += each.shape[1]
    return joined.permute(0, 3, 1, 2)


def cells_of(image: Tensor) -> Tensor:
    """Pixel-unshuffled (B, C, H, W), channels last: (B, H / 4, W / 4, 16 C)."""
    batch, channels, height, width = image.shape
    shape = batch, channels, height // UNSHUFFLE, UNSHUFFLE, width // UNSHUFFLE
    plain = not image.requires_grad and not torch.compiler.is_compiling()
    if plain and image.device.type == "cpu" and image.dtype in FOUR:  # moving four values as one takes a third of the time
        moved = image.contiguous().view(FOUR[image.dtype]).reshape(shape).permute(0, 2, 4, 1, 3).contiguous().view(image.dtype)
    else:
        moved = image.reshape(*shape, UNSHUFFLE).permute(0, 2, 4, 1, 3, 5)
    return moved.reshape(batch, shape[2], shape[4], -1)


def statistics(images: Tensor) -> Tensor:
    """What tells damages apart at once: (B, STATISTICS - 1), logarithms of the energy of luma's second differences, diagonal, along and down, in the
    flattest tenth of the places, in the middle one and in the busiest tenth; at full, half and quarter size."""
    grey = luma(images.float())
    found = []
    for _ in range(3):
        diagonal = grey[..., 1:, 1:] - grey[..., :-1, 1:] - grey[..., 1:, :-1] + grey[..., :-1, :-1]
        along = grey[..., :, 2:] - 2 * grey[..., :, 1:-1] + grey[..., :, :-2]
        down = grey[..., 2:, :] - 2 * grey[..., 1:-1, :] + grey[..., :-2, :]
        for difference in (diagonal, along, down):
            energy = F.avg_pool2d(difference.square(), 8).flatten(1)
            found.append((quantiles(energy, SHARES) + 1e-7).log() / 4 + 2)
        grey = F.avg_pool2d(grey, 2)
    return torch.cat(found, 1)


def quantiles(values: Tensor, shares: tuple[float, ...]) -> Tensor:
    """Those of (B, n), linear between neighbours: (B, len(shares)). As torch.quantile, which would wait until the shares are on the device."""
    ordered, last = values.sort(1).values, values.shape[1] - 1
    found = []
    for share in shares:
        below = min(int(share * last), last - 1)
        found.append(torch.lerp(ordered[:, below], ordered[:, below + 1], share * last - below))
    return torch.stack(found, 1)


class BlindRestorers(nn.Module):
    """Two sets of weights of one network, and all between them: fidelity first, and with detail that is only likely.

    Args:
        sizes: of both.
        drawn: whether there is a second set.
    """

    def __init__(self, sizes: BlindSizes | None = None, drawn: bool = True) -> None:
        super().__init__()
        self.faithful = BlindUNet(sizes)
        self.detailed = BlindUNet(sizes) if drawn else None

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> BlindRestorers:
        """The networks of a state dict, in eval mode."""
        first = {key.removeprefix(FAITHFUL): value for key, value in state.items() if key.startswith(FAITHFUL)}
        networks = cls(BlindSizes.of(first), any(key.startswith(DETAILED) for key in state))
        networks.load_state_dict(state)
        return networks.eval()

    def at(self, detail: float) -> dict[str, Tensor]:
        """(1 - d) of the first weights and d of the second: network interpolation (Wang et al., ESRGAN, 2018, section 3.4).

        Args:
            detail: d in [0, 1]; without a second set nothing but the first.
        """
        first: dict[str, Tensor] = dict(self.faithful.named_parameters())
        if self.detailed is None or detail == 0:
            return first
        second = dict(self.detailed.named_parameters())
        return {name: torch.lerp(value, second[name], detail) for name, value in first.items()}

    def decoder_parts(self) -> list[nn.Module]:
        """The modules that may run in half precision: all that draw the correction; what steers them and what is added to stay float32."""
        return [
            part
            for network in (self.faithful, self.detailed)
            if network is not None
            for part in (network.head, network.before, network.down, network.middle, network.up, network.after, network.tail)
        ]

    def forward(self, images: Tensor, seen: Tensor, weights: dict[str, Tensor], enlarged: Tensor | None = None) -> Tensor:
        """As BlindUNet.forward of whole crops, with what `at` gave."""
        place = whole(images.shape[-2] // UNSHUFFLE, images.shape[-1] // UNSHUFFLE, images.device).expand(len(images), -1, -1, -1)
        return functional_call(self.faithful, weights, (images, seen, place), {"enlarged": enlarged})


@lru_cache(maxsize=8)
def whole(height: int, width: int, device: torch.device) -> Tensor:
    """`place` (1, 2, height, width) of a whole crop."""
    with torch.inference_mode(False):
        y, x = ((torch.arange(length, device=device) + 0.5) * 2 / length - 1 for length in (height, width))
        return torch.stack(torch.meshgrid(x, y, indexing="xy"))[None]


def clip_inputs(crops: Tensor, before: Tensor | None, restored: Tensor | None, flow: Tensor | None) -> tuple[Tensor, Tensor]:
    """`images` and `seen` of BlindUNet.forward.

    Args:
        crops: x_t, (B, 3, H, W) in [0, 1].
        before, restored: x_{t-1} and y_{t-1} of that shape; None at the beginning of a clip.
        flow: (B, 2, H, W), of x_t into x_{t-1} in pixels; None with them.
    """
    batch, _, height, width = crops.shape
    if before is None or restored is None or flow is None:
        return torch.cat([crops, torch.zeros_like(crops), torch.zeros_like(crops)], 1), crops.new_zeros(batch, 1, height, width)
    x = torch.arange(width, device=flow.device) + flow[:, :1]
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1:]
    grid = torch.cat([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], 1).permute(0, 2, 3, 1)
    moved = F.grid_sample(torch.cat([before, restored], 1), grid, mode="bilinear", padding_mode="border", align_corners=False)
    inside = ((x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)).to(crops)
    return torch.cat([crops, moved.mul_(inside)], 1), inside
