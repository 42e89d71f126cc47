"""How strongly a face is pasted in each frame, so that nothing pops."""

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
    """Between which two values each measure takes the strength from 0 to 1, or, where the first is the larger, from 1 to 0.

    The defaults' figures are in benchmarks/README.md (Gates).

    Attributes:
        size: of the face, in frame pixels.
        blur: sharpness, as a share of the track's median.
        yaw, pitch: how far the face is turned aside, and up or down, in degrees; unknown for detectors without a mesh.
        occlusion: the share of the face that something lies before; unknown for detectors without a mesh.
        confidence: how sure FaceMesh is of a face, in [0, 1]; other detectors drop what they are not sure of.
    """

    size: tuple[float, float] = (20.0, 32.0)
    blur: tuple[float, float] = (0.3, 0.6)
    yaw: tuple[float, float] = (70.0, 50.0)
    pitch: tuple[float, float] = (75.0, 55.0)
    confidence: tuple[float, float] = (0.5, 0.8)
    occlusion: tuple[float, float] = (0.6, 0.25)

    @classmethod
    def parse(cls, text: str) -> Gates:
        """The gates of "size=10-20, yaw=70-50"; what is not named keeps its default, and "off" opens all. Raises ValueError for anything else."""
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
        """As `parse` reads it."""
        return ", ".join(f"{field.name}={'-'.join(f'{value:g}' for value in getattr(self, field.name))}" for field in fields(self))


GAP_FADE = 6
"""A filled-in face this many frames from the nearest detection has strength 0."""
END_FADE = 4
"""Frames over which a face that comes or goes in mid-shot fades."""


GATES = Gates()
"""The defaults."""


@lru_cache(maxsize=32)
def strengths(track: FaceTrack, gates: Gates = GATES) -> Tensor:
    """(N,) in [0, 1]: the gates' product x filled-in, smoothed over time, x the fade at ends that are not the shot's.

    Depends on the track alone, so chunks agree. A track that fills its shot, such as a still, does not fade at its ends.
    """
    raw = smoothstep(side(track.boxes.double()), *gates.size) * sharpness_gate(track, gates.blur) * pose_gate(track, gates) * gap_fade(track)
    if track.covered is not None:
        raw = raw * smoothstep(track.covered.double(), *gates.occlusion)
    return (smooth(raw, 1.5) * end_fade(track)).clamp(0, 1).float()


def smoothstep(values: Tensor, low: float, high: float) -> Tensor:
    """0 up to `low`, 1 from `high`, 3 t^2 - 2 t^3 between; where `low` is the larger, 0 from there on and 1 up to `high`."""
    t = ((values - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


SSIM_CONSTANT = 0.04**2
"""Variance of brightness below which there is no structure to compare."""


def structural_dissimilarity(cov: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """1 - SSIM without its first term, in [0, 2], of two brightnesses' covariance and variances."""
    return 1 - (2 * cov + SSIM_CONSTANT) / (a + b + SSIM_CONSTANT)


def left_alone(track: FaceTrack, gates: Gates = GATES) -> str:
    """Why a face keeps its original in every frame, in words; empty where something of it is replaced."""
    if strengths(track, gates).max() > 0:
        return ""
    size = float(side(track.boxes).max())
    return f"too small with {size:.0f} pixels" if size <= gates.size[0] else "too blurred, turned aside, covered or briefly seen"


def pose_gate(track: FaceTrack, gates: Gates) -> Tensor:
    """1 where the mesh looks into the camera and is sure; 1 throughout where there is no mesh."""
    if track.pose is None:
        return torch.ones(len(track), dtype=torch.float64)
    yaw, pitch = track.pose.double().abs().unbind(1)
    sure = torch.where(track.detected, track.scores.double(), 1.0)
    return smoothstep(yaw, *gates.yaw) * smoothstep(pitch, *gates.pitch) * smoothstep(sure, *gates.confidence)


def sharpness_gate(track: FaceTrack, between: tuple[float, float]) -> Tensor:
    """How sharp each frame is next to the track's median, so that footage that is blurred throughout is restored throughout."""
    usual = track.sharpness[track.detected].double().median() if bool(track.detected.any()) else torch.tensor(1.0)
    if float(usual) < 0.02:
        return torch.ones(len(track), dtype=torch.float64)
    return smoothstep(track.sharpness.double() / usual, *between)


def gap_fade(track: FaceTrack) -> Tensor:
    """1 where detected, falling with the distance to the nearest detection."""
    seen = torch.nonzero(track.detected)[:, 0]
    if not len(seen):
        return torch.ones(len(track), dtype=torch.float64)
    here = torch.arange(len(track))
    after = torch.searchsorted(seen, here).clamp(max=len(seen) - 1)
    distance = torch.minimum((seen[after] - here).abs(), (here - seen[(after - 1).clamp(min=0)]).abs())
    return 1 - smoothstep(distance.double(), 0, GAP_FADE)


def end_fade(track: FaceTrack) -> Tensor:
    """Ramps over at most END_FADE frames, and a third of the track, where it begins or ends inside its shot."""
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
