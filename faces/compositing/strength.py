"""Per-frame opacity of pasted faces, continuous over time."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
from torch import Tensor

from ..geometry import side, smooth
from ..types import FaceTrack


@dataclass(frozen=True)
class Gates:
    """Range of each measure over which the strength rises from 0 at the first value to 1 at the second.

    The defaults are measured in benchmarks/README.md (Gates).

    Attributes:
        size: side of the face in frame pixels.
        blur: sharpness relative to the track's median.
        yaw, pitch: absolute head angles in degrees; only for detectors with a mesh.
        occlusion: occluded fraction of the face; only for detectors with a mesh.
        confidence: FaceMesh score in [0, 1]; other detectors apply their own threshold.
    """

    size: tuple[float, float] = (20.0, 32.0)
    blur: tuple[float, float] = (0.3, 0.6)
    yaw: tuple[float, float] = (70.0, 50.0)
    pitch: tuple[float, float] = (75.0, 55.0)
    confidence: tuple[float, float] = (0.5, 0.8)
    occlusion: tuple[float, float] = (0.6, 0.25)

    @classmethod
    def parse(cls, text: str) -> Gates:
        """Gates from text such as "size=10-20, yaw=70-50" (others keep their defaults) or "off" (all open). Raises ValueError for anything else."""
        names = [field.name for field in fields(cls)]
        if text.strip().lower() == "off":
            return cls(**dict.fromkeys(names, (-2.0, -1.0)) | dict.fromkeys(("yaw", "pitch", "occlusion"), (1e6, 1e5)))
        found = {}
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            match = re.fullmatch(r"(\w+)\s*=\s*(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)", part)
            if not match or match[1] not in names or float(match[2]) == float(match[3]):
                raise ValueError(f"a gate is one of {', '.join(names)} with two values, such as size=10-20 or yaw=70-50, got {part!r}")
            found[match[1]] = (float(match[2]), float(match[3]))
        return cls(**found)

    def to_text(self) -> str:
        """Text that `parse` reads."""
        return ", ".join(f"{field.name}={'-'.join(f'{value:g}' for value in getattr(self, field.name))}" for field in fields(self))


GAP_FADE = 6
"""Frames from the nearest detection at which an interpolated face has strength 0."""
END_FADE = 4
"""Frames over which a track fades in or out within a shot."""


GATES = Gates()
"""The defaults."""


@lru_cache(maxsize=32)
def strengths(track: FaceTrack, gates: Gates = GATES) -> Tensor:
    """(N,) in [0, 1]: product of the gates and `gap_fade`, smoothed over time, times `end_fade`.

    Depends on the track alone, and so not on chunking.
    """
    raw = smoothstep(side(track.boxes.double()), *gates.size) * sharpness_gate(track, gates.blur) * pose_gate(track, gates) * gap_fade(track)
    if track.covered is not None:
        raw = raw * smoothstep(track.covered.double(), *gates.occlusion)
    return (smooth(raw, 1.5) * end_fade(track)).clamp(0, 1).float()


def smoothstep(values: Tensor, low: float, high: float) -> Tensor:
    """Cubic 3 t^2 - 2 t^3 from 0 at `low` to 1 at `high`, constant beyond; descending if low > high."""
    t = ((values - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


SSIM_CONSTANT = 0.04**2
"""C2 of SSIM: variance of brightness below which there is no structure to compare."""


def structural_dissimilarity(cov: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """1 - SSIM without the luminance term, in [0, 2], from the covariance and the variances of brightness."""
    return 1 - (2 * cov + SSIM_CONSTANT) / (a + b + SSIM_CONSTANT)


def reason_unchanged(track: FaceTrack, gates: Gates = GATES) -> str:
    """Why the gates close in every frame of a track, in words; empty if they do not."""
    if strengths(track, gates).max() > 0:
        return ""
    size = float(side(track.boxes).max())
    return f"too small with {size:.0f} pixels" if size <= gates.size[0] else "too blurred, turned aside, covered or briefly seen"


def pose_gate(track: FaceTrack, gates: Gates) -> Tensor:
    """Product of the yaw, pitch and confidence gates, (N,); 1 without a mesh."""
    if track.pose is None:
        return torch.ones(len(track), dtype=torch.float64)
    yaw, pitch = track.pose.double().abs().unbind(1)
    sure = torch.where(track.detected, track.scores.double(), 1.0)
    return smoothstep(yaw, *gates.yaw) * smoothstep(pitch, *gates.pitch) * smoothstep(sure, *gates.confidence)


def sharpness_gate(track: FaceTrack, between: tuple[float, float]) -> Tensor:
    """Gate (N,) on sharpness relative to the track's median, so that consistently blurred footage is restored."""
    usual = track.sharpness[track.detected].double().median() if bool(track.detected.any()) else torch.tensor(1.0)
    if float(usual) < 0.02:
        return torch.ones(len(track), dtype=torch.float64)
    return smoothstep(track.sharpness.double() / usual, *between)


def gap_fade(track: FaceTrack) -> Tensor:
    """(N,) from 1 at detections to 0 GAP_FADE frames from the nearest one."""
    seen = torch.nonzero(track.detected)[:, 0]
    if not len(seen):
        return torch.ones(len(track), dtype=torch.float64)
    here = torch.arange(len(track))
    after = torch.searchsorted(seen, here).clamp(max=len(seen) - 1)
    distance = torch.minimum((seen[after] - here).abs(), (here - seen[(after - 1).clamp(min=0)]).abs())
    return 1 - smoothstep(distance.double(), 0, GAP_FADE)


def end_fade(track: FaceTrack) -> Tensor:
    """(N,) linear ramps of at most END_FADE frames, and a third of the track, at ends that are not the shot's; else 1."""
    out = torch.ones(len(track), dtype=torch.float64)
    length = min(END_FADE, len(track) // 3)
    if track.shot is None or not length:
        return out
    ramp = torch.arange(1, length + 1, dtype=torch.float64) / (length + 1)
    if track.start > track.shot[0]:
        out[:length] *= ramp
    if track.stop < track.shot[1]:
        out[-length:] *= ramp.flip(0)
    return out
