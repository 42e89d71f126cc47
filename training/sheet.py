"""Sample sheets and curves as PNG files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from ..plots import blank, broken_line, write

WIDTH, HEIGHT, MARGIN = 640, 360, 48
INKS = ((40, 40, 200), (40, 140, 40), (200, 90, 30), (150, 40, 150), (30, 140, 190), (90, 90, 90))


def sheet_png(sheet: Tensor, path: Path, gap: int = 2) -> None:
    """Pictures (rows, columns, 3, H, W) in [0, 1] side by side, in one file."""
    pixels = (sheet.clamp(0, 1) * 255 + 0.5).byte().numpy()[:, :, ::-1]
    rows, columns, _, height, width = pixels.shape
    page = blank(rows * (height + gap) - gap, columns * (width + gap) - gap)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + gap), column * (width + gap)
            page[top : top + height, left : left + width] = pixels[row, column].transpose(1, 2, 0)
    _write(path, page)


def curve_png(points: Sequence[tuple[int, Mapping[str, float]]], path: Path) -> None:
    """Figures over steps, each scaled to its own range, which its label gives; nothing is written without any.

    Infinite and undefined values leave a gap in their line, as in metrics/plot.py.
    """
    names = list(points[-1][1]) if points else []
    if not names:
        return
    page = blank(HEIGHT, WIDTH)
    cv2.rectangle(page, (MARGIN, 16), (WIDTH - 16, HEIGHT - MARGIN), (200, 200, 200), 1)
    last = max(step for step, _ in points)
    for number, name in enumerate(names):
        values = [(step, figures[name]) for step, figures in points if name in figures]
        known = [value for _, value in values if math.isfinite(value)]
        low, high = (min(known), max(known)) if known else (0.0, 0.0)
        ink = INKS[number % len(INKS)]
        for finite, piece in groupby(values, lambda value: math.isfinite(value[1])):
            if not finite:
                continue
            corners = [
                (
                    round(MARGIN + (WIDTH - 16 - MARGIN) * step / max(last, 1)),
                    round(HEIGHT - MARGIN - (HEIGHT - 32 - MARGIN) * ((value - low) / (high - low) if high > low else 0.5)),
                )
                for step, value in piece
            ]
            broken_line(page, [corners], ink, 2)
        label = f"{name}: {values[-1][1]:.4g}" + (f" ({low:.4g} to {high:.4g})" if known else "")
        write(page, label, (MARGIN + 8, 34 + 16 * number), ink, 0.4)
    write(page, f"steps, 0 to {last}", (MARGIN, HEIGHT - 20), (60, 60, 60), 0.4)
    _write(path, page)


def _write(path: Path, page: np.ndarray) -> None:
    cv2.imencode(".png", page)[1].tofile(path)
