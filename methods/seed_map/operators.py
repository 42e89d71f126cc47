"""The pixels of the observation that A hides."""

from __future__ import annotations

import torch
from torch import Tensor

from ...physics.base import Degradation
from ...physics.compose import chain_of, compose
from ...physics.inpaint import Inpaint, RandomInpaint


def peeled(operator: Degradation) -> tuple[list[Inpaint | RandomInpaint], Degradation]:
    """(masks, rest) of A: the masks that act last, the very last first, and what acts before them, perhaps the identity."""
    masks: list[Inpaint | RandomInpaint] = []
    chain = chain_of(operator)
    for part in chain:
        if not isinstance(part, Inpaint | RandomInpaint):
            break
        masks.append(part)
    return masks, compose(chain[len(masks) :])


def known_pixels(operator: Degradation, y: Tensor) -> Tensor:
    """(N, 1, h, w) bool, for y (N, 3, h, w): the pixels of the observation that no mask of `peeled` hides."""
    known = torch.ones(1, 1, *y.shape[-2:], dtype=torch.bool, device=y.device)
    for mask in peeled(operator)[0]:
        known = known & (mask.mask_for(y) > 0)
    return known.expand(len(y), 1, *y.shape[-2:])
