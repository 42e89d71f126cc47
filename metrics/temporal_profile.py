"""One column of pixels over time, as in KEEP's Figure 5: lines that should be smooth are ragged where a clip flickers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..plots import blank, draw_text
from .evaluate import Clip

MAX_WIDTH = 2048
"""Pixels that the frames' columns may take side by side; of longer clips every n-th frame is shown."""
MIN_WIDTH = 384
"""Pixels that they take at least; shorter clips show each column several times."""
MAX_HEIGHT = 720
"""Pixels of a strip's height; taller frames are shrunk to it."""
BAR, GAP = 22, 4
LINE, PAPER, INK = (230, 40, 40), 30, (255, 255, 255)


def column_over_time(clips: Mapping[str, Clip], column: int, on_frame: Callable[[int], None] = lambda done: None) -> Tensor:
    """For each clip the frame in the middle with the column marked in red, and beside it that column of every frame, time to the right.

    Args:
        clips: the label above each strip and the clip; all of one length. The first one's size is everybody's: frames of others are
            resized to it.
        column: x of the column in the first clip's frames.
        on_frame: gets how many more frames are done, of all clips' together; may raise to stop.

    Returns:
        (3, H, W) float32 in [0, 1].

    Raises:
        ValueError: if there is no such column, no clip, or they differ in length.
    """
    lengths = {name: len(clip) for name, clip in clips.items()}
    if not lengths or len(set(lengths.values())) > 1 or not min(lengths.values()):
        raise ValueError(f"clips to slice have frames, and as many of them, got {lengths}; give the same frames of each")
    height, width = next(iter(clips.values()))[0].shape[-2:]
    if not 0 <= column < width:
        raise ValueError(f"the frames have columns 0 to {width - 1}, got column {column}; choose one of these")
    strips = [_labelled(name, _strip(clip, column, (height, width), on_frame)) for name, clip in clips.items()]
    return torch.from_numpy(np.concatenate(strips)).permute(2, 0, 1).float() / 255


def _strip(clip: Clip, column: int, size: tuple[int, int], on_frame: Callable[[int], None]) -> np.ndarray:
    """The marked frame and the columns, (h, w, 3) uint8."""
    step = math.ceil(len(clip) / MAX_WIDTH)
    times = range(0, len(clip), step)
    zoom = min(1.0, MAX_HEIGHT / size[0])
    height = round(size[0] * zoom)
    columns = np.empty((size[0], len(times), 3), np.uint8)
    for number, t in enumerate(times):
        frame = clip[t]
        same = frame.shape[-2:] == size  # then the other columns need not be looked at
        columns[:, number] = _pixels(frame[..., column : column + 1], (size[0], 1))[:, 0] if same else _pixels(frame, size)[:, column]
        on_frame(min(step, len(clip) - t))
    columns = np.repeat(columns, max(1, math.ceil(MIN_WIDTH / len(times))), 1)
    frame = _pixels(clip[len(clip) // 2], size).copy()
    frame[:, column] = LINE
    if zoom < 1:
        columns = cv2.resize(columns, (columns.shape[1], height), interpolation=cv2.INTER_AREA)
        frame = cv2.resize(frame, (round(size[1] * zoom), height), interpolation=cv2.INTER_AREA)
        frame[:, min(round(column * zoom), frame.shape[1] - 1)] = LINE
    return np.concatenate([frame, np.full((height, GAP, 3), PAPER, np.uint8), columns], 1)


def _labelled(name: str, strip: np.ndarray) -> np.ndarray:
    bar = blank(BAR, strip.shape[1], PAPER)
    draw_text(bar, name, (6, BAR - 7), INK)
    return np.concatenate([bar, strip])


def _pixels(frame: Tensor, size: tuple[int, int]) -> np.ndarray:
    """A frame (3, h, w) at `size` as (H, W, 3) uint8."""
    frame = frame.detach().float().cpu()
    if frame.shape[-2:] != size:
        frame = F.interpolate(frame[None], size, mode="bilinear", align_corners=False)[0]
    return frame.clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
