"""Selects the frames of a clip that become training pairs: good ones, without near-duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ...faces.tracking.appearance import CHIP_SIDE, sharpness
from ...faces.types import CROP, FaceClip
from ...options import Options, parameter

Mode = Literal["every", "diverse"]
THUMBNAIL = 32
"""Side of the thumbnails that faces are compared by, in pixels."""
FACE = slice(120, 392), slice(168, 440)
"""Columns and rows of an aligned crop of 512 that hold the face: eyes to chin."""
UNSEEN = 0.25
"""Detection score of a face that was interpolated between two detections."""


@dataclass(frozen=True)
class ChoiceOptions(Options):
    """How frames are chosen. Mode "every" spreads `count` frames evenly over the clip; "diverse" takes the farthest points by thumbnail RMS
    difference, weighted by quality."""

    mode: Mode = parameter("every", advice="every takes each n-th frame; diverse the best one, then those that differ most.")
    every: int = parameter(5, 1, 100_000, unit="frames", advice="Each how many frames one is taken.")
    count: int = parameter(0, 0, 100_000, unit="frames", advice="At most so many targets; 0 for no limit. 20 gave most of the gain in our table.")
    least: float = parameter(
        4.0,
        0.0,
        255.0,
        unit="grey levels",
        step=0.5,
        advanced=True,
        advice="Frames that differ by fewer grey levels from a chosen one count as the same and are left out; more for noisy footage.",
    )
    poor: float = parameter(
        0.3,
        0.0,
        1.0,
        step=0.05,
        advanced=True,
        advice="Frames whose sharpness times detection score is below this share of the best one's are left out.",
    )


@dataclass(frozen=True)
class Choice:
    """Which frames were chosen, and why the others were not.

    Attributes:
        chosen: indices, ascending.
        duplicates: how many were left out as near-duplicates.
        poor: how many were left out for their quality.
    """

    chosen: tuple[int, ...]
    duplicates: int
    poor: int


def choose_frames(features: Tensor, quality: Tensor, options: ChoiceOptions | None = None) -> Choice:
    """The frames to use, among candidates described by vectors.

    Args:
        features: (n, D) vectors whose Euclidean distance measures how different two frames are, in the units of `least` (`thumbnails`: grey levels).
        quality: (n,) at least 0, such as `quality`.

    Raises:
        ValueError: if their lengths differ.
    """
    options = options or ChoiceOptions()
    if features.ndim != 2 or tuple(quality.shape) != (len(features),):
        raise ValueError(f"frames are chosen by (n, D) features and (n,) qualities, got {tuple(features.shape)} and {tuple(quality.shape)}")
    if not len(features):
        return Choice((), 0, 0)
    features, quality = features.double(), quality.double().clamp(min=0)
    good = quality >= options.poor * quality.max()
    picked = _every_nth(features, good, options) if options.mode == "every" else _farthest_points(features, quality, good, options)
    return Choice(tuple(sorted(picked[0])), picked[1], int((~good).sum()))


def _every_nth(features: Tensor, good: Tensor, options: ChoiceOptions) -> tuple[list[int], int]:
    chosen: list[int] = []
    duplicates = 0
    for i in range(0, len(features), options.every):
        if not good[i]:
            continue
        if chosen and float((features[chosen] - features[i]).norm(dim=1).min()) < options.least:
            duplicates += 1
            continue
        chosen.append(i)
    if options.count and len(chosen) > options.count:
        last = len(chosen) - 1
        chosen = [chosen[round(k * last / max(1, options.count - 1))] for k in range(options.count)]
    return chosen, duplicates


def _farthest_points(features: Tensor, quality: Tensor, good: Tensor, options: ChoiceOptions) -> tuple[list[int], int]:
    """Greedy farthest points, distances weighted by quality."""
    chosen = [int(torch.where(good, quality, -1).argmax())]
    distance = (features - features[chosen[0]]).norm(dim=1)
    free = good.clone()
    free[chosen[0]] = False
    while not options.count or len(chosen) < options.count:
        allowed = free & (distance >= max(options.least, 1e-12))
        if not allowed.any():
            break
        best = int(torch.where(allowed, distance * quality, -1).argmax())
        chosen.append(best)
        free[best] = False
        distance = torch.minimum(distance, (features - features[best]).norm(dim=1))
    return chosen, int((free & (distance < options.least)).sum())


def thumbnails(crops: Tensor) -> Tensor:
    """(n, 3, H, W) aligned crops in [0, 1] to (n, D) vectors whose distances are root mean square differences in grey levels of 255.

    Faces averaged down to 32 x 32, which drops most of the noise; a change of exposure of a whole face counts a quarter.
    """
    if not len(crops):
        return crops.new_zeros(0, 3 * THUMBNAIL**2)
    small = F.interpolate(_face(crops), (THUMBNAIL, THUMBNAIL), mode="area").float()
    mean = small.mean((1, 2, 3), keepdim=True)
    return ((small - 0.75 * mean) * 255 / small[0].numel() ** 0.5).flatten(1)


def quality(crops: Tensor, scores: Sequence[float] | Tensor | None = None) -> Tensor:
    """(n,) in [0, 1]: the face's sharpness (Crete et al. 2007) times the detector's score; a score of 0, filled in, counts 1/4.

    Args:
        scores: of each crop; None where no detector looked.
    """
    chips = F.interpolate(_face(crops), (CHIP_SIDE, CHIP_SIDE), mode="area") if len(crops) else crops
    sharp = torch.tensor([sharpness(chip) for chip in chips])
    if scores is None:
        return sharp
    seen = torch.as_tensor(scores, dtype=torch.float32)
    return sharp * torch.where(seen > 0, seen, UNSEEN)


def chosen_of(clips: Sequence[FaceClip], options: ChoiceOptions | None = None) -> tuple[list[list[int]], Choice]:
    """Frames of several people's clips, chosen among all of them together.

    Returns:
        For each clip the indices of its chosen crops, ascending; and the whole choice, its indices counted through the clips.
    """
    features = torch.cat([thumbnails(clip.crops) for clip in clips]) if clips else torch.zeros(0, 3 * THUMBNAIL**2)
    good = torch.cat([quality(clip.crops, clip.track.scores * clip.track.detected) for clip in clips]) if clips else torch.zeros(0)
    choice = choose_frames(features, good, options)
    parts, start = [], 0
    for clip in clips:
        parts.append([i - start for i in choice.chosen if start <= i < start + len(clip.crops)])
        start += len(clip.crops)
    return parts, choice


def _face(crops: Tensor) -> Tensor:
    """The middle of aligned crops, of any size."""
    columns, rows = FACE
    height, width = crops.shape[-2:]
    top, bottom = (round(edge * height / CROP) for edge in (rows.start, rows.stop))
    left, right = (round(edge * width / CROP) for edge in (columns.start, columns.stop))
    return crops[..., top : max(bottom, top + 1), left : max(right, left + 1)]
