"""Short labels on pictures: white letters on a shade, readable at any picture size."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import VideoError

FONT = cv2.FONT_HERSHEY_SIMPLEX
MIN_LETTER_HEIGHT = 9
"""Height in pixels below which FONT is illegible."""
SHARE = 26
"""Letter height as a fraction of the picture's shorter side, at least MIN_LETTER_HEIGHT."""
SHADE = 0.3
"""Factor on the picture's brightness behind letters."""
ELLIPSIS = ".."


def letter_height(height: int, width: int) -> int:
    """Cap height in pixels for a picture of height x width."""
    return max(MIN_LETTER_HEIGHT, round(min(height, width) / SHARE))


def drawable(text: str) -> str:
    """`text` in the letters that FONT has, without accents. Raises VideoError for other scripts, which would come out as question marks."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    if not plain.isascii() or not plain.isprintable():
        raise VideoError(f"label {text!r} has letters that cannot be drawn here; write it in Latin letters, in one line")
    return plain


def rendered_text(text: str, height: int) -> Tensor:
    """(H, W) in [0, 1]: how much of each pixel the letters cover; capital letters are `height` pixels high, descenders are inside."""
    thickness = max(1, round(height / 8))
    return torch.from_numpy(rasterized_text(text, font_scale(height, thickness), thickness)).float() / 255


def rasterized_text(text: str, scale: float, thickness: int) -> NDArray:
    """(H, W) uint8: the text in white on black."""
    (width, above), below = cv2.getTextSize(text, FONT, scale, thickness)
    canvas = np.zeros((above + below, max(1, width)), np.uint8)
    cv2.putText(canvas, text, (0, above), FONT, scale, 255, thickness, cv2.LINE_AA)
    return canvas


@lru_cache(maxsize=64)
def font_scale(height: int, thickness: int) -> float:
    """At which an H covers `height` rows; measured, because OpenCV 4 and 5 draw FONT by different fonts."""
    return height * 4 / np.count_nonzero(rasterized_text("H", 4.0, thickness).max(1) > 127)


def truncated_text(text: str, height: int, room: int) -> Tensor | None:
    """The overlay of `text`, truncated with ".." to `room` pixels; None if nothing fits."""
    drawn = rendered_text(text, height)
    while drawn.shape[1] > room:
        text = text.removesuffix(ELLIPSIS)[:-1]
        if not text:
            return None
        text += ELLIPSIS
        drawn = rendered_text(text, height)
    return drawn


def write_label(picture: Tensor, text: str, *, right: bool = False) -> None:
    """Writes a label into the upper left (or right) corner of `picture` (3, H, W), in place.

    A label that would take more than a third of the picture's height is left out.
    """
    height, width = picture.shape[-2:]
    size = letter_height(height, width)
    margin = size // 2
    drawn = truncated_text(drawable(text), size, width - 4 * margin) if text else None
    if drawn is None or drawn.shape[0] + 3 * margin > height / 3:
        return
    rows, columns = drawn.shape[0] + margin, drawn.shape[1] + 2 * margin
    left = width - margin - columns if right else margin
    box = picture[:, margin : margin + rows, left : left + columns]
    box *= SHADE
    blend_text(box, drawn, margin // 2 + margin % 2, margin)


def blend_text(picture: Tensor, drawn: Tensor, top: int, left: int) -> None:
    """Blends white letters into `picture` (3, H, W) in place, their upper left corner at (top, left)."""
    rows, columns = drawn.shape
    area = picture[:, top : top + rows, left : left + columns]
    area.lerp_(torch.ones_like(area), drawn[: area.shape[1], : area.shape[2]].to(area))
