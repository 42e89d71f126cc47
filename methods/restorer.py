"""The contract between the walk of a clip and any method that restores faces."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ..faces.types import FaceClip, FaceTrack

Heartbeat = Callable[[], None]
"""Called between units of work shorter than a second or two; raises when the user has asked to stop."""


def no_heartbeat() -> None:
    """A heartbeat that never stops anything."""


class Session(ABC):
    """The restoration of one person in one shot: crops in, in order; restored crops out, in order.

    Crops are (n, 3, H, W) float32 RGB in [0, 1], n >= 1, normally 512 x 512; what comes back is (m, 3, 512, 512) with m from 0 (the
    method looks ahead) up to all that is owed. Over a session as many frames come out as went in, however they were chunked.
    """

    @abstractmethod
    def push(self, crops: Tensor) -> Tensor:
        """Takes the next crops and returns those that are ready."""

    @abstractmethod
    def close(self) -> Tensor:
        """Returns all crops still owed."""


class Restorer(ABC):
    """A method with its weights and parameters; immutable, shared by any number of sessions.

    Attributes:
        name: the method's name as the command line and reports show it.
        look_ahead: at most how many crops a session holds back.
    """

    name: str
    look_ahead: int = 0

    @abstractmethod
    def open(self, track: FaceTrack | None = None, *, seed: int = 0, heartbeat: Heartbeat = no_heartbeat) -> Session:
        """Starts one person's clip. `track` is None for frames that are already aligned."""


def restore_frames(
    restorer: Restorer,
    crops: Tensor,
    track: FaceTrack | None = None,
    *,
    seed: int = 0,
    chunk: int | None = None,
    heartbeat: Heartbeat = no_heartbeat,
    on_frame: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """A whole clip (N, 3, H, W) at once: a loop over one session. Returns (N, 3, 512, 512); `on_frame` gets how many more are done.

    chunk: frames pushed at a time; None is 8, or as many as the method takes at once.
    """
    chunk = chunk or max(8, getattr(getattr(restorer, "options", None), "batch", 1))
    session = restorer.open(track, seed=seed, heartbeat=heartbeat)
    ready = []
    for start in range(0, len(crops), chunk):
        ready.append(session.push(crops[start : start + chunk]))
        on_frame(len(ready[-1]))
    ready.append(session.close())
    on_frame(len(ready[-1]))
    return torch.cat(ready)


def restore_clip(
    restorer: Restorer, clip: FaceClip, *, seed: int = 0, heartbeat: Heartbeat = no_heartbeat, on_frame: Callable[[int], None] = lambda done: None
) -> FaceClip:
    """One person's clip, restored."""
    return replace(clip, crops=restore_frames(restorer, clip.crops, clip.track, seed=seed, heartbeat=heartbeat, on_frame=on_frame))
