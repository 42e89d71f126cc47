"""Clips for temporal training: stills in smooth synthetic motion, and the user's own aligned clips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ...video import open_source, read_frames
from ...video.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from .faces import Faces, area_resized, read_face


@dataclass(frozen=True)
class Motion:
    """Motion of an aligned face: the head motion that alignment leaves, and the face's own.

    Attributes:
        turn: largest rotation, in degrees.
        zoom: largest relative change of size.
        shift: largest translation along either axis, as a share of the side.
        bend: largest local displacement, as a share of the side: mouth, eyes, a turning head.
        knots: control points along either axis; displacements between them are bicubic.
        period: shortest period of the motion, in frames.
        light: largest relative change of brightness.
    """

    turn: float = 3.0
    zoom: float = 0.03
    shift: float = 0.02
    bend: float = 0.02
    knots: int = 5
    period: float = 12.0
    light: float = 0.05


def animate(image: Tensor, frames: int, motion: Motion, generator: torch.Generator, size: int | None = None) -> Tensor:
    """A still (3, S, S) in [0, 1] as a clip (frames, 3, S, S): turn, zoom, shift, bend and light follow slow sines of random phase.

    Neighbouring frames differ by at most 2 pi / period of the amounts.

    Args:
        size: side of the frames; None keeps the still's.
    """
    knots = 2 * motion.knots**2
    swing = swings(frames, 5 + knots, motion.period, generator)
    side = image.shape[-1]
    angle, zoom = math.radians(motion.turn) * swing[:, 0], 1 + motion.zoom * swing[:, 1]
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    shift = 2 * motion.shift * swing[:, 2:4]
    rows = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
    grid = F.affine_grid(rows, [frames, 3, side, side], align_corners=False)
    bend = 2 * motion.bend * swing[:, 5:].reshape(frames, 2, motion.knots, motion.knots)
    grid = grid + F.interpolate(bend, (side, side), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    moved = F.grid_sample(image.expand(frames, -1, -1, -1), grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    clip = (moved * (1 + motion.light * swing[:, 4])[:, None, None, None]).clamp(0, 1)
    return clip if size is None else area_resized(clip, size)


def swings(frames: int, number: int, period: float, generator: torch.Generator) -> Tensor:
    """(frames, number) values in [-1, 1]: sines of periods from `period` to four times it, with random phase and amplitude."""
    draw = torch.rand(3, number, generator=generator)
    time = torch.arange(frames)[:, None]
    return draw[0] * torch.sin(2 * math.pi * (time / (period * 4 ** draw[1]) + draw[2]))


@dataclass(frozen=True, eq=False)
class _Video:
    """A video file of `length` frames; `pixels` (length, 3, side, side) uint8, None if it is read from disk each time."""

    path: Path
    length: int
    pixels: Tensor | None = None


class Clips:
    """The aligned clips in a folder: video files and folders of frames, square, one person each.

    Every video is decoded once, to count its frames. As many as fit into `in_memory` bytes stay decoded, as uint8 at `side`; of the others the
    sampled frames are decoded each time.

    Raises:
        ValueError: if there are none with enough frames, or one is not square.
    """

    def __init__(self, folder: Path, side: int, frames: int, in_memory: int = 1 << 30) -> None:
        self.side, self.frames, self._budget = side, frames, in_memory
        folder = Path(folder)
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
        sequences = sorted({path.parent for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES})
        self._sequences = [found for found in map(_pictures, sequences) if len(found) >= frames]
        self._videos = [video for video in map(self._index_video, files) if video.length >= frames]
        if not len(self):
            raise ValueError(f"{folder} holds no clip of at least {frames} frames; give aligned video files, or a folder of frames for each clip")

    def __len__(self) -> int:
        return len(self._videos) + len(self._sequences)

    def sample(self, generator: torch.Generator) -> Tensor:
        """`frames` consecutive frames of a clip drawn at random, (frames, 3, side, side) in [0, 1], mirrored half of the time."""
        which = int(torch.randint(len(self), (), generator=generator))
        if which < len(self._videos):
            video = self._videos[which]
            start = int(torch.randint(video.length - self.frames + 1, (), generator=generator))
            piece = self._frames_of(video, start).float() / 255
        else:
            paths = self._sequences[which - len(self._videos)]
            start = int(torch.randint(len(paths) - self.frames + 1, (), generator=generator))
            piece = torch.stack([read_face(path, self.side) for path in paths[start : start + self.frames]]).float() / 255
        return piece.flip(-1) if torch.rand((), generator=generator) < 0.5 else piece

    def _index_video(self, path: Path) -> _Video:
        kept: list[Tensor] | None = []
        length = 0
        for chunk in open_source(path).chunks():
            height, width = chunk.frames.shape[-2:]
            if height != width:
                raise ValueError(f"{path} is {width} x {height}; clips to train on are aligned and square: align them first")
            length += len(chunk)
            if kept is not None:
                kept.append(self._bytes(chunk.frames))
                if length * 3 * self.side**2 > self._budget:
                    kept = None
        if kept is None or length < self.frames:
            return _Video(path, length)
        self._budget -= length * 3 * self.side**2
        return _Video(path, length, torch.cat(kept))

    def _frames_of(self, video: _Video, start: int) -> Tensor:
        """`frames` frames from `start` on, (frames, 3, side, side) uint8."""
        if video.pixels is not None:
            return video.pixels[start : start + self.frames]
        return self._bytes(read_frames(video.path, start=start, count=self.frames)[0])

    def _bytes(self, frames: Tensor) -> Tensor:
        return (area_resized(frames, self.side) * 255 + 0.5).byte()


def sample_clip(faces: Faces, clips: Clips | None, frames: int, motion: Motion, generator: torch.Generator, *, mirror: bool = False) -> Tensor:
    """A training clip (frames, 3, side, side) in [0, 1]: half of the time one of `clips`, if given, else a face in synthetic motion.

    Args:
        mirror: whether half of the faces are mirrored first; clips always are.
    """
    if clips is not None and torch.rand((), generator=generator) < 0.5:
        return clips.sample(generator)
    still = faces.source(int(torch.randint(len(faces), (), generator=generator)))
    if mirror and torch.rand((), generator=generator) < 0.5:
        still = still.flip(-1)
    return animate(still, frames, motion, generator, faces.side)


def _pictures(folder: Path) -> Sequence[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
