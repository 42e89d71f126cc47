"""The measurements of a clip: per frame, summarised, as a table and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .registry import FACE, MEASURES


@dataclass(frozen=True)
class Report:
    """The figures of one restored clip.

    Attributes:
        per_frame: key -> one value for each frame, None where there is none (a pair's value stands at its second frame). Only measures
            that were taken; keys as in registry.MEASURES, with "_face" behind them for the face's pixels only.
        summary: key -> the mean of those values, or their standard deviation; None when there was no frame to measure.
        about: how it was measured: frames, size, motion_from and so on.
        notes: sentences on what was left out, and why.
    """

    per_frame: Mapping[str, Sequence[float | None]]
    summary: Mapping[str, float | None]
    about: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def table(self) -> str:
        """A markdown table, one line per measure: the whole frame, the face only, the unit and which way is better; then the notes."""
        rows = [("measure", "frame", "face", "unit", "best")]
        for measure in MEASURES:
            whole, face = self._shown(measure.key), self._shown(measure.key + FACE)
            if whole or face:
                rows.append((measure.name, whole, face, measure.unit, measure.best))
        if not any(face for _, _, face, _, _ in rows[1:]):
            rows = [(name, whole, unit, best) for name, whole, _, unit, best in rows]  # type: ignore[misc]
        widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
        lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
        lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
        about = ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in self.about.items() if value not in (None, "", []))
        return "\n".join([*lines, "", *([about + "."] if about else []), *self.notes]).rstrip()

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data for JSON: a number that is infinite (the PSNR of equal frames) is the text "inf"."""
        return {
            "summary": {key: _plain(value) for key, value in self.summary.items()},
            "per_frame": {key: [_plain(value) for value in values] for key, values in self.per_frame.items()},
            "units": {measure.key: measure.unit for measure in MEASURES if measure.key in self.summary or measure.key + FACE in self.summary},
            "about": dict(self.about),
            "notes": list(self.notes),
        }

    def as_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    def _shown(self, key: str) -> str:
        if key not in self.summary:
            return ""
        value = self.summary[key]
        return "none" if value is None else format_figure(value)


def format_figure(value: float) -> str:
    """A figure with four digits that count, such as 31.42, 0.9312, 0.00123 or 1.2e-06."""
    return "inf" if math.isinf(value) else f"{value:.4g}"


def summarised(per_frame: Mapping[str, Sequence[float | None]]) -> dict[str, float | None]:
    """The mean of every series, and the standard deviation (over the number of values) of those that a measure asks it of."""
    found: dict[str, float | None] = {}
    for key, values in per_frame.items():
        known = [value for value in values if value is not None]
        found[key] = math.fsum(known) / len(known) if known and all(map(math.isfinite, known)) else (math.inf if known else None)
        for measure in MEASURES:
            if measure.spread_of == key:
                found[measure.key] = float(torch.tensor(known, dtype=torch.float64).std(correction=0)) if known else None
    return found


def _plain(value: float | None) -> float | str | None:
    if value is None or math.isfinite(value):
        return value
    return "inf"
