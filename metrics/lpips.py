"""LPIPS (Zhang et al., CVPR 2018), where the package and its weights are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

Backbone = Literal["vgg", "alex"]

BACKBONES: dict[Backbone, str] = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}
"""torchvision's weights files by the backbone names of the package `lpips`."""
MIN_SIDE = 32
"""Least shorter side in pixels for the networks' last layers."""


def lpips_or_none(device: torch.device, backbone: Backbone = "vgg") -> nn.Module | None:
    """LPIPS as a module from two images (N, 3, H, W) in [-1, 1] to distances (N, 1, 1, 1), or None where it is not installed.

    Needs the package `lpips`, which includes its linear weights, and the backbone's weights in torch.hub's checkpoint folder, which are never
    downloaded here.
    """
    try:
        import lpips  # type: ignore[import-not-found]
    except ImportError:
        return None
    if not backbone_file(backbone).is_file():
        return None
    return lpips.LPIPS(net=backbone, verbose=False).to(device).eval().requires_grad_(False)


def backbone_file(backbone: Backbone) -> Path:
    """The path where torchvision stores the backbone's weights."""
    return Path(torch.hub.get_dir()) / "checkpoints" / BACKBONES[backbone]


def perceptual_distance(module: nn.Module, x: Tensor, y: Tensor, region: Tensor | None = None) -> Tensor:
    """LPIPS of each frame: 0 for equal frames, rarely above 1.

    x, y: (N, 3, H, W) in [0, 1]. region: (N, 1, H, W); the distance is that of the bounding box of its pixels above 1/2.
    Returns (N,) float64 on the CPU, NaN where the frame or that box is below 32 pixels.
    """
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    found = []
    for n in range(len(x)):
        rows, columns = (slice(None), slice(None)) if region is None else bounding_slices(region[n, 0])
        a, b = (image[n : n + 1, :, rows, columns].to(device, torch.float32) * 2 - 1 for image in (x, y))
        found.append(module(a, b).cpu().double().mean() if min(a.shape[-2:]) >= MIN_SIDE else torch.tensor(torch.nan, dtype=torch.float64))
    return torch.stack(found)


def bounding_slices(region: Tensor) -> tuple[slice, slice]:
    """Bounding rows and columns of the pixels of region (H, W) above 1/2; both empty if there are none."""
    at = torch.nonzero(region > 0.5)
    if not len(at):
        return slice(0, 0), slice(0, 0)
    (top, left), (bottom, right) = at.amin(0).tolist(), at.amax(0).tolist()
    return slice(top, bottom + 1), slice(left, right + 1)
