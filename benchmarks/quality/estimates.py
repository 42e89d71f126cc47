"""How often the estimate of `auto` tells an enlargement and a codec's blocks, and how often it does where there are none.

    python benchmarks/quality/estimates.py FOLDER_OF_FACES [--faces 14] [--kinds "H.264 crf 20"]

Faces of 512 pixels are moved by whole pixels, eight frames each, damaged, and looked at as frames. The portraits' own JPEG blocks are gone: they are
reduced to three quarters first. An enlargement is right within 2 %, and so are blocks.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from undescribed import Change, each

from fvr.physics.traces import find_traces
from fvr.training.data.codecs import transcoded

FRAMES, SIDE = 8, 336
FILTERS = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC, "lanczos": cv2.INTER_LANCZOS4}


def moving(path: Path, seed: int) -> np.ndarray:
    """(FRAMES, SIDE, SIDE, 3) float32 RGB in [0, 255]: a face that moves by up to two whole pixels a frame."""
    picture = cv2.resize(cv2.imread(str(path))[..., ::-1], (384, 384), interpolation=cv2.INTER_AREA).astype(np.float32)
    steps = np.random.default_rng(seed).integers(-2, 3, (FRAMES, 2)).cumsum(0)
    return np.stack([picture[y : y + SIDE, x : x + SIDE] for y, x in np.clip(24 + steps, 0, 48)])


def reduced(frames: np.ndarray, factor: float) -> np.ndarray:
    height, width = (int(side / factor) // 2 * 2 for side in frames.shape[1:3])
    return each(frames, lambda frame: cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA))


def enlarged(frames: np.ndarray, factor: float, way: str) -> np.ndarray:
    height, width = (round(side * factor) // 2 * 2 for side in frames.shape[1:3])
    return stored(each(frames, lambda frame: cv2.resize(frame, (width, height), interpolation=FILTERS[way])))


def stored(frames: np.ndarray) -> np.ndarray:
    return np.clip(frames, 0, 255).round().astype(np.float32)


def noisy(frames: np.ndarray, deviation: float) -> np.ndarray:
    return stored(frames + np.random.default_rng(0).normal(0, deviation, frames.shape))


def blurred(frames: np.ndarray, sigma: float) -> np.ndarray:
    return stored(each(frames, lambda frame: cv2.GaussianBlur(frame, (0, 0), sigma)))


def jpeg(frames: np.ndarray, quality: int) -> np.ndarray:
    def coded(frame: np.ndarray) -> np.ndarray:
        return cv2.imdecode(cv2.imencode(".jpg", frame[..., ::-1].round().astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)[..., ::-1]

    return each(frames, coded).astype(np.float32)


def coded(frames: np.ndarray, crf: int | None) -> np.ndarray:
    return frames if crf is None else transcoded(frames, "h264", crf)


NEITHER: dict[str, Change] = {
    "clean": stored,
    "noise of 4 levels": partial(noisy, deviation=4),
    "noise of 10 levels": partial(noisy, deviation=10),
    "blur of 1 pixel": partial(blurred, sigma=1),
    "blur of 2 pixels": partial(blurred, sigma=2),
    "H.264 crf 20": partial(coded, crf=20),
    "H.264 crf 28": partial(coded, crf=28),
    "H.264 crf 34": partial(coded, crf=34),
    "blur 1.5, noise 9, H.264 crf 26": lambda frames: coded(noisy(blurred(frames, 1.5), 9), 26),
    "H.265 crf 30": partial(transcoded, codec="h265", quality=30),
}
BLOCKS: dict[str, Change] = {
    **{f"JPEG {quality}": partial(jpeg, quality=quality) for quality in (30, 60, 85)},
    **{f"{codec.upper()} q {q}": partial(transcoded, codec=codec, quality=q) for codec in ("mpeg2", "mpeg4") for q in (4, 8, 16)},
}
FACTORS = (1.5, 2.0, 2.25, 3.0, 4.0)


def said(frames: np.ndarray, factor: float, period: float | None) -> tuple[str, str]:
    """What is told of the enlargement and of the grid: "right", "wrong" or "nothing"."""
    found = find_traces(torch.from_numpy(frames).permute(0, 3, 1, 2) / 255)
    grown = "nothing" if found.enlargement == 1 else "right" if abs(found.enlargement / factor - 1) < 0.02 and factor > 1 else "wrong"
    if found.blocks is None:
        return grown, "nothing"
    return grown, "right" if period is not None and abs(found.blocks / period - 1) < 0.02 else "wrong"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--faces", dest="count", type=int, default=14)
    parser.add_argument("--kinds", default="", help="only those whose names hold this")
    options = parser.parse_args()
    paths = sorted(options.faces.glob("*.jpg"))
    paths = paths[:: max(1, len(paths) // options.count)][: options.count]
    clips = [moving(path, seed) for seed, path in enumerate(paths)]

    kinds: dict[str, list[tuple[Change, float, float | None]]] = {name: [(change, 1.0, None)] for name, change in NEITHER.items()}
    kinds |= {name: [(change, 1.0, 8.0)] for name, change in BLOCKS.items()}
    for crf in (None, 20, 26, 32):
        for way in FILTERS:
            name = f"{way}" + (f", H.264 crf {crf}" if crf else "")
            kinds |= {
                f"{factor:g} times, {name}": [(lambda f, r=factor, w=way, c=crf: coded(enlarged(reduced(f, r), r, w), c), factor, None)]
                for factor in FACTORS
            }
    for name, change in (("JPEG 30", BLOCKS["JPEG 30"]), ("MPEG2 q 8", BLOCKS["MPEG2 q 8"])):
        kinds[f"{name}, then enlarged"] = [
            (lambda f, r=factor, c=change: enlarged(c(reduced(f, r)), r, "bicubic"), factor, 8 * factor) for factor in FACTORS
        ]
    for name, changes in kinds.items():
        if options.kinds in name:
            told = [said(change(clip), factor, period) for change, factor, period in changes for clip in clips]
            counts = [[sum(one[which] == word for one in told) for word in ("right", "wrong")] for which in (0, 1)]
            print(f"RESULT {name}: of {len(told)}, enlargement right {counts[0][0]}, wrong {counts[0][1]}; ", end="")
            print(f"grid right {counts[1][0]}, wrong {counts[1][1]}", flush=True)


if __name__ == "__main__":
    main()
