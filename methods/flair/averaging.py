"""FLAIR-SA (Zou et al., section 5.2): the mean of several samples of a clip, which is closer to the truth and less sharp than each of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..base import Session


class AveragedSession(Session):
    """Passes every frame to all sessions, which return frames at the same pace, and returns the mean of their results."""

    def __init__(self, sessions: Sequence[Session]) -> None:
        self.sessions = sessions

    @property
    def note(self) -> str:  # type: ignore[override]
        return self.sessions[0].note

    def push(self, crops: Tensor, masks: Tensor | None = None) -> Tensor:
        return self._mean([session.push(crops, masks) for session in self.sessions])

    def close(self) -> Tensor:
        return self._mean([session.close() for session in self.sessions])

    @staticmethod
    def _mean(samples: list[Tensor]) -> Tensor:
        return torch.stack(samples).mean(0)
