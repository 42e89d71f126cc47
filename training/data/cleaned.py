"""Small faces as the embedded codebooks see them: degraded like footage, then restored by the blind network. Made once and cached on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...methods.base import resized
from ...methods.blind.restorer import BlindRestorer, BlindSession
from ...models.device import no_check
from .pairs import Pairs, keep, pictures

CLIP = 3
"""Frames of a clip."""


class CleanedClips:
    """Clip number i is a function of the pairs, the restorer, the side and i. Clips are made once and then read from `folder`.

    Args:
        pairs: of windows as large as the crop.
        restorer: the blind restorer.
        side: to which they are downsampled by averaging.
        folder: where they are kept.
    """

    def __init__(self, pairs: Pairs, restorer: BlindRestorer, side: int, folder: Path) -> None:
        self.pairs, self.restorer, self.side, self.folder = pairs, restorer, side, folder
        folder.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """A cleaned clip and the truth, (T, 3, side, side) each, in [0, 1]."""
        path = self.folder / f"{index:06}.npz"
        if not path.is_file():
            cleaned, truth = map(steps, self.make(index))
            keep(path, cleaned=cleaned, truth=truth)
        with np.load(path) as kept:
            return pictures(kept["cleaned"]), pictures(kept["truth"])

    def make(self, index: int) -> tuple[Tensor, Tensor]:
        """Clip `index`, made anew."""
        pair = self.pairs.make(index)
        damaged, truth = pictures(pair.damaged), pictures(pair.clean)
        session = BlindSession(self.restorer, no_check, max(1.0, 1 / pair.scale))
        cleaned = torch.cat([session.push(damaged), session.close()])
        return resized(cleaned, self.side, "bilinear"), resized(truth, self.side, "bilinear")


def steps(clip: Tensor) -> np.ndarray:
    """A clip (T, 3, H, W) in [0, 1] as whole numbers of 16 bits, (T, H, W, 3); `pictures` is its inverse."""
    return (clip.permute(0, 2, 3, 1).clamp(0, 1) * np.iinfo(np.uint16).max).round().numpy().astype(np.uint16)
