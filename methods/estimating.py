"""Sessions that estimate the damage from a person's first crops, and choose the restorer by it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..faces.align import SURROUNDINGS_FRAMES
from ..faces.types import FaceTrack
from ..models.device import CheckInterrupt
from ..physics.estimation import Estimate, estimate_degradation
from ..physics.traces import Traces, find_traces
from .base import Restorer, Session, joined, refuse_masks

ESTIMATION_FRAMES = SURROUNDINGS_FRAMES
"""Number of a person's first crops that the damage is estimated from."""


class EstimatingSession(Session):
    """Holds crops back until there are enough to estimate the damage, then passes all of them to the chosen restorer.

    Args:
        name: of the restorer that opened this session, for errors.
        choose: from an estimate to the restorer; its sessions must not estimate again.
        track, seed, check_interrupt: as Restorer.open.
    """

    def __init__(
        self, name: str, choose: Callable[[Estimate], Restorer], track: FaceTrack | None, seed: int, check_interrupt: CheckInterrupt
    ) -> None:
        self.name = name
        self.choose, self.track, self.seed, self.check_interrupt = choose, track, seed, check_interrupt
        self._waiting: list[Tensor] = []
        self._around: list[Tensor] = []
        self._session: Session | None = None

    @property
    def looks(self) -> int:  # type: ignore[override]
        return 0 if self._session is not None else ESTIMATION_FRAMES - sum(map(len, self._around))

    def look(self, around: Tensor) -> None:
        self._around.append(around)

    def push(self, crops: Tensor, masks: Tensor | None = None) -> Tensor:
        refuse_masks(self.name, masks)
        if self._session is not None:
            return self._session.push(crops)
        self._waiting.append(crops)
        if sum(len(part) for part in self._waiting) < ESTIMATION_FRAMES:
            return joined([])
        return self._begin()

    def close(self) -> Tensor:
        early = self._begin() if self._waiting else joined([])
        return early if self._session is None else torch.cat([early, self._session.close()])

    def _begin(self) -> Tensor:
        crops, self._waiting = torch.cat(self._waiting), []
        around, self._around = self._around, []
        self.check_interrupt()
        scale = 1.0 if self.track is None else self.track.scale
        traces = find_traces(torch.cat(around)) if around else Traces()
        estimate = estimate_degradation(crops[:ESTIMATION_FRAMES], scale, traces)
        restorer = self.choose(estimate)
        self.note = f"{estimate.describe()}; restored with {restorer.name}"
        self._session = restorer.open(self.track, seed=self.seed, check_interrupt=self.check_interrupt)
        self.note += f"; {self._session.note}" if self._session.note else ""
        return self._session.push(crops)
