"""RetinaFace-R50 (Deng et al. 2020): facexlib's network with our loading, batching and decoding."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...models.checkpoints.fill import fill
from ...models.device import Placed, on
from ...models.facexlib_networks import facexlib_class
from ..types import Face
from .detectors import downscale, rescale_points, suppress

MEAN_BGR = (104.0, 117.0, 123.0)
VARIANCE = (0.1, 0.2)
MIN_SIZES = ((16, 32), (64, 128), (256, 512))
STEPS = (8, 16, 32)
DETECT_SIZE = 640
"""Short side in pixels to which larger frames are downscaled."""
WORKING_BYTES = 300
"""Upper bound of working memory per input pixel."""
MIN_FACE = 20
"""Smaller boxes are dropped, in pixels of the downscaled frame."""


class RetinaFaceDetector:
    """Detects faces with RetinaFace-R50 from a local file; never downloads.

    Args:
        weights: detection_Resnet50_Final.pth, read with weights_only.
        threshold: score in [0, 1]; the official scripts use 0.8.
        placed: decides where the network runs; None keeps it on `device`.
        batch: frames per forward pass; on a CPU 1, so that results do not depend on chunking.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or holds something else.
        ImportError: if facexlib cannot be imported.
    """

    name = "retinaface"

    def __init__(
        self, weights: Path, *, device: str | torch.device = "cpu", placed: Placed | None = None, threshold: float = 0.8, batch: int | None = None
    ) -> None:
        self.threshold = threshold
        self.batch = batch or (1 if torch.device(device).type == "cpu" else 8)
        self.net = fill(retinaface_network(), weights, "RetinaFace-R50", "choose the detector blazeface")
        self.place = on(self.net, device) if placed is None else placed(self.net)

    def __call__(self, frames: Tensor) -> list[list[Face]]:
        return [faces for chunk in frames.split(self.batch) for faces in self.find(chunk)]

    @torch.no_grad()
    def find(self, frames: Tensor) -> list[list[Face]]:
        """Faces in frames (n, 3, H, W), one forward pass."""
        small = [downscale(frame.float(), DETECT_SIZE) for frame in frames]
        x, y = small[0][1:]
        images = torch.stack([image for image, _, _ in small])
        device = self.place(WORKING_BYTES * images[:, 0].numel())
        inputs = images.to(device).flip(1) * 255 - torch.tensor(MEAN_BGR, device=device)[:, None, None]
        offsets, scores, points = (out.float().cpu() for out in self.net(inputs))
        return [self.decode(*one, images.shape[-2], images.shape[-1], x, y) for one in zip(offsets, scores[..., 1], points, strict=True)]

    def decode(self, offsets: Tensor, scores: Tensor, points: Tensor, height: int, width: int, x: float, y: float) -> list[Face]:
        """Faces from the heads' outputs for one frame: offsets (P, 4), scores (P,), points (P, 10)."""
        keep = scores >= self.threshold
        prior = priors(height, width)[keep]
        size = torch.tensor([width, height], dtype=torch.float32)
        centre = prior[:, :2] + offsets[keep, :2] * VARIANCE[0] * prior[:, 2:]
        half = prior[:, 2:] * torch.exp(offsets[keep, 2:] * VARIANCE[1]) / 2
        corners = torch.stack([centre - half, centre + half], 1) * size
        five = (prior[:, None, :2] + points[keep].reshape(-1, 5, 2) * VARIANCE[0] * prior[:, None, 2:]) * size
        large = (corners[:, 1] - corners[:, 0]).prod(-1) >= MIN_FACE**2
        boxes, five, best = corners[large].flatten(1), five[large], scores[keep][large]
        from torchvision.ops import nms

        kept = nms(boxes, best, 0.4)
        boxes, five = rescale_points(boxes[kept].reshape(-1, 2, 2), x, y).flatten(1), rescale_points(five[kept], x, y)
        return suppress([Face(*face) for face in zip(boxes, five, best[kept].tolist(), strict=True)])


@lru_cache(maxsize=4)
def priors(height: int, width: int) -> Tensor:
    """(P, 4) anchors (centre x, centre y, width, height) relative to the image, in the order of the network's outputs."""
    levels = []
    for step, sizes in zip(STEPS, MIN_SIZES, strict=True):
        y, x = torch.meshgrid(torch.arange(-(-height // step)) + 0.5, torch.arange(-(-width // step)) + 0.5, indexing="ij")
        centre = torch.stack([x * step / width, y * step / height], -1)[:, :, None].expand(-1, -1, len(sizes), -1)
        extent = torch.tensor([[size / width, size / height] for size in sizes]).expand(*centre.shape[:2], -1, -1)
        levels.append(torch.cat([centre, extent], -1).reshape(-1, 4))
    return torch.cat(levels)


def retinaface_network() -> Any:
    """facexlib's network with random weights, in inference mode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return facexlib_class("detection.retinaface", "RetinaFace")(network_name="resnet50", half=False, device="cpu")
