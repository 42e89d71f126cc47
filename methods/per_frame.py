"""Restorers that see one frame at a time: any network that maps a face to a face of the same size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..faces.types import CROP, FaceTrack
from ..models.device import CheckInterrupt, Placement, in_batches, no_check
from ..options import Options
from .base import Capability, NetworkRestorer, Session, WarmUp, batch_parameter, from_network, joined, refuse_masks, to_network

WORKING_BYTES = 512 << 20
"""Working memory in bytes that such networks need for one frame of 512 x 512: about eight full-size maps of 64 channels."""


@dataclass(frozen=True)
class PerFrameOptions(Options):
    """Parameters of a restorer that has none of its own."""

    batch: int = batch_parameter(4)


class PerFrameRestorer(NetworkRestorer):
    """Restores every frame by itself: RestoreFormer, GFPGAN and others. Nothing is carried from frame to frame, and no seed is used.

    Args:
        network: (n, 3, side, side) in [-1, 1] to the same.
        options, place: as NetworkRestorer.
        name: of this network, for reports: "restoreformer", "gfpgan".
        side: height and width of the faces that the network takes.
    """

    options_type = PerFrameOptions
    name = "per-frame"
    supports: frozenset[Capability] = frozenset({"single_frames"})

    def __init__(self, network: nn.Module, options: Any = None, *, place: Placement | None = None, name: str = "per-frame", side: int = CROP) -> None:
        super().__init__(network, options, place=place)
        self.name = name
        self._side = side

    @property
    def side(self) -> int:
        return self._side

    def repaints(self, track: FaceTrack | None = None) -> bool:
        return True

    @property
    def own_warm_up(self) -> WarmUp:
        return WarmUp()

    def open(self, track: FaceTrack | None = None, *, seed: int = 0, check_interrupt: CheckInterrupt = no_check) -> Session:
        return _PerFrameSession(self, check_interrupt)

    @torch.inference_mode()
    def restore(self, crops: Tensor) -> Tensor:
        """One batch of crops (n, 3, H, W) in [0, 1] to (n, 3, 512, 512) in [0, 1]."""
        device = self.place(len(crops) * WORKING_BYTES * self.side**2 // CROP**2)
        return from_network(self.network(to_network(crops, self.side, device)))


class _PerFrameSession(Session):
    def __init__(self, restorer: PerFrameRestorer, check_interrupt: CheckInterrupt) -> None:
        self.restorer = restorer
        self.check_interrupt = check_interrupt

    def push(self, crops: Tensor, masks: Tensor | None = None) -> Tensor:
        refuse_masks(self.restorer.name, masks)
        return in_batches(self.restorer.restore, crops, self.restorer.options.batch, self.check_interrupt)

    def close(self) -> Tensor:
        return joined([])
