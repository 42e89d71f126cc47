"""Frames at a larger size, so that a face restored at 512 is not thrown away where it is small in its frame."""

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
"""Times the source's size."""


def enlarged(frames: Tensor, scale: int, network: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """(n, 3, H, W) in [0, 1] to (n, 3, scale H, scale W) in [0, 1]: by Lanczos, or by a network whose result is brought to that size.

    network: (3, H, W) in [0, 1] to a multiple of its size.
    """
    if scale == 1:
        return frames
    height, width = (scale * side for side in frames.shape[-2:])
    out = frames.new_empty(len(frames), frames.shape[1], height, width)
    for frame, place in zip(frames, out, strict=True):
        place.copy_(lanczos_resize(frame if network is None else network(frame), height, width))
    return out.clamp_(0, 1)


def lanczos_resize(picture: Tensor, height: int, width: int) -> Tensor:
    """(C, H, W) to (C, height, width), both larger or both smaller: Lanczos, ends repeated, not clamped."""
    if (height, width) == tuple(picture.shape[-2:]):
        return picture
    if height < picture.shape[-2]:
        step = picture.shape[-2] / height
        matrix = torch.tensor([[step, 0, (step - 1) / 2], [0, step, (step - 1) / 2]], dtype=torch.float64)
        return warp_affine(low_pass(picture, step)[None], matrix[None], height, width)[0]
    rows = np.ascontiguousarray(picture.permute(1, 2, 0).numpy(force=True))
    large = cv2.resize(rows, (width, height), interpolation=cv2.INTER_LANCZOS4).reshape(height, width, -1)
    return torch.from_numpy(large).permute(2, 0, 1).to(picture)


def in_larger_frame(matrices: Tensor, scale: int) -> Tensor:
    """Maps (..., 2, 3) from pixels of the enlarged frame, made of those from pixels of the frame; pixel centres on integers."""
    linear = matrices[..., :2] / scale
    return torch.cat([linear, matrices[..., 2:] - linear.sum(-1, keepdim=True) * (scale - 1) / 2], -1)


def grain_kept(frame: Tensor, large: Tensor) -> float:
    """The share of a frame's (3, H, W) fine noise that its enlargement (3, s H, s W) still has at the frame's own size, at most 1.

    Lanczos keeps all of it; a network may have taken it for damage.
    """
    scale = large.shape[-1] // frame.shape[-1]
    plain, made = (F.avg_pool2d(picture[None], scale)[0] for picture in (lanczos_resize(frame, *large.shape[-2:]), large))
    had, has = (robust_std(diagonal_detail(luma(picture)[0].numpy(force=True))) for picture in (plain, made))
    return min(1.0, has / had) if had > 0 else 0.0
