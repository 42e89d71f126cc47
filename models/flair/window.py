"""What the layers of a video UNet share during one call: which frames belong together, the noise level's embedding, flow, memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

Size = tuple[int, int]
"""(height, width) of a feature map."""


class Flow(NamedTuple):
    """Motion between neighbouring frames at one size, (B, T - 1, 2, h, w) float32 each, x before y, in pixels of that size.

    Attributes:
        back: entry i points from frame i + 1 to frame i; it serves features carried forward in time.
        ahead: entry i points from frame i to frame i + 1.
    """

    back: Tensor
    ahead: Tensor


Flows = Mapping[Size, Flow]
"""The flow of a window for each size at which features are carried from frame to frame."""


@dataclass(frozen=True)
class Window:
    """One call of a network on B clips of T frames each, whose features are (B T, C, h, w), clip by clip.

    Attributes:
        frames: T.
        embedding: (B T, E) of the noise level, or of the timestep.
        temporal: whether temporal layers act; without them the network is the image network it was made from.
        flows: needed where temporal layers act and T > 1.
        weights: by size, how much of what is carried survives each frame (eq. 17's annealing), (B T, 1, h, w) or one number for all.
        pixels: how many pixels (frames x height x width) a convolution takes at once, None for all. Results do not depend on it.
    """

    frames: int
    embedding: Tensor
    temporal: bool
    flows: Flows
    weights: Mapping[Size, Tensor] | float
    pixels: int | None = None

    def parts(self, x: Tensor, enlarged: int = 1) -> list[slice]:
        """Slices of the frames of x (B T, C, h, w) that are worked on at once, never across clips; `enlarged` is the area of the result."""
        at_once = self.frames if self.pixels is None else max(1, self.pixels // (enlarged * x.shape[-2] * x.shape[-1]))
        if at_once >= self.frames:
            step = len(x) if self.pixels is None else at_once // self.frames * self.frames
            return [slice(start, min(start + step, len(x))) for start in range(0, len(x), step)]
        clips = range(0, len(x), self.frames)
        return [slice(i, min(i + at_once, clip + self.frames)) for clip in clips for i in range(clip, clip + self.frames, at_once)]


def joined(pieces: Iterable[Tensor], count: int) -> Tensor:
    """Pieces of `count` frames in all, in order, as one tensor (count, ...).

    Where no gradient is asked for each is written to its place and let go, so that result and pieces never take room together.
    """
    if torch.is_grad_enabled():
        return torch.cat(list(pieces))
    whole, done = None, 0
    for piece in pieces:
        if len(piece) == count:
            return piece
        if whole is None:
            layout = torch.channels_last if piece.ndim == 4 else torch.contiguous_format
            whole = torch.empty((count, *piece.shape[1:]), dtype=piece.dtype, device=piece.device, memory_format=layout)
        whole[done : done + len(piece)] = piece
        done += len(piece)
        del piece
    assert whole is not None
    return whole
