"""What lies before a face, without a network: where the restored face and the original differ in what no restoration changes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .strength import rise
from .types import CROP

CELL = 16
"""Side in crop pixels of the cells whose mean colours are compared: damage and detail lie below it."""

DIFFERENT = (0.10, 0.20)
"""Distance of two cells' colours between which a cell goes from face to what lies before it; not measured on footage."""

GROWN = 3
"""Cells by which what lies before the face is widened, so that its edge is not restored into the face."""


def unoccluded(restored: Tensor, original: Tensor) -> Tensor:
    """Masks (n, 512, 512) in [0, 1], 0 where something lies before the face, from crops (n, 3, 512, 512) after and before restoration.

    A restorer that paints a face over a hand changes the mean colour of a region; one that sharpens does not. The shift that the whole crop
    has in common, as after a change of colours, is left out.
    """
    small = [F.avg_pool2d(crops, CELL) for crops in (restored, original)]
    change = small[0] - small[1]
    change = change - change.flatten(2).median(-1).values[..., None, None]
    differs = rise(change.square().mean(1, keepdim=True).sqrt(), *DIFFERENT)
    grown = F.max_pool2d(differs, GROWN, 1, GROWN // 2)
    soft = F.avg_pool2d(F.pad(grown, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return 1 - F.interpolate(soft, size=(CROP, CROP), mode="bilinear", align_corners=False)[:, 0].clamp(0, 1)
