"""The automatic choice of a restorer for each person in each shot: data consistency where the damage can be estimated, else a trained network."""

from __future__ import annotations

from typing import Any, cast

from ..faces.types import FaceTrack
from ..models.device import CheckInterrupt, no_check
from .base import NetworkRestorer, Restorer, Session
from .blind.restorer import SMALL_FACE_SCALE
from .chain import Chain
from .estimating import ESTIMATION_FRAMES, EstimatingSession
from .flair.sampler import FlairRestorer


class AutoRestorer(Restorer):
    """FLAIR where the blur can be estimated from the footage, else another restorer.

    Args:
        flair: gets the estimated degradation.
        otherwise: for footage that no estimate explains.
        refiner: restores the output of `otherwise` once more for faces that were enlarged by `SMALL_FACE_SCALE` or more into their crops.
    """

    def __init__(self, flair: FlairRestorer, otherwise: Restorer, refiner: Restorer | None = None) -> None:
        self.flair, self.otherwise, self.refiner = flair, otherwise, refiner
        self.small = otherwise if refiner is None else Chain(otherwise, refiner)
        self.name = f"auto (flair or {otherwise.name})"
        self.options = getattr(otherwise, "options", None)
        self.look_ahead = max(flair.look_ahead, otherwise.look_ahead, self.small.look_ahead, ESTIMATION_FRAMES - 1)

    def configured(self, **changes: Any) -> AutoRestorer:
        """The same choice with other parameters of `otherwise`; raises as `NetworkRestorer.configured`."""
        otherwise = cast(NetworkRestorer, self.otherwise).configured(**changes)  # only restorers with options are configured
        return AutoRestorer(self.flair, otherwise, self.refiner if getattr(otherwise.options, "carry", True) else None)

    def unexplained(self, track: FaceTrack | None) -> Restorer:
        """The restorer of a face whose damage no estimate explains."""
        return self.small if track is not None and track.scale >= SMALL_FACE_SCALE else self.otherwise

    def repaints(self, track: FaceTrack | None = None) -> bool:
        return self.unexplained(track).repaints(track)

    def open(self, track: FaceTrack | None = None, *, seed: int = 0, check_interrupt: CheckInterrupt = no_check) -> Session:
        otherwise = self.unexplained(track)
        return EstimatingSession(
            self.name, lambda found: self.flair.with_degradation(found.operator) if found.trusted else otherwise, track, seed, check_interrupt
        )
