"""Dense inverse search (Kroeger et al., ECCV 2016), by OpenCV: no weights, tens of milliseconds a pair on the CPU."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from ..colour import luma


@dataclass(frozen=True)
class GreyFrames:
    """Frames as the search sees them.

    Attributes:
        images: each (H, W) uint8.
        device: where the flow is wanted.
    """

    images: tuple[np.ndarray, ...]
    device: torch.device


class DisFlow:
    """A flow source that needs nothing but OpenCV; of OpenCV's presets the finest, "medium"."""

    def features(self, frames: Tensor) -> GreyFrames:
        """(N, 3, H, W) in [-1, 1] to 8-bit luma (BT.601)."""
        grey = (luma(frames)[:, 0] * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        return GreyFrames(tuple(grey), frames.device)

    def flow(self, current: GreyFrames, previous: GreyFrames) -> Tensor:
        """The flow (N, 2, H, W) of `current` into `previous`, in pixels."""
        search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # holds buffers, so it is not shared
        flows = [search.calc(now, before, None) for now, before in zip(current.images, previous.images, strict=True)]
        return torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2).contiguous().to(current.device)
