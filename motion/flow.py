"""What a source of optical flow is."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class FlowSource(Protocol):
    """Finds, for every pixel of a frame, where it was in the frame before.

    In two steps, so that what a frame needs by itself is computed once although it belongs to two pairs. Frames are (N, 3, H, W) float32
    RGB in [-1, 1], as networks take them. KEEP's own GMFlow (models/gmflow.py), DisFlow and RaftFlow fit.
    """

    def features(self, frames: Tensor) -> Any:
        """What pairs with these frames need, in a form of the source's own."""

    def flow(self, current: Any, previous: Any) -> Tensor:
        """The features of N frames and of the N frames before them, to the flow of each into the latter.

        Returns:
            (N, 2, H, W) float32 on the frames' device: pixels, x to the right and y down. `warp(previous_frames, flow)` looks like the
            current frames.
        """
        ...
