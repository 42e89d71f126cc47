"""What restorers with a trained network share: their options, where the network runs, and the way of crops in and out."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from ..faces.types import CROP, FaceTrack
from .placement import Placement, on
from .restorer import Heartbeat, Restorer

Cleaner = Callable[[Tensor], Tensor]
"""Crops to as many cleaned crops, frame by frame."""


def unchanged(crops: Tensor) -> Tensor:
    """No cleaner."""
    return crops


def is_cleaned(cleaner: Cleaner, crops: Tensor, side: int) -> bool:
    """Whether crops that came out of a cleaner are its own, for a network of `side`."""
    return cleaner is not unchanged and crops.shape[-1] > side


class NetworkRestorer(Restorer):
    """A restorer with a trained network, shared by all its sessions and never changed by them.

    Args:
        network: in eval mode.
        options: a frozen dataclass of the method's parameters; None is their defaults.
        place: where the network runs; None leaves it where it is.
    """

    options_type: ClassVar[type]

    def __init__(self, network: nn.Module, options: Any = None, *, place: Placement | None = None) -> None:
        self.network = network
        self.options = self.options_type() if options is None else options
        self.place = on(network, next(network.parameters()).device) if place is None else place
        self.floor: Restorer | None = None
        """What cleans the crops before this restorer sees them, without looking ahead: small networks need it."""

    def on_floor(self, floor: Restorer | None) -> Self:
        """The same restorer, over crops that `floor` cleaned."""
        other = copy(self)
        other.floor = floor
        return other

    def cleaner(self, track: FaceTrack | None, heartbeat: Heartbeat) -> Cleaner:
        """What a session's crops go through first: `floor`, in a session of its own, or nothing.

        Faces no larger than the network's own side stay as they are: it was trained on such, and the floor has nothing to add to them.
        """
        if self.floor is None:
            return unchanged
        config: Any = self.network.config
        if track is not None and track.scale >= CROP / config.side:
            return unchanged
        side: int = config.side
        push = self.floor.open(track, heartbeat=heartbeat).push
        return lambda crops: push(crops) if crops.shape[-1] > side else crops

    def configured(self, **changes: Any) -> Self:
        """The same restorer with other parameters.

        Raises:
            ValueError: if a value is out of range.
            TypeError: if there is no such parameter.
        """
        other = copy(self)
        other.options = replace(self.options, **changes)
        return other


def to_network(crops: Tensor, side: int, device: torch.device) -> Tensor:
    """Square crops (n, 3, S, S) in [0, 1] as the network takes them: (n, 3, side, side) in [-1, 1], bilinear, on `device`.

    They are resized where they are, on the CPU: Apple's MPS averages over whole factors only.

    Raises:
        ValueError: for crops that are not square.
    """
    check_square(crops)
    x = resized(crops, side, "bilinear").to(device)
    return (x * 2 - 1).contiguous(memory_format=torch.channels_last)


def check_square(crops: Tensor) -> None:
    """Raises ValueError for crops that are not square."""
    if crops.shape[-1] != crops.shape[-2]:
        raise ValueError(
            f"face restorers take square crops, got {crops.shape[-1]} x {crops.shape[-2]} (width x height); cut the faces out with Face Align, or "
            "leave --aligned out"
        )


def from_network(images: Tensor) -> Tensor:
    """A network's images, around [-1, 1], as restored crops: (n, 3, 512, 512) float32 in [0, 1] on the CPU."""
    return resized((images.float().clamp(-1, 1) + 1) / 2, CROP, "bicubic").clamp(0, 1).cpu().contiguous()


def resized(images: Tensor, side: int, mode: str) -> Tensor:
    """`images` at side x side; averaged over areas when that is smaller, by `mode` otherwise."""
    height, width = images.shape[-2:]
    if (height, width) == (side, side):
        return images
    if min(height, width) >= side:
        return F.interpolate(images, (side, side), mode="area")
    return F.interpolate(images, (side, side), mode=mode, align_corners=False)
