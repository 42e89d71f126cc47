"""RAFT (Teed and Deng, ECCV 2020) as torchvision has it, and as ComfyUI hands it out on its OPTICAL_FLOW socket."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MULTIPLE, MIN_SIDE = 8, 128
"""RAFT wants sides that are multiples of the first and not below the second."""


class RaftFlow:
    """A flow source around a torchvision RAFT.

    Args:
        module: raft_large or raft_small, in eval mode, float32.
        place: brings the module to where it runs, with room for so many bytes beside it, and returns that device; None leaves it where it is.
        updates: refinements of the flow; torchvision's default is 12.
    """

    def __init__(self, module: nn.Module, place: Callable[[int], torch.device] | None = None, *, updates: int = 12) -> None:
        self.module = module
        self.updates = updates
        self._place = place

    def features(self, frames: Tensor) -> Tensor:
        """The frames themselves: torchvision computes both frames' features in one call."""
        return frames

    def flow(self, current: Tensor, previous: Tensor) -> Tensor:
        """Frames (N, 3, H, W) in [-1, 1] to the flow (N, 2, H, W) of `current` into `previous`, in pixels of their own size."""
        height, width = current.shape[-2:]
        size = [max(MIN_SIDE, -(-side // MULTIPLE) * MULTIPLE) for side in (height, width)]
        device = next(self.module.parameters()).device if self._place is None else self._place(working_memory(*size))
        frames = [F.interpolate(x.to(device, torch.float32).contiguous(), size, mode="bilinear") for x in (current, previous)]
        flow = self.module(*frames, num_flow_updates=self.updates)[-1]
        scale = flow.new_tensor([width / size[1], height / size[0]]).view(2, 1, 1)
        return (F.interpolate(flow, (height, width), mode="bilinear") * scale).to(current.device)


def working_memory(height: int, width: int) -> int:
    """Bytes that RAFT needs for a pair: all places at 1/8 against all, at four scales, and the features around them."""
    places = height // MULTIPLE * (width // MULTIPLE)
    return 4 * (2 * places**2 + 1024 * height * width // 4)
