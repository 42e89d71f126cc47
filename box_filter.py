"""Box filters (means over square windows) built from sliding-window sums."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def box_filter(values: Tensor, side: int) -> Tensor:
    """Means of (n, C, H, W) over windows of an odd `side`, cut off at the border; six times faster on a CPU than F.avg_pool2d."""
    radius = side // 2
    height, width = values.shape[-2:]
    sums = window_sums(window_sums(F.pad(values, (radius, radius, radius, radius)), side, -2), side, -1)
    return sums / (window_sizes(height, radius, values)[:, None] * window_sizes(width, radius, values))


def window_sums(values: Tensor, side: int, axis: int) -> Tensor:
    """Sums of `side` neighbours along an axis, which ends up side - 1 shorter: sums of 1, 2, 4, ... neighbours, chosen by the bits of `side`."""
    length = values.shape[axis] - side + 1
    pieces, size, start, doubled = [], 1, 0, values
    while True:
        if side & size:
            pieces.append(doubled.narrow(axis, start, length))
            start += size
        if 2 * size > side:
            break
        remaining = doubled.shape[axis] - size
        doubled = doubled.narrow(axis, 0, remaining) + doubled.narrow(axis, size, remaining)
        size *= 2
    total = pieces[0]
    for piece in pieces[1:]:
        total = total + piece
    return total


def window_sizes(length: int, radius: int, like: Tensor) -> Tensor:
    """How many positions of an axis each window covers, (length,), in the dtype and on the device of `like`."""
    position = torch.arange(length, device=like.device)
    return ((position + radius).clamp(max=length - 1) - (position - radius).clamp(min=0) + 1).to(like)


def fractional_box_filter(images: Tensor, width: float) -> Tensor:
    """Means of (n, C, H, W) over squares of `width` pixels, which may be fractional, centred at each pixel; the border is replicated.

    >>> fractional_box_filter(torch.tensor([[[[0.0, 0.0, 1.0, 0.0, 0.0]]]]), 2.0).tolist()
    [[[[0.0, 0.25, 0.5, 0.25, 0.0]]]]
    """
    if width <= 1:
        return images
    radius = math.ceil((width - 1) / 2)
    edge_weight = (width + 1) / 2 - radius  # of the outermost pixel on each side
    result = F.pad(images, (radius, radius, radius, radius), mode="replicate")
    for axis in (-2, -1):
        outer = window_sums(result, 2 * radius + 1, axis)
        inner = window_sums(result, 2 * radius - 1, axis).narrow(axis, 1, outer.shape[axis])
        result = torch.lerp(inner, outer, edge_weight) / width
    return result
