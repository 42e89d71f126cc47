"""Enlarged frames, so that small faces keep the detail of their 512-pixel restoration."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...colour import luma
from ..warp import low_pass, warp_affine
from .grain import diagonal_detail, robust_std

MAX_SCALE = 4
"""Largest factor by which frames are enlarged."""


def enlarged(frames: Tensor, scale: int, network: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Frames (n, 3, H, W) in [0, 1] as (n, 3, scale H, scale W) in [0, 1], by Lanczos or by a network whose output is resized to that.

    network: maps (3, H, W) in [0, 1] to a multiple of its size.
    """
    if scale == 1:
        return frames
    height, width = (scale * side for side in frames.shape[-2:])
    out = frames.new_empty(len(frames), frames.shape[1], height, width)
    for frame, place in zip(frames, out, strict=True):
        place.copy_(lanczos_resize(frame if network is None else network(frame), height, width))
    return out.clamp_(0, 1)


def lanczos_resize(picture: Tensor, height: int, width: int) -> Tensor:
    """Lanczos resize of (C, H, W) to (C, height, width), both larger or both smaller; border replicated, not clamped."""
    if (height, width) == tuple(picture.shape[-2:]):
        return picture
    if height < picture.shape[-2]:
        step = picture.shape[-2] / height
        matrix = torch.tensor([[step, 0, (step - 1) / 2], [0, step, (step - 1) / 2]], dtype=torch.float64)
        return warp_affine(low_pass(picture, step)[None], matrix[None], height, width)[0]
    rows = np.ascontiguousarray(picture.permute(1, 2, 0).numpy(force=True))
    large = cv2.resize(rows, (width, height), interpolation=cv2.INTER_LANCZOS4).reshape(height, width, -1)
    return torch.from_numpy(large).permute(2, 0, 1).to(picture)


def in_larger_frame(matrices: Tensor, scale: float) -> Tensor:
    """Transforms (..., 2, 3) from frame pixels, as transforms from pixels of the frame resized by `scale`; pixel centres at integers."""
    linear = matrices[..., :2] / scale
    return torch.cat([linear, matrices[..., 2:] - linear.sum(-1, keepdim=True) * (scale - 1) / 2], -1)


def grain_kept(frame: Tensor, large: Tensor) -> float:
    """Fraction, at most 1, of the fine noise of a frame (3, H, W) that survives in its enlargement (3, s H, s W).

    Lanczos keeps all of it; an upscaling network may have removed it.
    """
    scale = large.shape[-1] // frame.shape[-1]
    plain, made = (F.avg_pool2d(picture[None], scale)[0] for picture in (lanczos_resize(frame, *large.shape[-2:]), large))
    had, has = (robust_std(diagonal_detail(luma(picture)[0].numpy(force=True))) for picture in (plain, made))
    return min(1.0, has / had) if had > 0 else 0.0
