"""Conversion between ComfyUI's IMAGE and MASK and frames (T, 3, H, W) float32 RGB in [0, 1] on the CPU.

The only place where the two layouts meet. Results never share memory with the arguments.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import host

MAX_UNIT_RANGE = 1.5
"""A picture is in [0, 255] if more than half of it exceeds this: pictures in [0, 1] overshoot rarely."""


def from_image(image: Tensor) -> Tensor:
    """IMAGE (B, H, W, 3 or 4), any float dtype, any device -> frames (B, 3, H, W): alpha dropped, clamped to [0, 1].

    Raises:
        ValueError: for another rank, number of channels or dtype, values in [0, 255], or an empty batch.
    """
    _check(image, "IMAGE", rank=4, layout="(batch, height, width, 3 or 4)")
    if image.shape[-1] not in (3, 4):
        raise ValueError(
            f"an IMAGE has 3 channels, or 4 with alpha, but this one has {image.shape[-1]} (shape {tuple(image.shape)}); convert it to RGB first"
        )
    looked_at = image[:, ::16, ::16, :3]
    if (looked_at > MAX_UNIT_RANGE).float().mean() > 0.5:
        raise ValueError(f"an IMAGE holds values from 0 to 1, but this one's go up to {float(looked_at.max()):.0f}; divide 8-bit values by 255")
    return _copy(image[..., :3].permute(0, 3, 1, 2), torch.float32, torch.device("cpu"))


def to_image(frames: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """Frames (T, 3, H, W) -> IMAGE (T, H, W, 3), contiguous, clamped to [0, 1], in the host's dtype unless given, and on its device.

    Raises:
        ValueError: for another rank, number of channels or dtype, or no frames.
    """
    _check(frames, "frames", rank=4, layout="(time, 3, height, width)")
    if frames.shape[1] != 3:
        raise ValueError(f"frames have 3 channels in dimension 1, got shape {tuple(frames.shape)}; give them as (time, 3, height, width)")
    return _copy(frames.permute(0, 2, 3, 1), dtype or host.intermediate_dtype(), host.intermediate_device())


def from_mask(mask: Tensor) -> Tensor:
    """MASK (B, H, W) or (H, W) -> (B, 1, H, W) float32 on the CPU in [0, 1]. Raises ValueError for another rank or dtype, or an empty batch."""
    if getattr(mask, "ndim", 0) == 2:
        mask = mask[None]
    _check(mask, "MASK", rank=3, layout="(batch, height, width)")
    return _copy(mask[:, None], torch.float32, torch.device("cpu"))


def fitted_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (B, 1, h, w) at the size (H, W) of their frames, by the maximum over each pixel, to keep small holes."""
    return mask if tuple(mask.shape[-2:]) == tuple(size) else F.adaptive_max_pool2d(mask, size)


def to_mask(mask: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """(T, 1, H, W) or (T, H, W) -> MASK (T, H, W), contiguous, clamped to [0, 1], in the host's dtype unless given, and on its device.

    Raises:
        ValueError: for another rank, number of channels or dtype, or an empty batch.
    """
    if getattr(mask, "ndim", 0) == 4 and mask.shape[1] == 1:
        mask = mask[:, 0]
    _check(mask, "mask", rank=3, layout="(time, height, width) or (time, 1, height, width)")
    return _copy(mask, dtype or host.intermediate_dtype(), host.intermediate_device())


def _check(value: Tensor, what: str, *, rank: int, layout: str) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{what} must be {layout}, got {type(value).__name__}: the node before gave no picture; look at it, or wire another")
    shape = tuple(value.shape)
    if value.ndim != rank:
        raise ValueError(f"{what} must be {layout}, got shape {shape}; add or drop a dimension")
    if 0 in shape:
        raise ValueError(f"{what} is empty (shape {shape}); give at least one frame")
    if not value.is_floating_point():
        raise ValueError(f"{what} must hold floats in [0, 1], got {value.dtype}; divide 8-bit values by 255")


def _copy(value: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    fresh = torch.empty(value.shape, dtype=dtype, device=device).copy_(value).clamp_(0, 1)
    if fresh.sum().isnan():
        raise ValueError(
            f"{int(fresh.isnan().sum())} of {fresh.numel()} values are NaN: the model before this node failed, often in half precision; "
            "run it in float32"
        )
    return fresh
