"""Every figure that a report can hold: its name, its unit, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FACE = "_face"
"""Suffix of a measure's key when only the face's pixels count."""


@dataclass(frozen=True)
class Measure:
    """One line of a report.

    Attributes:
        key: in JSON.
        name: for people.
        unit: "" for a bare number.
        best: which values are better, in a word; "" when that depends.
        on_face: whether it is also measured on the face's pixels only, under `key` + "_face".
        spread_of: the measure whose standard deviation over time this is; it has no value of its own per frame.
    """

    key: str
    name: str
    unit: str
    best: Literal["high", "low", "near 1", ""]
    on_face: bool = False
    spread_of: str | None = None


MEASURES = (
    Measure("psnr", "PSNR", "dB", "high", True),
    Measure("ssim", "SSIM", "", "high", True),
    Measure("lpips", "LPIPS", "", "low", True),
    Measure("musiq", "MUSIQ, without a reference", "", "high", True),
    Measure("maniqa", "MANIQA, without a reference", "", "high", True),
    Measure("niqe", "NIQE, without a reference", "", "low", True),
    Measure("warping_error", "warping error, RGB sum per visible pixel", "", "low", True),
    Measure("warping_error_per_value", "warping error, per visible value", "", "low", True),
    Measure("warping_error_all", "warping error, over all values", "", "low", True),
    Measure("flicker", "flicker along the motion", "grey levels", "low", True),
    Measure("flicker_added", "flicker beyond the reference's", "grey levels", "low", True),
    Measure("akd", "landmark distance (AKD)", "px of the 512 crop", "low"),
    Measure("akd_deviation", "its deviation (sigma AKD)", "px of the 512 crop", "low", spread_of="akd"),
    Measure("tlme", "landmark motion error (TLME)", "px of the 512 crop", "low"),
    Measure("identity", "identity similarity (IDS)", "", "high"),
    Measure("identity_deviation", "its deviation (sigma IDS)", "", "low", spread_of="identity"),
    Measure("vidd", "identity distance of neighbouring frames (VIDD)", "", "low"),
    Measure("residual_rms", "data residual, RMS of Ax - y", "grey levels", ""),
    Measure("residual_in_noise", "data residual over the noise", "", "near 1"),
    Measure("residual_psnr", "PSNR of Ax against y", "dB", ""),
    Measure("sharpness", "sharpness, variance of the Laplacian", "grey levels^2", "", True),
    Measure("sharpness_ratio", "sharpness over the reference's", "", "near 1", True),
    Measure("tenengrad", "sharpness, Tenengrad", "(grey levels/px)^2", "", True),
)
"""In the order of the table. docs: web/docs/FVRMeasureRestoration.md."""
