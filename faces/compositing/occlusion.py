"""Occlusion masks without a network, from low-frequency differences between restored and original crops."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..detection.mesh_points import MESH_BOUNDS, SPOKES
from ..types import CROP
from .strength import smoothstep, structural_dissimilarity

CELL = 8
"""Least side in crop pixels of the cells whose means are compared; damage and detail are finer."""
MIN_CELL_PIXELS = 3
"""Least side of a cell in frame pixels, to average out noise."""
WINDOW = 7
"""Side, in cells, of the SSIM window."""
COLOUR = (0.08, 0.16)
"""Smoothstep edges, from face to occluder, of the colour distance of two cells."""
STRUCTURE = (0.3, 0.5)
"""The same for 1 - SSIM of the cells' brightness; faithful restorers stay below 0.08 (benchmarks/footage/occlusion.py)."""
BORDER = 1.3
"""Radius, relative to the outline, at which `outside_mesh` reaches 1."""
BLUR_SIGMAS = (0.0, 6.0, 8.0, 11.0, 16.0, 22.0, 32.0, 45.0)
"""Standard deviations in crop pixels of the candidate blurs of the footage: up to 16 % of the face."""
MAX_SQUARED_DISTANCE = 0.02
"""Truncation of squared cell differences, so that occluders do not affect the choice of blur."""
DILATION = 3
"""Size in cells of the dilation of occluders, so that their edges are not pasted over."""


def unoccluded(restored: Tensor, original: Tensor, scale: float = 1.0, outline: Tensor | None = None) -> Tensor:
    """Masks (n, 512, 512) in [0, 1], 0 where the face is occluded, from crops (n, 3, 512, 512) after and before restoration.

    A restorer that hallucinates a face over a hand changes a region's mean colour and its structure, measured by

        1 - SSIM = 1 - (2 cov(a, b) + SSIM_CONSTANT) / (var a + var b + SSIM_CONSTANT)

    of the cells' brightness a and b. One that only sharpens changes neither, once the restored crop is as blurred as the original (`match_blur`).
    Outside the mesh the thresholds are halved. A global colour shift is ignored.

    scale: crop pixels per frame pixel. outline: (n, SPOKES) of each frame's mesh, see `mesh_points.outline`; None for the mean mesh.
    """
    cell = min(max(CELL, 2 ** math.ceil(math.log2(max(MIN_CELL_PIXELS * scale, 1)))), CROP // 16)
    a, b = (F.avg_pool2d(crops, cell) for crops in (restored, original))
    a = match_blur(a, b, cell)
    change = subtract_median(a - b)
    colour = change.square().mean(1, keepdim=True).sqrt()
    weight = 1 + outside_mesh(a.shape[-1], outline).to(a)
    differs = torch.maximum(smoothstep(colour * weight, *COLOUR), smoothstep(structure(a, b) * weight, *STRUCTURE))
    grown = F.max_pool2d(differs, DILATION, 1, DILATION // 2)
    soft = F.avg_pool2d(F.pad(grown, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return 1 - F.interpolate(soft, size=(CROP, CROP), mode="bilinear", align_corners=False)[:, 0].clamp(0, 1)


def subtract_median(change: Tensor) -> Tensor:
    """Differences (n, 3, h, w) minus their median, per image and channel."""
    return change - change.flatten(2).median(-1).values[..., None, None]


def match_blur(a: Tensor, b: Tensor, cell: int) -> Tensor:
    """Images a (n, 3, h, w) with pixels of `cell` crop pixels, each blurred by the one of BLUR_SIGMAS that fits b best.

    A restored face with the blur of the footage matches the footage everywhere but at occluders.
    """
    tried = torch.stack([gaussian_blur(a, sigma / cell) for sigma in BLUR_SIGMAS])
    far = torch.stack([subtract_median(one - b).square().sum(1).clamp(max=MAX_SQUARED_DISTANCE).mean((-2, -1)) for one in tried])
    return tried[far.argmin(0), torch.arange(len(a))]


def gaussian_blur(picture: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of images (n, 3, h, w), sigma in pixels, border replicated."""
    if sigma <= 0:
        return picture
    reach = min(math.ceil(2.5 * sigma), picture.shape[-1] - 1)
    taps = torch.exp(-torch.arange(-reach, reach + 1).to(picture).square() / (2 * sigma**2))
    taps = taps / taps.sum()
    wide = F.pad(picture.flatten(0, 1)[:, None], (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(wide, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1)).view_as(picture)


def structure(a: Tensor, b: Tensor) -> Tensor:
    """1 - SSIM without the luminance term, (n, 1, h, w) in [0, 2], of the brightness of two images (n, 3, h, w)."""

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (WINDOW // 2,) * 4, mode="replicate"), WINDOW, 1)

    x, y = a.mean(1, keepdim=True), b.mean(1, keepdim=True)
    mx, my = mean(x), mean(y)
    cov, vx, vy = mean(x * y) - mx * my, (mean(x * x) - mx * mx).clamp(min=0), (mean(y * y) - my * my).clamp(min=0)
    return structural_dissimilarity(cov, vx, vy)


def outside_mesh(side: int, outline: Tensor | None = None) -> Tensor:
    """Maps (n or 1, 1, side, side) over the crop, from 0 inside the mesh smoothly to 1 outside; without an outline the mesh is an ellipse.

    outline: (n, SPOKES), see `mesh_points.outline`; interpolated linearly in polar coordinates.
    """
    x0, y0, x1, y1 = MESH_BOUNDS
    places = (torch.arange(side) + 0.5) * CROP / side
    x, y = (places - (x0 + x1) / 2)[None].expand(side, side), (places - (y0 + y1) / 2)[:, None].expand(side, side)
    if outline is None:
        return smoothstep((2 * x / (x1 - x0)).hypot(2 * y / (y1 - y0)), 1.0, BORDER)[None, None]
    turn = torch.atan2(y, x) * (SPOKES / (2 * math.pi)) % SPOKES
    spoke = turn.floor().long() % SPOKES
    reach = outline.float().clamp(min=1).cpu()
    edge = reach[:, spoke].lerp(reach[:, (spoke + 1) % SPOKES], turn.frac()[None])
    return smoothstep(x.hypot(y) / edge, 1.0, BORDER)[:, None]
