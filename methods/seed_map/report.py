"""The course of an optimisation: as a picture and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from ...physics.base import Degradation
from ...plots import GRID, blank, picture, write
from .data_term import unfinished
from .optimise import SeedMapResult
from .options import SeedMapOptions

WIDTH, HEIGHT = 960, 540
LEFT, RIGHT, TOP, BOTTOM = 90, 20, 40, 50
COLOURS = {"data": (31, 119, 180), "warp": (214, 120, 20), "residual / radius": (60, 140, 60)}


def to_json(result: SeedMapResult, options: SeedMapOptions, operator: Degradation, seed: int, **more: Any) -> str:
    """All that is needed to see what was done, and to do it again: parameters, operator, seed, every term, every frame's residual."""
    terms = {name: [getattr(term, name) for term in result.terms] for name in ("data", "warp", "flow_change", "fullness")}
    return json.dumps(
        {
            "method": "seed-space MAP",
            "operator": operator.describe(),
            "seed": seed,
            **more,
            "options": asdict(options),
            "warped_from": result.warped_from,
            "skipped_iterations": result.skipped,
            "unfinished": _unfinished(result),
            "frames": {
                "data_residual_rms": [round(value, 6) for value in result.residuals],
                "contrast": [round(value, 6) for value in result.contrast],
                "unexplained": result.unexplained,
            },
            "terms": terms,
        }
    )


def summary(result: SeedMapResult) -> str:
    """A few sentences for people."""
    if not result.terms:
        return "Nothing was done."
    first, last = result.terms[0].data, result.terms[-1].data
    middle = sorted(result.residuals)[len(result.residuals) // 2]
    text = f"Data loss {first:.4g} to {last:.4g} in {len(result.terms)} iterations; the median frame is explained to {middle * 255:.1f} grey levels."
    if result.warped_from is not None:
        text += f" Warping since iteration {result.warped_from}."
    if result.unexplained:
        shown = ", ".join(map(str, result.unexplained[:12])) + (", ..." if len(result.unexplained) > 12 else "")
        text += f" {len(result.unexplained)} of {len(result.residuals)} frames are not explained (frames {shown}): "
        if _unfinished(result):
            text += "more iterations or higher learning rates may explain them, so try that first; or the degradation is described wrongly, "
            text += "or the clip cuts there."
        else:
            text += "the loss stopped falling, so the degradation is probably described wrongly, or the clip cuts there."
    return text


def _unfinished(result: SeedMapResult) -> bool:
    return unfinished([term.data for term in result.terms], [term.travel for term in result.terms])


def plot(result: SeedMapResult) -> Tensor:
    """The terms over the iterations on a logarithmic scale, (3, HEIGHT, WIDTH) in [0, 1]."""
    canvas = blank(HEIGHT, WIDTH)
    series: dict[str, Sequence[float | None]] = {
        "data": [term.data for term in result.terms],
        "warp": [term.warp for term in result.terms],
        "residual / radius": [term.fullness for term in result.terms],
    }
    values = [value for line in series.values() for value in line if value is not None and value > 0 and math.isfinite(value)]
    low, high = (math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))) if values else (-1, 0)
    high = max(high, low + 1)
    count = max(len(result.terms), 2)

    def place(i: float, value: float) -> tuple[int, int]:
        up = (math.log10(value) - low) / (high - low)
        return round(LEFT + (WIDTH - LEFT - RIGHT) * i / (count - 1)), round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * up)

    for power in range(low, high + 1):
        _, at = place(0, 10.0**power)
        cv2.line(canvas, (LEFT, at), (WIDTH - RIGHT, at), GRID, 1)
        write(canvas, f"1e{power}", (20, at + 5))
    for share in (0, 0.25, 0.5, 0.75, 1):
        i = round(share * (count - 1))
        write(canvas, str(i), (place(i, 10.0**low)[0] - 12, HEIGHT - 20))
    if result.warped_from is not None:
        x = place(result.warped_from, 10.0**low)[0]
        cv2.line(canvas, (x, TOP), (x, HEIGHT - BOTTOM), (170, 170, 170), 1)
        write(canvas, "warping", (x + 4, HEIGHT - BOTTOM - 8))
    for number, (name, line) in enumerate(series.items()):
        points = [place(i, value) for i, value in enumerate(line) if value is not None and value > 0 and math.isfinite(value)]
        if points:
            cv2.polylines(canvas, [np.array(points, np.int32)], False, COLOURS[name], 2, cv2.LINE_AA)
        x = LEFT + 200 * number
        cv2.line(canvas, (x, 20), (x + 24, 20), COLOURS[name], 3)
        write(canvas, name, (x + 32, 25))
    return picture(canvas)
