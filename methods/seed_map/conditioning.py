"""The condition made of an observation, for priors that were trained with a damaged face beside the noisy one."""

from __future__ import annotations

from torch import Tensor

from ...physics.base import Degradation
from ..flair.observation import condition
from ..tasks import pull_push_fill
from .data_term import known_pixels


def guides(y: Tensor, operator: Degradation, size: tuple[int, int], upsampling: str = "bicubic") -> Tensor:
    """(N, 3, H, W) in [-1, 1] of y (N, 3, h, w) in [0, 1]: hidden pixels are filled from around, and frames brought to `size`; see `condition`."""
    return condition(pull_push_fill(y, (~known_pixels(operator, y)).to(y)), upsampling, size)
