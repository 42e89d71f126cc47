"""Sample sheets and curves as PNG files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..plots import panels

WIDTH, HEIGHT = 640, 360


def sheet_png(sheet: Tensor, path: Path) -> None:
    """Pictures (rows, columns, 3, H, W) in [0, 1] side by side, in one file."""
    page = rearrange(F.pad(sheet.clamp(0, 1), (0, 2, 0, 2), value=1.0), "row column c h w -> (row h) (column w) c")[:-2, :-2]
    cv2.imencode(".png", (page * 255 + 0.5).byte().numpy()[..., ::-1])[1].tofile(path)


def curve_png(points: Sequence[tuple[int, Mapping[str, float]]], path: Path) -> None:
    """Figures over steps, each scaled to its own range, which its label gives; nothing is written without any.

    Infinite and undefined values leave a gap in their line, as in metrics/plot.py.
    """
    names = list(points[-1][1]) if points else []
    if not names:
        return
    figure, (axes,) = panels(1, 1, WIDTH, HEIGHT)
    for name in names:
        steps, values = zip(*((step, figures[name]) for step, figures in points if name in figures), strict=True)
        known = [value for value in values if math.isfinite(value)]
        low, high = (min(known), max(known)) if known else (0.0, 0.0)
        label = f"{name}: {values[-1]:.4g}" + (f" ({low:.4g} to {high:.4g})" if known else "")
        axes.plot(steps, [(value - low) / (high - low) if high > low else value - low + 0.5 for value in values], marker=".", label=label)
    axes.set(xlim=(0, max(step for step, _ in points) or 1), ylim=(-0.05, 1.05), yticks=[], xlabel="steps")
    axes.legend(loc="upper right", fontsize=7)
    figure.savefig(path)
