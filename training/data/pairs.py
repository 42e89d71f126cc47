"""Pairs of degraded and clean windows of moving faces, made once and cached on disk."""

from __future__ import annotations

import math
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ...atomic import remove_abandoned, resumable_file
from ...colour import BT601
from ...faces.types import CROP
from .codecs import transcoded
from .faces import Faces
from .footage import KINDS, Footage
from .synthetic_motion import Motion, swings

FRAMES = 8
"""Frames of a pair's clip."""
WARM_UP = 2
"""Largest number of frames coded before them, so that a clip need not begin with a key frame."""
WINDOW = 256
"""Side of a pair's window, in pixels of the 512 crop."""
MARGIN = 32
"""Border around it that is degraded and then cropped, so that edges look as inside a whole frame."""
PHONES = 0.35
"""Share of the ground truths processed as by a phone's camera."""
SUBSAMPLED = 0.85
"""Share of the ground truths with chroma at half resolution, as in nearly all footage."""
CUT_OUT = 0.85
"""Share of the degraded clips not rounded after resampling; the others have whole levels, as files of aligned faces do."""
FINE = 65535 / 255
"""Steps per level in which degraded windows are stored."""


@dataclass(frozen=True)
class Pair:
    """A window of a clip.

    Attributes:
        damaged: (T, W, W, 3) uint16 RGB, in steps of 1 / `FINE` of a level.
        clean: of that shape, uint8.
        corner: x and y of the window in the crop.
        kind: of the damage, an index of KINDS.
        scale: frame pixels per crop pixel.
    """

    damaged: np.ndarray
    clean: np.ndarray
    corner: tuple[int, int]
    kind: int
    scale: float


class Pairs:
    """Pair number i is a function of the faces, the degradation, the seed and i. Pairs are made once and then read from `folder`.

    Args:
        faces: 512 x 512.
        footage: the damage.
        number: of pairs.
        seed: of all draws.
        folder: where they are kept; None keeps none.
        window, frames: side and length of their clips.
    """

    def __init__(
        self, faces: Faces, footage: Footage, number: int, seed: int, folder: Path | None = None, *, window: int = WINDOW, frames: int = FRAMES
    ) -> None:
        self.faces, self.footage, self.number, self.seed, self.folder = faces, footage, number, seed, folder
        self.window, self.frames = window, frames
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            remove_abandoned(folder)

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> Pair:
        path = None if self.folder is None else self.folder / f"{index:06}.npz"
        if path is not None and path.is_file():
            with np.load(path) as kept:
                return Pair(kept["damaged"], kept["clean"], tuple(kept["corner"].tolist()), int(kept["kind"]), float(kept["scale"]))
        pair = self.make(index)
        if path is not None:
            keep(path, damaged=pair.damaged, clean=pair.clean, corner=np.array(pair.corner), kind=np.array(pair.kind), scale=np.array(pair.scale))
        return pair

    def prepare(self, workers: int) -> None:
        """Makes the missing pairs in several threads: OpenCV and the codecs release the GIL."""
        missing = [] if self.folder is None else [index for index in range(self.number) if not (self.folder / f"{index:06}.npz").is_file()]
        if missing:
            with ThreadPoolExecutor(workers) as pool:
                for _ in tqdm(pool.map(self._keep, missing), total=len(missing), desc="pairs", file=sys.stderr):
                    pass

    def _keep(self, index: int) -> None:
        """For `prepare`, which needs no result."""
        _ = self[index]

    def make(self, index: int) -> Pair:
        """Pair `index`, made anew."""
        rng = np.random.default_rng((self.seed, index))
        face = self.faces.source(int(rng.integers(len(self.faces)))).permute(1, 2, 0).numpy()
        corner = int(4 * rng.integers(0, (CROP - self.window) // 4 + 1)), int(4 * rng.integers(0, (CROP - self.window) // 4 + 1))
        kind = self.footage.kind(rng)
        scale = self.footage.frame_scale(rng)
        truth = camera_recorded(relit(moving_window(face, corner, self.window, self.frames + WARM_UP, rng), rng), scale, rng)
        seen = degraded_windows(truth, self.footage, kind, scale, rng)
        first = int(rng.integers(WARM_UP + 1))
        inner = (slice(first, first + self.frames), slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
        seen, truth = (np.clip(clip[inner], 0, 255) for clip in (seen, truth))
        if rng.random() >= CUT_OUT:
            seen = np.round(seen)
        return Pair(np.round(seen * FINE).astype(np.uint16), np.round(truth).astype(np.uint8), corner, KINDS.index(kind), scale)


def keep(path: Path, **arrays: np.ndarray) -> None:
    """Writes an .npz of the arrays, atomically."""
    with resumable_file(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def pictures(clip: np.ndarray) -> Tensor:
    """A clip (T, H, W, 3) of whole numbers as (T, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(clip.astype(np.float32)).permute(0, 3, 1, 2) / np.iinfo(clip.dtype).max


def moving_window(face: np.ndarray, corner: tuple[int, int], window: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """A window and its margin of a still (S, S, 3) in [0, 1] that moves as an aligned face does: (frames, W, W, 3) float32 in [0, 255]."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    amount = 0.0 if rng.random() < 0.12 else rng.random() ** 2
    motion = Motion(turn=4 * amount, zoom=0.04 * amount, shift=0.03 * amount, bend=0.015 * amount, light=0.05 * amount)
    swing = swings(frames, 5 + 2 * motion.knots**2, motion.period, generator).numpy()
    side = window + 2 * MARGIN
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    x, y = ((axis + start - MARGIN + 0.5) * 2 / CROP - 1 for axis, start in zip((x, y), corner, strict=True))
    stay = math.radians(rng.uniform(-6, 6)), rng.uniform(0.92, 1.1), *rng.uniform(-0.06, 0.06, 2)  # how far from the template
    mirror = -1 if rng.random() < 0.5 else 1
    clip = []
    for now in swing:
        angle, zoom = stay[0] + math.radians(motion.turn) * now[0], stay[1] * (1 + motion.zoom * now[1])
        cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
        knots = (2 * motion.bend * now[5:]).reshape(2, motion.knots, motion.knots)
        bend = [
            cv2.remap(plane, (x + 1) / 2 * (motion.knots - 1), (y + 1) / 2 * (motion.knots - 1), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for plane in knots.astype(np.float32)
        ]
        u = cos * x - sin * y + stay[2] + 2 * motion.shift * now[2] + cv2.GaussianBlur(bend[0], (0, 0), 16)
        v = sin * x + cos * y + stay[3] + 2 * motion.shift * now[3] + cv2.GaussianBlur(bend[1], (0, 0), 16)
        across, down = (((axis + 1) * len(face) / 2 - 0.5).astype(np.float32) for axis in (mirror * u, v))
        picture = cv2.remap(face, across, down, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101)
        clip.append(255 * np.clip(picture * (1 + motion.light * now[4]), 0, 1))
    return np.stack(clip)


def relit(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Varies light and camera: gamma, contrast, colour cast, and saturation down to grey."""
    if rng.random() < 0.3:
        return clip
    x = (clip / 255) ** np.float32(np.exp(rng.normal(0.05, 0.3)))
    x = x * np.float32(rng.uniform(0.6, 1.08)) * rng.uniform(0.85, 1.15, 3).astype(np.float32) ** (rng.random() < 0.5)
    grey = x @ np.array(BT601, np.float32)
    saturation = 0.0 if rng.random() < 0.12 else rng.uniform(0.4, 1.25)
    x = grey[..., None] + np.float32(saturation) * (x - grey[..., None])
    return (255 * np.clip(x + rng.uniform(-0.03, 0.05), 0, 1)).astype(np.float32)


def camera_recorded(clip: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    """The ground truth as a good camera records it: mostly softer than a downsampled portrait, with coarser chroma, and coded once. Only what
    follows counts as degradation.

    Args:
        scale: frame pixels per pixel of the clip.
    """
    if rng.random() < PHONES:
        clip = phone_processed(clip, rng)
    elif rng.random() < 0.65:
        width = rng.uniform(0.35, 1.0)
        clip = np.stack([cv2.GaussianBlur(frame, (0, 0), width) for frame in clip])
    if rng.random() < SUBSAMPLED:
        clip = with_coarse_chroma(clip, scale / 2)
    return transcoded(clip, "h264", rng.uniform(10, 17)) if rng.random() < 0.4 else clip


def with_coarse_chroma(clip: np.ndarray, scale: float) -> np.ndarray:
    """The clip (T, S, S, 3) with its differences from grey reduced to `scale` of its side and back."""
    grey = (clip @ np.array(BT601, np.float32))[..., None]
    side = clip.shape[1]
    small = max(8, round(side * scale))
    colours = [cv2.resize(frame, (small, small), interpolation=cv2.INTER_AREA) for frame in clip - grey]
    return np.clip(grey + np.stack([cv2.resize(frame, (side, side), interpolation=cv2.INTER_LINEAR) for frame in colours]), 0, 255)


def phone_processed(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A phone's processing: skin smoothed by a bilateral filter, then sharpened (Tomasi and Manduchi, 1998; unsharp masking)."""
    levels, reach = rng.uniform(6, 24), rng.uniform(1.5, 4)
    amount, radius = rng.uniform(0.2, 1.0), rng.uniform(0.8, 1.8)
    smooth = np.stack([cv2.bilateralFilter(frame.astype(np.float32), -1, levels, reach) for frame in clip])
    return np.clip(smooth + amount * (smooth - np.stack([cv2.GaussianBlur(frame, (0, 0), radius) for frame in smooth])), 0, 255)


def degraded_windows(truth: np.ndarray, footage: Footage, kind: str, scale: float, rng: np.random.Generator) -> np.ndarray:
    """The windows as cropped from degraded frames: resampled to the frame's scale and angle, degraded there, and warped back as Face Align does."""
    side = truth.shape[1]
    small = max(16, round(side * scale / 2) * 2)
    turn = rng.uniform(-10, 10) if rng.random() < 0.5 else 0.0
    shift = rng.uniform(-0.5, 0.5, 2) if turn else np.zeros(2)
    frames = np.stack([cv2.resize(frame, (small, small), interpolation=cv2.INTER_AREA) for frame in truth])
    centre = (small - 1) / 2
    there = cv2.getRotationMatrix2D((centre, centre), turn, 1.0)
    there[:, 2] += shift
    if turn:
        frames = np.stack(
            [cv2.warpAffine(frame, there, (small, small), flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101) for frame in frames]
        )
    frames = footage.damage(np.clip(frames, 0, 255), kind, small / side, rng)
    # from pixels of the window to those of the upright frame, then to the turned one
    ratio = small / side
    upright = np.array([[ratio, 0, (ratio - 1) / 2], [0, ratio, (ratio - 1) / 2], [0, 0, 1]])
    back = there @ upright
    return np.stack(
        [
            cv2.warpAffine(frame, back, (side, side), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101)
            for frame in frames
        ]
    )
