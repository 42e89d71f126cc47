"""Which pixels are visible in both of two frames, by forward-backward consistency."""

from __future__ import annotations

import torch
from torch import Tensor

from .warp import warp

ALPHA_1, ALPHA_2 = 0.01, 0.5
"""alpha_1 and alpha_2 of Meister et al., in squared pixels."""


def visible(forward: Tensor, backward: Tensor) -> Tensor:
    """1 where a pixel of the first frame is also seen in the second, else 0 (Meister et al., AAAI 2018, eq. 2, squared norms).

    Occluded: |w_f(x) + w_b(x + w_f(x))|^2 >= 0.01 (|w_f(x)|^2 + |w_b(x + w_f(x))|^2) + 0.5, or x + w_f(x) outside the second frame.

    Args:
        forward, backward: (N, 2, H, W) flow of the first frame into the second and back, in pixels, x to the right and y down.

    Returns:
        (N, 1, H, W) float32 of zeros and ones.
    """
    back = warp(backward, forward)
    disagreement = (forward + back).square().sum(1)
    allowed = ALPHA_1 * (forward.square().sum(1) + back.square().sum(1)) + ALPHA_2
    height, width = forward.shape[-2:]
    x = torch.arange(width, device=forward.device) + forward[:, 0]
    y = torch.arange(height, device=forward.device)[:, None] + forward[:, 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return ((disagreement < allowed) & inside)[:, None].float()
