"""The option `fidelity` of CodeFormer and DicFace, and the range of w that it stands for."""

from __future__ import annotations

LEAST = 0.1
"""The least w for weights that were trained with w = 1 only: without the input's features their codes form no face.

Gain in dB over bicubic enlargement under the three benchmark degradations (x4 with blur and noise, x8, JPEG):
DicFace at w = 0: -0.8, 0.0, -1.3; at 0.1: 1.8, 1.3, 2.1; at 1: 2.2, 1.7, 2.6.
CodeFormer at w = 0: -0.6, 0.3, -1.1 (less like the person than the input is); at 0.1: 1.6, 1.3, 2.1; at 1: 2.0, 1.6, 2.6.
"""


def weight_of(fidelity: float, least: float) -> float:
    """w of the generator: fidelity in [0, 1] mapped linearly to [least, 1]."""
    return least + (1 - least) * fidelity
