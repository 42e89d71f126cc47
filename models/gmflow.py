"""GMFlow: optical flow by global matching (Xu et al., CVPR 2022), as KEEP's checkpoints hold it: one scale, 1/8 of the image's side.

Every place of one image is compared with every place of the other; the flow is the expected displacement. Parameter names are those of the
published checkpoints.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..products import Linear

WIDTH = 128
LAYERS = 6
STRIDE = 8
"""Pixels per place of the feature maps, each way."""
SPLITS = 2
"""Attention windows along each side of the feature maps."""
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class GMFlow(nn.Module):
    """Images to flow, in two steps, so that a frame that belongs to two pairs goes through the convolutions once."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.transformer = FeatureTransformer()
        self.feature_flow_attn = Propagation()
        self.upsampler = nn.Sequential(nn.Conv2d(2 + WIDTH, 256, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(256, STRIDE**2 * 9, 1))

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], sides multiples of 16, to channels-last features (B, H / 8, W / 8, 128) that know their place.

        Raises:
            ValueError: for other sides.
        """
        height, width = images.shape[-2:]
        if height % (STRIDE * SPLITS) or width % (STRIDE * SPLITS):
            raise ValueError(f"GMFlow needs sides that are multiples of {STRIDE * SPLITS}, got {height} x {width}; resize the frames first")
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        features = self.backbone(((images + 1) / 2 - mean) / std).permute(0, 2, 3, 1)
        position = sine_position(features.shape[1] // SPLITS, features.shape[2] // SPLITS, WIDTH, features.device)
        return features.contiguous() + position.repeat(SPLITS, SPLITS, 1)  # positions count within each attention window

    def flow(self, current: Tensor, previous: Tensor) -> Tensor:
        """Two frames' features (B, h, w, 128) to the flow (B, 2, 8 h, 8 w): pixels (x, y) from a place in `current` to the same in `previous`."""
        source, target = self.transformer(current, previous)
        height, width = source.shape[1:3]
        source, target = source.flatten(1, 2), target.flatten(1, 2)
        places = coordinate_grid(height, width, source.device).to(source.dtype).flatten(0, 1)
        coarse = expected(source, target, places.expand(len(source), -1, -1)) - places  # eq. 4 and 5
        coarse = self.feature_flow_attn(source, coarse)  # eq. 6
        as_map = [part.mT.unflatten(2, (height, width)) for part in (coarse, source)]
        return self._upsample(*as_map)

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] to the flow (B, 2, H, W) of `current` into `previous`."""
        return self.flow(self.features(current), self.features(previous))

    def _upsample(self, flow: Tensor, features: Tensor) -> Tensor:
        """Every pixel's flow as a convex combination of the nine coarse ones around it (RAFT, section 3.3)."""
        batch, _, height, width = flow.shape
        weights = self.upsampler(torch.cat([flow, features], 1)).reshape(batch, 1, 9, STRIDE, STRIDE, height, width).softmax(2)
        around = F.unfold(STRIDE * flow, 3, padding=1).view(batch, 2, 9, 1, 1, height, width)
        fine = (weights * around).sum(2)  # (B, 2, 8, 8, h, w): row and column within a place come first
        return rearrange(fine, "b xy row column h w -> b xy (h row) (w column)")


class FlowNet(nn.Module):
    """GMFlow under the name that KEEP gives it; a flow source, as motion/flow.py describes one."""

    def __init__(self) -> None:
        super().__init__()
        self.model = GMFlow()

    def features(self, frames: Tensor) -> Tensor:
        """As GMFlow.features, in float32 whatever the frames are."""
        return self.model.features(frames.float())

    def flow(self, current: Tensor, previous: Tensor) -> Tensor:
        """As GMFlow.flow."""
        return self.model.flow(current, previous)


class Backbone(nn.Module):
    """Images to features at 1/8 of their side; every image is normalised by itself, so batches do not matter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.layer1 = nn.Sequential(Residual(64, 64), Residual(64, 64))
        self.layer2 = nn.Sequential(Residual(64, 96, 2), Residual(96, 96))
        self.layer3 = nn.Sequential(Residual(96, WIDTH, 2), Residual(WIDTH, WIDTH))
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(instance_norm(self.conv1(x)), inplace=True)
        return self.conv2(self.layer3(self.layer2(self.layer1(x))))


class Residual(nn.Module):
    """Two normalised 3 x 3 convolutions beside a shortcut, which a 1 x 1 convolution fits to a new width or stride."""

    def __init__(self, width_in: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.downsample = nn.Sequential(nn.Conv2d(width_in, width, 1, stride=stride)) if stride > 1 or width_in != width else None

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(instance_norm(self.conv1(x)), inplace=True)
        h = F.relu(instance_norm(self.conv2(h)), inplace=True)
        if self.downsample is not None:
            x = instance_norm(self.downsample(x))
        return F.relu(x + h)


class FeatureTransformer(nn.Module):
    """Six layers in which two frames look at themselves and at each other, in windows that every second layer shifts by half (Swin)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MatchingLayer() for _ in range(LAYERS))

    def forward(self, current: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
        """(B, h, w, C) twice, and so back."""
        both = torch.cat([current, previous])
        mask = shifted_mask(both.shape[1], both.shape[2], both.device).to(both.dtype)
        for number, layer in enumerate(self.layers):
            both = layer(both, torch.cat(both.chunk(2)[::-1]), mask if number % 2 else None)
        return both.chunk(2)  # type: ignore[return-value]


class MatchingLayer(nn.Module):
    """Attention to the frame itself, then to the other frame with a feed-forward network."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = WindowAttention(feed_forward=False)
        self.cross_attn_ffn = WindowAttention(feed_forward=True)

    def forward(self, source: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        source = self.self_attn(source, source, mask)
        return self.cross_attn_ffn(source, target, mask)


class WindowAttention(nn.Module):
    """source + attention to `target` in 2 x 2 windows, with one head (post-norm)."""

    def __init__(self, feed_forward: bool) -> None:
        super().__init__()
        self.q_proj = Linear(WIDTH, WIDTH, bias=False)
        self.k_proj = Linear(WIDTH, WIDTH, bias=False)
        self.v_proj = Linear(WIDTH, WIDTH, bias=False)
        self.merge = Linear(WIDTH, WIDTH, bias=False)
        self.norm1 = nn.LayerNorm(WIDTH)
        self.mlp: nn.Module | None = None
        if feed_forward:
            self.mlp = nn.Sequential(Linear(2 * WIDTH, 8 * WIDTH, bias=False), nn.GELU(), Linear(8 * WIDTH, WIDTH, bias=False))
            self.norm2 = nn.LayerNorm(WIDTH)

    def forward(self, source: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """(B, h, w, C) twice to (B, h, w, C); `mask` (1, windows, n, n) for windows shifted by half, None for windows in place."""
        height, width = source.shape[1:3]
        shift = (0, 0) if mask is None else (height // SPLITS // 2, width // SPLITS // 2)
        q, k, v = (to_windows(part, shift) for part in (self.q_proj(source), self.k_proj(target), self.v_proj(target)))
        message = from_windows(F.scaled_dot_product_attention(q, k, v, attn_mask=mask), (height, width), shift)
        message = self.norm1(self.merge(message))
        if self.mlp is not None:
            message = self.norm2(self.mlp(torch.cat([source, message], -1)))
        return source + message


class Propagation(nn.Module):
    """Propagates flow from matched to unmatched places along similar features (eq. 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = Linear(WIDTH, WIDTH)
        self.k_proj = Linear(WIDTH, WIDTH)

    def forward(self, features: Tensor, flow: Tensor) -> Tensor:
        """Tokens (B, n, C) and their flow (B, n, 2), to the flow (B, n, 2)."""
        query = self.q_proj(features)
        return expected(query, self.k_proj(query), flow)  # keys from the queries, as the network was trained


def expected(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(C)) V of (B, n, C), (B, m, C) and (B, m, d); V as wide as the others, for only then no n x m is made."""
    wide = F.pad(value, (0, key.shape[-1] - value.shape[-1]))
    return F.scaled_dot_product_attention(query[:, None], key[:, None], wide[:, None])[:, 0, :, : value.shape[-1]]


def instance_norm(x: Tensor) -> Tensor:
    """Every channel of every image to mean 0 and deviation 1.

    Written out, since PyTorch's own is slow on channels-last maps on a CPU, and as a group norm it sums a channel's 65,536 squares one after
    the other there: off by 5e-5, which the matching below turns into half a pixel.
    """
    x = x - x.mean((2, 3), keepdim=True)
    return x * (x.square().mean((2, 3), keepdim=True) + 1e-5).rsqrt()


def coordinate_grid(height: int, width: int, device: torch.device) -> Tensor:
    """(height, width, 2) float32: each place's own x and y."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack([x, y], -1).float()


def sine_position(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """(height, width, channels): sines and cosines of y, then of x, both scaled to (0, 2 pi] (DETR, appendix A.4)."""
    count = channels // 2
    wavelength = 10000 ** (2 * torch.arange(count, device=device).div(2, rounding_mode="floor") / count)
    x, y = (coordinate_grid(height, width, device) + 1).unbind(-1)

    def waves(place: Tensor, length: int) -> Tensor:
        phase = (place / (length + 1e-6) * 2 * math.pi)[..., None] / wavelength
        return torch.stack([phase[..., 0::2].sin(), phase[..., 1::2].cos()], -1).flatten(-2)

    return torch.cat([waves(y, height), waves(x, width)], -1)


def to_windows(x: Tensor, shift: tuple[int, int]) -> Tensor:
    """(B, h, w, C), rolled up and left by `shift`, to (B, windows, places, C)."""
    if any(shift):
        x = x.roll((-shift[0], -shift[1]), (1, 2))
    return rearrange(x, "b (down h) (across w) c -> b (down across) (h w) c", down=SPLITS, across=SPLITS)


def from_windows(x: Tensor, size: tuple[int, int], shift: tuple[int, int]) -> Tensor:
    """The inverse of to_windows: (B, windows, places, C) to (B, h, w, C)."""
    x = rearrange(x, "b (down across) (h w) c -> b (down h) (across w) c", down=SPLITS, h=size[0] // SPLITS, w=size[1] // SPLITS)
    return x.roll(shift, (1, 2)) if any(shift) else x


def shifted_mask(height: int, width: int, device: torch.device) -> Tensor:
    """(1, windows, n, n): -100 between places that only rolling made neighbours, 0 elsewhere (-100 is what the network was trained with)."""
    region = torch.zeros(height, width, device=device)
    for axis, length in ((0, height), (1, width)):
        window = length // SPLITS
        place = torch.arange(length, device=device)
        band = (place >= length - window).float() + (place >= length - window // 2).float()
        region = 3 * region + (band[:, None] if axis == 0 else band)
    region = to_windows(region[None, ..., None], (0, 0))[0, ..., 0]
    return (region[None, :, :, None] != region[None, :, None, :]).float() * -100.0  # fused attention takes a mask of four axes only
