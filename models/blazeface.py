"""BlazeFace (Bazarevsky et al. 2019), the full range network of MediaPipe's model card: bottlenecks, three levels of a pyramid, one anchor."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .embedded import BLAZEFACE

STRIDE = 4
"""Pixels of the input per anchor."""

MULTIPLE = 32
"""Sides of the input are multiples of it."""

STAGES = (
    ((32, 8, 32, 1), (32, 8, 32, 1)),
    ((32, 12, 48, 2), (48, 12, 48, 1), (48, 16, 64, 1)),
    ((64, 24, 96, 2), (96, 32, 128, 1), (128, 32, 128, 1)),
    ((128, 36, 144, 2), (144, 48, 192, 1), (192, 64, 256, 1)),
    ((256, 96, 384, 2), (384, 96, 384, 1), (384, 96, 384, 1), (384, 96, 384, 1)),
)
"""Per stage its bottlenecks: channels in, between and out, and the stride."""

LEVELS = ((384, 256, 96, 2), (96, 128, 64, 2), (64, 64, 48, 1))
"""Of the way back up: channels from below, from the lateral connection and out, and how many bottlenecks follow."""


def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution per channel, then a 1x1 one. Stride 2 pads below and to the right only, as TensorFlow does for even sizes."""
    padding: list[nn.Module] = [nn.ZeroPad2d((0, 1, 0, 1))] if stride == 2 else []
    depth = nn.Conv2d(inputs, inputs, 3, stride, 0 if stride == 2 else 1, groups=inputs)
    return nn.Sequential(*padding, depth, nn.Conv2d(inputs, outputs, 1))


class Bottleneck(nn.Module):
    """x' = relu(pad(pool(x)) + separable(relu(separable(x)))): pooling where the stride is 2, zeros for the additional channels."""

    def __init__(self, inputs: int, middle: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.squeeze, self.expand = separable(inputs, middle, stride), separable(middle, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(F.relu_(self.squeeze(x)))
        y[:, : x.shape[1]] += F.max_pool2d(x, 2) if self.stride == 2 else x  # in place: a fifth of the time
        return F.relu_(y)


class Level(nn.Module):
    """One step back up: relu(side(x)) + relu(below(y)) doubled in size, then bottlenecks."""

    def __init__(self, below: int, side: int, outputs: int, count: int) -> None:
        super().__init__()
        self.below, self.side = nn.Conv2d(below, outputs, 1), nn.Conv2d(side, outputs, 1)
        self.blocks = nn.Sequential(*(Bottleneck(outputs, outputs // 2, outputs) for _ in range(count)))

    def forward(self, below: Tensor, side: Tensor) -> Tensor:
        up = F.interpolate(F.relu(self.below(below)), scale_factor=2, mode="bilinear", align_corners=False)
        return self.blocks(F.relu(self.side(side)) + up)


class BlazeFace(nn.Module):
    """Pictures (n, 3, H, W) RGB in [-1, 1], sides multiples of 32, to a detection for each anchor.

    Trained on 192 x 192. It is convolutional and takes any size, but detects faces of the same range of pixels. Returns logits (n, H/4, W/4) and
    (n, H/4, W/4, 8, 2): box centre, box size and six keypoints (eyes, nose, mouth, ears; left as seen in the picture first), in pixels of the
    input, all but the size from the middle of the anchor's 4 x 4 pixels.
    """

    file = BLAZEFACE

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 32, 3, 2))
        self.stages = nn.ModuleList(nn.Sequential(*(Bottleneck(*block) for block in stage)) for stage in STAGES)
        self.levels = nn.ModuleList(Level(*level) for level in LEVELS)
        self.score, self.place = nn.Conv2d(48, 1, 1), nn.Conv2d(48, 16, 1)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.stem(pictures))
        sides = []
        for stage in self.stages:
            x = stage(x)
            sides.append(x)
        for level, side in zip(self.levels, (sides[3], sides[2], sides[1]), strict=True):
            x = level(x, side)
        return self.score(x)[:, 0], self.place(x).permute(0, 2, 3, 1).unflatten(-1, (8, 2))
