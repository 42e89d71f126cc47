"""How strongly a face is pasted in each frame, so that nothing pops."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from .geometry import side, smooth
from .types import FaceTrack

TINY = (14.0, 28.0)
"""Face sizes in frame pixels between which the strength rises from 0 to 1."""

BLURRED = (0.3, 0.6)
"""Sharpness, as a share of the track's median, between which the strength rises from 0 to 1."""

FORGOTTEN = 6
"""A filled-in face this many frames from the nearest detection has strength 0."""

RAMP = 4
"""Frames over which a face that comes or goes in mid-shot fades."""


@lru_cache(maxsize=32)
def strengths(track: FaceTrack) -> Tensor:
    """(N,) in [0, 1]: tiny x blurred x filled-in, smoothed over time, x the fade at ends that are not the shot's.

    Depends on the track alone, so chunks agree. A track that fills its shot, such as a still, does not fade at its ends.
    """
    raw = rise(side(track.boxes.double()), *TINY) * blur(track) * filled(track)
    return (smooth(raw, 1.5) * ends(track)).clamp(0, 1).float()


def rise(values: Tensor, low: float, high: float) -> Tensor:
    """0 up to `low`, 1 from `high`, 3 t^2 - 2 t^3 between."""
    t = ((values - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def blur(track: FaceTrack) -> Tensor:
    """How sharp each frame is next to the track's median, so that footage that is blurred throughout is restored throughout."""
    usual = track.sharpness[track.detected].double().median() if bool(track.detected.any()) else torch.tensor(1.0)
    if float(usual) < 0.02:
        return torch.ones(len(track), dtype=torch.float64)
    return rise(track.sharpness.double() / usual, *BLURRED)


def filled(track: FaceTrack) -> Tensor:
    """1 where detected, falling with the distance to the nearest detection."""
    seen = torch.nonzero(track.detected)[:, 0]
    if not len(seen):
        return torch.ones(len(track), dtype=torch.float64)
    here = torch.arange(len(track))
    after = torch.searchsorted(seen, here).clamp(max=len(seen) - 1)
    distance = torch.minimum((seen[after] - here).abs(), (here - seen[(after - 1).clamp(min=0)]).abs())
    return 1 - rise(distance.double(), 0, FORGOTTEN)


def ends(track: FaceTrack) -> Tensor:
    """Ramps over at most RAMP frames, and a third of the track, where it begins or ends inside its shot."""
    out = torch.ones(len(track), dtype=torch.float64)
    length = min(RAMP, len(track) // 3)
    if track.shot is None or not length:
        return out
    ramp = torch.arange(1, length + 1, dtype=torch.float64) / (length + 1)
    if track.start > track.shot[0]:
        out[:length] *= ramp
    if track.stop < track.shot[1]:
        out[-length:] *= ramp.flip(0)
    return out
