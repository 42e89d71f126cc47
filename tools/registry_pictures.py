"""Icon and banner of the registry page, and the picture of Compare Videos' help page; all drawn here, of nobody's face but a public-domain one.

    python tools/registry_pictures.py

Writes assets/icon.png (400 x 400), assets/banner.png (1680 x 720, 21:9) and web/docs/pictures/compared.jpg (scikit-image's astronaut, NASA).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fvr.demo import moving_portrait
from fvr.physics import parse
from fvr.video.comparison.compare import CompareOptions, compare_picture

ROOT = Path(__file__).resolve().parents[1]
NIGHT, FILM, SKIN, SHADE, HAIR, INK = (44, 30, 26), (24, 16, 14), (150, 190, 242), (118, 158, 222), (46, 52, 92), (38, 36, 60)
"""BGR, as OpenCV draws."""
FINE = 4
"""Drawn so many times larger and then averaged."""


def portrait(side: int) -> NDArray:
    """A drawn face on a warm ground, (side, side, 3) BGR."""
    big = side * FINE
    unit = big / 100
    row = np.linspace(0, 1, big)[:, None, None]
    picture = np.broadcast_to((1 - row) * (196, 150, 74) + row * (120, 84, 176), (big, big, 3)).astype(np.uint8).copy()

    def oval(x: float, y: float, w: float, h: float, colour: tuple[int, int, int], start: float = 0, end: float = 360, thick: float = 0) -> None:
        centre, axes = (round(x * unit), round(y * unit)), (round(w * unit), round(h * unit))
        cv2.ellipse(picture, centre, axes, 0, start, end, colour, round(thick * unit) or -1, cv2.LINE_AA)

    oval(50, 108, 36, 26, (150, 96, 60))
    oval(50, 44, 30, 33, HAIR)
    oval(50, 80, 11, 16, SHADE)
    oval(50, 52, 24, 30, SKIN)
    oval(50, 26, 25, 12, HAIR)
    for x in (40, 60):
        oval(x, 50, 4.6, 3.0, (250, 250, 250))
        oval(x, 50, 2.4, 2.6, INK)
        oval(x + 0.9, 49.2, 0.8, 0.8, (255, 255, 255))
        oval(x, 46, 6.0, 4.0, HAIR, 205, 335, 1.5)
    oval(50, 58, 3.0, 4.5, SHADE, 40, 140, 1.3)
    oval(50, 65, 8.5, 6.0, (92, 84, 190), 25, 155, 2.2)
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)


def damaged(picture: NDArray, blocks: int, seed: int = 0) -> NDArray:
    """The same as large pixels with noise and less colour."""
    side = picture.shape[0]
    small = cv2.resize(picture, (blocks, blocks), interpolation=cv2.INTER_AREA).astype(np.float64)
    small += np.random.default_rng(seed).normal(0, 14, (blocks, blocks, 1))
    small = 0.55 * small + 0.45 * small.mean(2, keepdims=True) * (1.02, 0.98, 0.94)
    return cv2.resize(small.clip(0, 255).astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST)


def filmed(picture: NDArray, edge: int) -> NDArray:
    """Between two perforated edges of `edge` rows."""
    width = picture.shape[1]
    strip = np.full((edge * FINE, width * FINE, 3), FILM, np.uint8)
    hole, holes = round(edge * FINE * 0.46), round(width / edge)
    for number in range(holes):
        left, top = round((number + 0.5) * width * FINE / holes - hole / 2), (edge * FINE - hole) // 2
        cv2.rectangle(strip, (left, top), (left + hole, top + hole), (206, 198, 190), -1)
    strip = cv2.resize(strip, (width, edge), interpolation=cv2.INTER_AREA)
    return np.vstack([strip, picture, strip])


def icon(side: int = 400) -> NDArray:
    """Left of the line what came in, right of it what goes out."""
    edge = side // 10
    face = portrait(side)
    split = np.hstack([damaged(face, 16)[:, : side // 2], face[:, side // 2 :]])
    cv2.line(split, (side // 2, 0), (side // 2, side), (255, 255, 255), max(2, side // 80))
    return filmed(split[edge : side - edge], edge)


def banner(width: int = 1680, height: int = 720) -> NDArray:
    """Three frames of a film, each clearer than the one before, under the name."""
    side, gap, edge = 380, 30, 44
    face = portrait(side)
    frames = [damaged(face, 14, 1), damaged(face, 34, 2), face]
    film = np.full((side, width, 3), FILM, np.uint8)
    for number, frame in enumerate(frames):
        left = width // 2 - side // 2 + (number - 1) * (side + gap)
        film[:, left : left + side] = frame
    picture = np.full((height, width, 3), NIGHT, np.uint8)
    picture[40 : 40 + side + 2 * edge] = filmed(film, edge)
    lines = (("Face Video Restoration", 620, 2.2, 5, (255, 255, 255)), ("for ComfyUI and the command line", 680, 1.1, 2, (200, 190, 180)))
    for text, baseline, scale, thickness, colour in lines:
        (wide, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
        cv2.putText(picture, text, ((width - wide) // 2, baseline), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness, cv2.LINE_AA)
    return picture


def compared() -> NDArray:
    """The three modes on one frame and the same frame damaged."""
    clean = moving_portrait(2)[1][:, 24:216, 64:256]
    worse = parse("gaussian_blur(sigma=1.6) + noise(sigma=0.03)").observe(clean[None], torch.Generator().manual_seed(0)).clamp(0, 1)[0]
    large = [torch.nn.functional.interpolate(frame[None], (300, 300), mode="bicubic").clamp(0, 1)[0] for frame in (worse, clean)]
    shown = [compare_picture(large, 0.2, CompareOptions(mode, ("before", "after"))) for mode in ("side_by_side", "split", "difference")]
    tall = max(picture.shape[-2] for picture in shown)
    gap = torch.full((3, tall, 10), 0.13)
    padded = [torch.nn.functional.pad(picture, (0, 0, 0, tall - picture.shape[-2]), value=0.13) for picture in shown]
    picture = torch.cat([padded[0], gap, padded[1], gap, padded[2]], -1)
    return np.ascontiguousarray((picture * 255).round().byte().permute(1, 2, 0).numpy()[..., ::-1])


def main() -> None:
    for place, picture in (("assets/icon.png", icon()), ("assets/banner.png", banner()), ("web/docs/pictures/compared.jpg", compared())):
        path = ROOT / place
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 82] if path.suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 9])
        print(f"{place}: {picture.shape[1]} x {picture.shape[0]}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
