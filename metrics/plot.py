"""Figures over the frames of a clip, as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from ..plots import panels, rasterized
from .registry import FACE, MEASURES
from .report import Report, format_figure

PANEL_WIDTH, PANEL_HEIGHT = 480, 170
COLUMNS = 2
KINDS = (("", "frame", "tab:blue"), (FACE, "face", "tab:orange"))


def plot(report: Report) -> Tensor:
    """One panel per measure, each to its own scale: blue the whole frame, orange the face. (3, H, W) float32 in [0, 1]."""
    shown = [measure for measure in MEASURES if measure.key in report.per_frame or measure.key + FACE in report.per_frame]
    figure, axes = panels(max(1, math.ceil(len(shown) / COLUMNS)), COLUMNS, PANEL_WIDTH, PANEL_HEIGHT)
    for panel, measure in zip(axes, shown, strict=False):
        for suffix, word, ink in KINDS:
            if (series := report.per_frame.get(measure.key + suffix)) is not None:
                value = report.summary.get(measure.key + suffix)
                spread = next((report.summary.get(other.key) for other in MEASURES if other.spread_of == measure.key + suffix), None)
                text = f"{word} {'none' if value is None else format_figure(value)}"
                text += f", deviation {format_figure(spread)}" if spread is not None else ""
                panel.plot(*_line(series), color=ink, linewidth=1, marker=".", markersize=2, label=text)
                panel.set_xlim(0, max(len(series) - 1, 1))
        panel.set_title(measure.name + (f", {measure.unit}" if measure.unit else ""), loc="left", fontsize=8)
        panel.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, ncols=2, frameon=False, fontsize=7, handlelength=1, columnspacing=1)
        panel.tick_params(labelsize=7)
    for panel in axes[len(shown) :]:
        panel.set_axis_off()
    return rasterized(figure)


def _line(series: Sequence[float | None]) -> tuple[list[int], list[float]]:
    """Known values over their frames; NaN, a gap, parts two of them, unless values come at a steady distance."""
    known = {t: value for t, value in enumerate(series) if value is not None and math.isfinite(value)}
    usual = min((b - a for a, b in pairwise(known)), default=1)
    gaps = {a + 1: math.nan for a, b in pairwise(known) if b - a > usual}
    points = dict(sorted((known | gaps).items()))
    return list(points), list(points.values())
