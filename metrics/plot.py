"""Figures over the frames of a clip, as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from torch import Tensor

from ..plots import GRID, blank, broken_line, picture, write
from .registry import FACE, MEASURES, Measure
from .report import Report, readable

PANEL_WIDTH, PANEL_HEIGHT = 480, 170
COLUMNS = 2
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 34, 22
WHOLE, ON_FACE = (31, 119, 180), (214, 120, 20)


def plot(report: Report) -> Tensor:
    """One panel per measure, each to its own scale: blue the whole frame, orange the face. (3, H, W) float32 in [0, 1]."""
    panels = [measure for measure in MEASURES if measure.key in report.per_frame or measure.key + FACE in report.per_frame]
    rows = max(1, math.ceil(len(panels) / COLUMNS))
    page = blank(rows * PANEL_HEIGHT, COLUMNS * PANEL_WIDTH)
    for number, measure in enumerate(panels):
        top, left = number // COLUMNS * PANEL_HEIGHT, number % COLUMNS * PANEL_WIDTH
        _draw(page[top : top + PANEL_HEIGHT, left : left + PANEL_WIDTH], measure, report)
    return picture(page)


def _draw(panel: np.ndarray, measure: Measure, report: Report) -> None:
    kinds = [(key, word, ink) for key, word, ink in ((measure.key, "frame", WHOLE), (measure.key + FACE, "face", ON_FACE)) if key in report.per_frame]
    known = [value for key, _, _ in kinds for value in report.per_frame[key] if value is not None and math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    last = max(len(report.per_frame[key]) for key, _, _ in kinds) - 1
    write(panel, measure.name + (f", {measure.unit}" if measure.unit else ""), (8, 14), size=0.4)
    cv2.rectangle(panel, (LEFT, TOP), (PANEL_WIDTH - RIGHT, PANEL_HEIGHT - BOTTOM), GRID, 1)
    if known:
        write(panel, readable(high), (4, TOP + 10), size=0.4)
    if high > low:
        write(panel, readable(low), (4, PANEL_HEIGHT - BOTTOM), size=0.4)
    write(panel, "0", (LEFT, PANEL_HEIGHT - 6), size=0.4)
    write(panel, str(last), (PANEL_WIDTH - RIGHT - 8 * len(str(last)), PANEL_HEIGHT - 6), size=0.4)
    for number, (key, word, ink) in enumerate(kinds):
        value = report.summary.get(key)
        spread = next((report.summary.get(other.key) for other in MEASURES if other.spread_of == key), None)
        text = f"{word} {'none' if value is None else readable(value)}" + (f", deviation {readable(spread)}" if spread is not None else "")
        write(panel, text, (8 + 150 * number, 29), ink, 0.4)
        broken_line(panel, _pieces(report.per_frame[key], low, high), ink)


def _pieces(line: Sequence[float | None], low: float, high: float) -> list[list[tuple[int, int]]]:
    """Corners of the lines through neighbouring known values; a gap parts two of them, unless values come at a steady distance."""
    known = [t for t, value in enumerate(line) if value is not None and math.isfinite(value)]
    usual = min((b - a for a, b in pairwise(known)), default=1)
    pieces: list[list[tuple[int, int]]] = []
    for number, t in enumerate(known):
        value = line[t]
        assert value is not None
        up = (value - low) / (high - low) if high > low else 0.5
        across = t / max(len(line) - 1, 1)
        place = (
            round(LEFT + (PANEL_WIDTH - RIGHT - LEFT) * across),
            round(PANEL_HEIGHT - BOTTOM - (PANEL_HEIGHT - BOTTOM - TOP) * up),
        )
        if number and t - known[number - 1] <= usual:
            pieces[-1].append(place)
        else:
            pieces.append([place])
    return pieces
