"""The fidelity of CodeFormer and DicFace, and the range of w that weights work in."""

from __future__ import annotations

LEAST = 0.1
"""Of weights that were trained at w 1 alone, whose codes draw no face without the input's features. Gain of the small ones over bicubic enlargement
under the judged degradations (x4 with blur and noise, x8, JPEG): DicFace's, on ten held-out faces, with w = 0 -0.8, 0.0 and -1.3 dB, with 0.1 1.8,
1.3 and 2.1, with 1 2.2, 1.7 and 2.6; CodeFormer's, on ten to fourteen, with w = 0
-0.6, 0.3 and -1.1 dB and a cosine of identity of 0.917, 0.887 and 0.922 where the input has 0.932, 0.899 and 0.950, with 0.1 1.6, 1.3 and 2.1 dB and
0.931, 0.898 and 0.956, with 1 2.0, 1.6 and 2.6 dB."""


def weight_of(fidelity: float, least: float) -> float:
    """w of the generator: fidelity over the range [least, 1] in which the weights work."""
    return least + (1 - least) * fidelity
