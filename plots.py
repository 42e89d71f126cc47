"""Drawing of charts and sheets: Matplotlib figures, text, and conversion of 8-bit pages and image files to frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = (50, 50, 50)
Colour = tuple[int, int, int]
Place = tuple[int, int]


def draw_text(page: np.ndarray, text: str, at: Place, ink: Colour = INK, size: float = 0.5, thickness: int = 1) -> None:
    """Text on an (H, W, 3) uint8 page, its baseline beginning at `at` = (x, y)."""
    cv2.putText(page, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, ink, thickness, cv2.LINE_AA)


def panels(rows: int, columns: int, width: int, height: int) -> tuple[Figure, list[Axes]]:
    """A white figure of panels of this size in pixels, and the panels row by row."""
    from matplotlib.figure import Figure

    figure = Figure((columns * width / 100, rows * height / 100), dpi=100, layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def rasterized(figure: Figure) -> Tensor:
    """A figure as (3, H, W) float32 in [0, 1]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return page_to_tensor(np.array(canvas.buffer_rgba())[..., :3])


def blank(height: int, width: int, shade: int = 255) -> np.ndarray:
    """An (H, W, 3) uint8 page of one grey."""
    return np.full((height, width, 3), shade, np.uint8)


def page_to_tensor(page: np.ndarray) -> Tensor:
    """An (H, W, 3) uint8 page as (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(page).permute(2, 0, 1).float() / 255


def decode_pixels(data: bytes, flags: int = cv2.IMREAD_COLOR) -> Any:
    """An image file's pixels by OpenCV's imdecode; None if it cannot be decoded, or its header claims an excessive size."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:
        return None


def decode_image(data: bytes) -> Tensor | None:
    """An image file's bytes as (3, H, W) float32 RGB in [0, 1]; None if they cannot be decoded."""
    pixels = decode_pixels(data)
    return None if pixels is None else page_to_tensor(np.ascontiguousarray(pixels[..., ::-1]))
