"""The fidelity of CodeFormer and DicFace, and the range of w that weights work in."""

from __future__ import annotations

LEAST = 0.1
"""The least w of weights that were trained at w 1 alone: their codes draw no face without the input's features. Gain over bicubic enlargement under
the judged degradations (x4 with blur and noise, x8, JPEG), of DicFace's at w = 0, 0.1 and 1: -0.8, 0.0 and -1.3 dB; 1.8, 1.3 and 2.1; 2.2, 1.7 and
2.6; of CodeFormer's: -0.6, 0.3 and -1.1 dB, less alike than the input; 1.6, 1.3 and 2.1; 2.0, 1.6 and 2.6."""


def weight_of(fidelity: float, least: float) -> float:
    """w of the generator: fidelity over the range [least, 1] in which the weights work."""
    return least + (1 - least) * fidelity
