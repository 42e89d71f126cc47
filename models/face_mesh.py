"""FaceMesh (Kartynnik et al. 2019), the network of MediaPipe's model card: a trunk of residual blocks, a branch for the points, one for presence."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .embedded import FACE_MESH

SIDE = 192
"""Side of the picture that the network looks at, in pixels."""

POINTS = 468

TRUNK = (
    *((16, 16, 1), (16, 16, 1)),
    *((16, 32, 2), (32, 32, 1), (32, 32, 1)),
    *((32, 64, 2), (64, 64, 1), (64, 64, 1)),
    *((64, 128, 2), (128, 128, 1), (128, 128, 1)),
    *((128, 128, 2), (128, 128, 1), (128, 128, 1)),
)
"""Residual blocks: channels in and out, and the stride."""


class Residual(nn.Module):
    """x' = prelu(pad(pool(x)) + 1x1(3x3 per channel(x))): pooling where the stride is 2, zeros for the additional channels."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.stride, self.more = stride, outputs - inputs
        self.depth = nn.Conv2d(inputs, inputs, 3, stride, 0 if stride == 2 else 1, groups=inputs)
        self.point = nn.Conv2d(inputs, outputs, 1)
        self.slope = nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        # TensorFlow pads an even side below and to the right only
        y = self.point(self.depth(F.pad(x, (0, 1, 0, 1)) if self.stride == 2 else x))
        if self.stride == 2:
            x = F.max_pool2d(x, 2)
        if self.more:
            x = F.pad(x, (0, 0, 0, 0, 0, self.more))
        return self.slope(x + y)


class FaceMesh(nn.Module):
    """Crops (n, 3, 192, 192) RGB in [0, 1], a face with as much again around it, upright, to points and presence.

    Returns (n, 468, 3): x and y in pixels of the crop (0 is the left or upper edge), z towards the back in the same unit; and logits (n,).
    """

    file = FACE_MESH

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 16, 3, 2), nn.PReLU(16))
        self.trunk = nn.Sequential(*(Residual(*block) for block in TRUNK))
        self.mesh = nn.Sequential(
            *(Residual(128, 128, 2), Residual(128, 128), Residual(128, 128)), nn.Conv2d(128, 32, 1), nn.PReLU(32), Residual(32, 32)
        )
        self.points = nn.Conv2d(32, 3 * POINTS, 3)
        self.here = nn.Sequential(Residual(128, 128, 2), nn.Conv2d(128, 32, 1), nn.PReLU(32), Residual(32, 32))
        self.presence = nn.Conv2d(32, 1, 3)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk(self.stem(crops))
        return self.points(self.mesh(x)).reshape(-1, POINTS, 3), self.presence(self.here(x)).reshape(-1)
