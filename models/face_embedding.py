"""dlib's face recognition ResNet (King 2017): 29 convolutions, half the filters of ResNet-34, affine layers folded into the convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .embedded import FACE_EMBEDDING

SIDE = 150
"""Side of the picture that the network looks at, in pixels."""

PLACES = ((47.70, 47.05), (100.30, 47.15), (74.29, 77.99), (51.16, 101.96), (97.87, 101.85))
"""Left eye, right eye, nose, left and right mouth corner in that picture: the FFHQ template moved so that its eyes lie where dlib's mean face
has them with a quarter of padding."""

SIZE = 128
"""Numbers of an embedding."""

BLOCKS = (
    *((32, 32, 1), (32, 32, 1), (32, 32, 1)),
    *((32, 64, 2), (64, 64, 1), (64, 64, 1), (64, 64, 1)),
    *((64, 128, 2), (128, 128, 1), (128, 128, 1)),
    *((128, 256, 2), (256, 256, 1), (256, 256, 1), (256, 256, 2)),
)
"""Residual blocks: channels in and out, and the stride."""

MEAN = (122.782, 117.001, 104.298)
"""Of the training pictures, RGB in [0, 255]."""


class Block(nn.Module):
    """x' = relu(pad(pool(x)) + 3x3(relu(3x3(x)))): stride 2 pools 2 x 2, and additional channels of the shortcut are zero."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.more = stride, outputs - inputs
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 0 if stride == 2 else 1)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x)))
        if self.stride == 2:
            x = F.avg_pool2d(x, 2)
            y = F.pad(y, (0, x.shape[-1] - y.shape[-1], 0, x.shape[-2] - y.shape[-2]))
        if self.more:
            x = F.pad(x, (0, 0, 0, 0, 0, self.more))
        return F.relu(x + y)


class FaceEmbedding(nn.Module):
    """Faces (n, 3, 150, 150) RGB in [0, 1], upright, to (n, 128). dlib's advice: below a distance of 0.6 two pictures show one person."""

    file = FACE_EMBEDDING
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 7, 2)
        self.blocks = nn.Sequential(*(Block(*block) for block in BLOCKS))
        self.embed = nn.Linear(256, SIZE, bias=False)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None] / 255, persistent=False)

    def forward(self, faces: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(faces - self.mean)), 3, 2)
        return self.embed(self.blocks(x).mean((-2, -1)))
