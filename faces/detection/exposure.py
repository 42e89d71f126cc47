"""Exposure and colour of dark and coloured frames, as the detection networks expect them: they were trained in daylight."""

from __future__ import annotations

import math

import numpy as np

DARK, MAX_GAIN = 0.4, 8.0
"""Brightness up to which the highlights of dark frames are raised for detection, and the largest gain."""
COLOUR_CAST, RED_CAST = 1.6, 6.0
"""Ratio of a frame's green or blue mean to red, and of red to the weaker of the two, above which it is converted to grey for detection: FaceMesh
misses faces in green, cyan or blue light, and finds them in grey."""


def exposure(small: np.ndarray) -> float:
    """Gain for dark frames: the largest power of two in [1, MAX_GAIN] that keeps the 95th percentile of a thumbnail (3, h, w) at most DARK."""
    light = float(np.quantile(small, 0.95))
    return min(2.0 ** max(math.floor(math.log2(DARK / max(light, 1e-4))), 0), MAX_GAIN)


def colour_cast(small: np.ndarray) -> np.ndarray | None:
    """Channel weights (3,) for grey conversion of a thumbnail (3, h, w) under night vision or coloured light; None for ordinary colours."""
    light = small.mean((1, 2))
    return light / light.sum() if light.max() > COLOUR_CAST * light[0] or light[0] > RED_CAST * light.min() else None


def grey(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """An image (3, H, W) in grey, by channel weights (3,), as three equal channels."""
    return np.repeat(np.tensordot(weights, picture, 1)[None], 3, 0)


def exposed(picture: np.ndarray, gain: float, weights: np.ndarray | None) -> np.ndarray:
    """The image in grey if weights are given, times the gain, clipped to 1: the networks expect daylight."""
    picture = picture if weights is None else grey(picture, weights)
    return picture if gain == 1 else np.minimum(picture * np.float32(gain), 1.0)
