"""Luma: weighted sum of R, G and B."""

from __future__ import annotations

from torch import Tensor

BT601 = (0.299, 0.587, 0.114)
"""Luma weights of R, G and B (ITU-R BT.601), as in JPEG, OpenCV and the networks' grey training frames."""
BT709 = (0.2126, 0.7152, 0.0722)
"""Luma weights of high-definition video (ITU-R BT.709)."""


def luma(frames: Tensor) -> Tensor:
    """Y' of BT.601: (..., 3, H, W) to (..., 1, H, W), in the dtype of the frames.

    >>> import torch
    >>> luma(torch.ones(3, 1, 1)).shape
    torch.Size([1, 1, 1])
    """
    red, green, blue = (weight * frames.narrow(-3, channel, 1) for channel, weight in enumerate(BT601))
    return red.add_(green).add_(blue)
