"""Frames moved along optical flow."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(image: Tensor, flow: Tensor, mode: str = "bilinear") -> Tensor:
    """Backward warp: what `image` shows at each place's own position plus its flow, 0 beyond the borders.

    With the flow of frame t into frame t - 1 and the image of frame t - 1, the result looks like frame t.

    Args:
        image: (N, C, H, W).
        flow: (N, 2, H, W), x to the right and y down, in pixels.
        mode: "bilinear", or "bicubic", which stays sharp when it is done again and again.

    Returns:
        (N, C, H, W) float32, computed in it.

    Raises:
        ValueError: if the two do not fit.
    """
    if flow.shape != (len(image), 2, *image.shape[-2:]):
        raise ValueError(f"an image of shape {tuple(image.shape)} cannot be warped by a flow of shape {tuple(flow.shape)}; resize one of them")
    height, width = image.shape[-2:]
    flow = flow.float()
    x = torch.arange(width, device=flow.device) + flow[:, 0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    place = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], -1)
    if mode == "bicubic" and image.device.type == "mps":  # whose kernel is bilinear only
        return F.grid_sample(image.float().cpu(), place.cpu(), mode=mode, padding_mode="zeros", align_corners=True).to(image.device)
    return F.grid_sample(image.float(), place, mode=mode, padding_mode="zeros", align_corners=True)
