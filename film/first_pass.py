"""Snapshots of the planning pass on disk, so that a job killed while finding faces resumes from the last one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from typing_extensions import Self

from ..atomic import PART, atomic_file
from ..faces import Face, Tracker
from ..faces.detection.blazeface import LostFace
from ..faces.detection.face_search import MeshFace
from ..faces.detection.mesh_tracking import Region
from ..faces.tracking.association import Detection
from ..models.device import CheckInterrupt
from ..video import FrameSource, ShotCutDetector
from ..video.shots.cuts import FrameFeatures
from ..video.shots.dissolves import DissolveDetector
from .tracks import StoredTrack, TrackStore

INTERVAL = 30.0
"""Seconds between two snapshots, and how many times as long as one takes to write."""
CLASSES = (Face, MeshFace, LostFace, Region, Detection, FrameFeatures, DissolveDetector, StoredTrack, np.ndarray, np.dtype)
"""What a snapshot may hold beside tensors and plain Python, so that no other code runs as it is read."""
ARRAYS = (np.zeros(0).__reduce__()[0], *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.uint8)))
"""How NumPy's arrays are made when they are read."""


@dataclass(frozen=True)
class Snapshot:
    """The state of a first pass after `frames` frames.

    Attributes:
        like: JSON of what must be equal for it to be used.
        seconds: processing time of the frames.
        rows: length in bytes of the file of tracks.
        tracker, cuts, find: `memory` of the face tracker, the cut detector and the face detector, whose may be None.
        warnings: of the source.
    """

    like: str
    frames: int
    seconds: float
    rows: int
    tracker: Mapping[str, Any]
    cuts: Mapping[str, Any]
    find: Any
    warnings: Sequence[str]


class FirstPass:
    """The state of the first pass over a film, resumable after the process was killed. Use as a context manager.

    Args:
        folder: of the job.
        like: JSON value that must be equal for a snapshot to be used.

    Attributes:
        frames: number of frames processed.
        seconds: processing time of those frames.
    """

    def __init__(self, folder: Path, source: FrameSource, cuts: ShotCutDetector, like: Mapping[str, Any]) -> None:
        self.path, self.rows = folder / f"first-pass{PART}", folder / f"tracks.rows{PART}"
        self.source, self.cuts, self.like = source, cuts, json.dumps(like, sort_keys=True)
        self.snapshot = self.load()
        self.frames, self.seconds = (self.snapshot.frames, self.snapshot.seconds) if self.snapshot else (0, 0.0)
        self.store = TrackStore(self.rows, self.snapshot.rows if self.snapshot else 0)
        self.began = self.saved = time.monotonic()
        self.pause = INTERVAL
        self.tracker: Tracker | None = None

    def __enter__(self) -> Self:
        self.store.__enter__()
        return self

    def __exit__(self, kind: Any, *rest: object) -> None:
        self.store.__exit__(kind, *rest)
        if kind is None:
            self.path.unlink(missing_ok=True)

    def load(self) -> Snapshot | None:
        """The last snapshot with the same `like`; None if it is missing or unreadable."""
        globals_allowed = getattr(torch.serialization, "safe_globals", None)
        if globals_allowed is None or not self.path.is_file():  # PyTorch before 2.5
            return None
        try:
            with globals_allowed([*CLASSES, *ARRAYS]):
                known = Snapshot(**torch.load(self.path, weights_only=True))
            return known if known.like == self.like and self.rows.stat().st_size >= known.rows else None
        except (OSError, RuntimeError, EOFError, UnpicklingError, TypeError):
            return None

    def resume(self, tracker: Tracker, find: Any) -> None:
        """Restores the state of the face tracker and cut detector; see `find_tracks`."""
        self.tracker, self.find = tracker, find
        known, self.snapshot = self.snapshot, None
        if known is None:
            return
        tracker.memory = {**known.tracker, "tracks": [track.kept_in(self.store) for track in known.tracker["tracks"]]}
        self.cuts.memory = known.cuts
        if known.find is not None:
            find.memory = known.find
        for sentence in known.warnings:
            self.source.warn(sentence)

    def before_each(self, check_interrupt: CheckInterrupt) -> Callable[[], None]:
        """Call before each chunk: saves the state of the previous ones at intervals."""

        def check() -> None:
            check_interrupt()
            if self.tracker is not None and time.monotonic() - self.saved > self.pause:
                began = time.monotonic()
                with suppress(OSError, RuntimeError):  # the pass does not need it
                    self.save(self.tracker)
                self.saved = time.monotonic()
                self.pause = INTERVAL * max(1.0, self.saved - began)

        return check

    def save(self, tracker: Tracker) -> None:
        memory = tracker.memory, self.cuts.memory, getattr(self.find, "memory", None)
        state = Snapshot(self.like, tracker.seen, self.elapsed, self.store.saved(), *memory, self.source.warnings)
        with atomic_file(self.path) as part:
            torch.save(vars(state), part)

    @property
    def elapsed(self) -> float:
        """Seconds of this pass, including those before it was resumed."""
        return self.seconds + time.monotonic() - self.began
