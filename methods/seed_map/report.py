"""Reports of an optimisation: plot, JSON and text."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from torch import Tensor

from ...physics.base import Degradation
from ...plots import panels, rasterized
from .data_term import unfinished
from .optimise import SeedMapResult
from .options import SeedMapOptions

WIDTH, HEIGHT = 960, 540


def to_json(result: SeedMapResult, options: SeedMapOptions, operator: Degradation, seed: int, **more: Any) -> str:
    """All that is needed to reproduce the result: parameters, operator, seed, and every term and residual."""
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
    figure, (axes,) = panels(1, 1, WIDTH, HEIGHT)
    for name, term in (("data", "data"), ("warp", "warp"), ("residual / radius", "fullness")):
        axes.plot([math.nan if (value := getattr(one, term)) is None else value for one in result.terms], label=name, linewidth=2)
    if result.warped_from is not None:
        axes.axvline(result.warped_from, color="0.7", label="warping")
    axes.set_yscale("log", nonpositive="mask")
    axes.set_xlabel("iteration")
    axes.grid(axis="y")
    axes.legend()
    return rasterized(figure)
