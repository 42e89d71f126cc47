"""Small faces as the embedded codebooks get them: damaged as footage is, then cleaned by the blind restorer. Made once and kept on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...methods.base import resized
from ...methods.blind.restorer import BlindRestorer, BlindSession
from ...models.device import no_check
from .pairs import FINE, Pairs

CLIP = 3
"""Frames of a clip."""


class CleanedClips:
    """Clip number i is a function of the pairs, the restorer, the side and i; what was made once is read from `folder` from then on.

    Args:
        pairs: of windows as large as the crop.
        restorer: what cleans them.
        side: to which they are averaged.
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
            cleaned, truth = map(to_steps, self.make(index))
            part = path.with_suffix(".part")
            with part.open("wb") as file:
                np.savez(file, cleaned=cleaned, truth=truth)
            part.replace(path)
        with np.load(path) as kept:
            return from_steps(kept["cleaned"]), from_steps(kept["truth"])

    def make(self, index: int) -> tuple[Tensor, Tensor]:
        """Clip `index`, made anew."""
        pair = self.pairs.make(index)
        damaged, truth = (
            torch.from_numpy(clip.astype(np.float32) / steps).permute(0, 3, 1, 2) for clip, steps in ((pair.damaged, 255 * FINE), (pair.clean, 255))
        )
        session = BlindSession(self.restorer, no_check, max(1.0, 1 / pair.scale))
        cleaned = torch.cat([session.push(damaged), session.close()])
        return resized(cleaned, self.side, "bilinear"), resized(truth, self.side, "bilinear")


def to_steps(clip: Tensor) -> np.ndarray:
    """Of [0, 1] in 16 bits."""
    return (clip.clamp(0, 1) * 65535).round().numpy().astype(np.uint16)


def from_steps(clip: np.ndarray) -> Tensor:
    """The inverse of `to_steps`."""
    return torch.from_numpy(clip.astype(np.float32) / 65535)
