"""One restorer after another."""

from __future__ import annotations

import torch
from torch import Tensor

from ..faces.types import FaceTrack
from ..models.device import CheckInterrupt, no_check
from .base import Restorer, Session, joined, refuse_masks


class Chain(Restorer):
    """Restores the crops by `first` and the result by `then`. Unlike a pre-cleaner, `first` may look ahead; masks are refused."""

    def __init__(self, first: Restorer, then: Restorer) -> None:
        self.first, self.then = first, then
        self.name = then.name
        self.look_ahead = first.look_ahead + then.look_ahead

    def repaints(self, track: FaceTrack | None = None) -> bool:
        return self.first.repaints(track) or self.then.repaints(track)

    def open(self, track: FaceTrack | None = None, *, seed: int = 0, check_interrupt: CheckInterrupt = no_check) -> Session:
        both = [part.open(track, seed=seed, check_interrupt=check_interrupt) for part in (self.first, self.then)]
        return ChainSession(self.name, *both)


class ChainSession(Session):
    """One person's clip, through two sessions."""

    def __init__(self, name: str, first: Session, then: Session) -> None:
        self.name, self.first, self.then = name, first, then

    def push(self, crops: Tensor, masks: Tensor | None = None) -> Tensor:
        refuse_masks(self.name, masks)
        return self._on(self.first.push(crops))

    def close(self) -> Tensor:
        return torch.cat([self._on(self.first.close()), self.then.close()])

    def _on(self, crops: Tensor) -> Tensor:
        return self.then.push(crops) if len(crops) else joined([])
