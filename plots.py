"""What all charts and sheets of this package draw with: text, broken lines, and the way from 8-bit pages and picture files to frames."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

INK, GRID = (50, 50, 50), (225, 225, 225)
Colour = tuple[int, int, int]
Place = tuple[int, int]


def write(page: np.ndarray, text: str, at: Place, ink: Colour = INK, size: float = 0.5, thickness: int = 1) -> None:
    """Text on an (H, W, 3) uint8 page, its baseline beginning at `at` = (x, y)."""
    cv2.putText(page, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, ink, thickness, cv2.LINE_AA)


def broken_line(page: np.ndarray, pieces: Sequence[Sequence[Place]], ink: Colour, thickness: int = 1) -> None:
    """A line in pieces; one of a single place is a dot."""
    for piece in pieces:
        if len(piece) == 1:
            cv2.circle(page, piece[0], 2, ink, -1, cv2.LINE_AA)
        cv2.polylines(page, [np.array(piece, np.int32)], False, ink, thickness, cv2.LINE_AA)


def blank(height: int, width: int, shade: int = 255) -> np.ndarray:
    """An (H, W, 3) uint8 page of one grey."""
    return np.full((height, width, 3), shade, np.uint8)


def picture(page: np.ndarray) -> Tensor:
    """An (H, W, 3) uint8 page as (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(page).permute(2, 0, 1).float() / 255


def decoded(data: bytes) -> Tensor | None:
    """The bytes of a picture file as (3, H, W) float32 RGB in [0, 1]; None where they are no whole picture."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    return None if pixels is None else picture(np.ascontiguousarray(pixels[..., ::-1]))
