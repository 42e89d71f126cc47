"""What `blind` makes of some twenty kinds of damage that nobody described to it.

    python benchmarks/quality/undescribed.py CLIP... [--side 140] [--kinds "clean,h264 crf 18"] [--auto] [--first 20]

PSNR inside the face against the clip as it is, and how much of it is gained; six frames from --first on, cut out of the damaged ones along the
truth's track. With --side the clips are first shrunk until the face is that wide; with --auto the default method takes the place of `blind`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fvr.assembly import EMBEDDED
from fvr.faces.align import align
from fvr.faces.compositing.paste import Paster
from fvr.faces.detection.detectors import load_detector
from fvr.faces.tracking.tracks import find_tracks
from fvr.methods.base import Restorer, restore_frames
from fvr.methods.registry import build_restorer, with_estimates
from fvr.models import embedded
from fvr.models.device import on
from fvr.training.data.codecs import through
from fvr.video import read_frames

FRAMES, FIRST = 6, 20
Change = Callable[[np.ndarray], np.ndarray]


def each(frames: np.ndarray, change: Change) -> np.ndarray:
    return np.stack([change(frame) for frame in frames])


def blurred(frames: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return each(frames, lambda frame: cv2.filter2D(frame, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101))


def enlarged(frames: np.ndarray, share: float, way: int, codec: str | None = None, quality: float = 0) -> np.ndarray:
    """Shrunk, coded, and enlarged again."""
    height, width = frames.shape[1:3]
    small = each(frames, lambda frame: cv2.resize(frame, (int(width * share) // 2 * 2, int(height * share) // 2 * 2), interpolation=cv2.INTER_AREA))
    small = small if codec is None else through(small, codec, quality)
    return each(small, lambda frame: cv2.resize(frame, (width, height), interpolation=way))


def noisy(frames: np.ndarray, deviation: float, colours: int = 3, width: float = 0) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 1, (*frames.shape[:3], colours)).astype(np.float32)
    if width:
        noise = each(noise, lambda frame: cv2.GaussianBlur(frame, (0, 0), width).reshape(frame.shape))
    return frames + deviation * noise / noise.std()


def soft(frame: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(frame, (0, 0), sigma)


def sharpened(frames: np.ndarray) -> np.ndarray:
    return each(frames, lambda frame: frame + 1.2 * (frame - soft(frame, 1.5)))


def combed(frames: np.ndarray) -> np.ndarray:
    """Every other line is of the frame before, as where fields were woven."""
    woven = frames.copy()
    woven[1:, 1::2] = frames[:-1, 1::2]
    return woven


def disk(radius: int) -> np.ndarray:
    return cv2.circle(np.zeros((2 * radius + 1,) * 2, np.float32), (radius, radius), radius, 1.0, -1)


KINDS: dict[str, Change] = {
    "clean": lambda frames: frames,
    **{f"h264 crf {crf}": partial(through, codec="h264", quality=crf) for crf in (18, 23, 34)},
    "h265 crf 36": partial(through, codec="h265", quality=36),
    "vp9 crf 50": partial(through, codec="vp9", quality=50),
    **{f"mpeg4 q {q}": partial(through, codec="mpeg4", quality=q) for q in (4, 12)},
    "mpeg2 q 8": partial(through, codec="mpeg2", quality=8),
    "mjpeg q 12": partial(through, codec="mjpeg", quality=12),
    "raw noise 4": partial(noisy, deviation=4),
    "raw noise 10": partial(noisy, deviation=10),
    **{f"grey noise {deviation}": partial(noisy, deviation=deviation, colours=1) for deviation in (2, 4)},
    "grain 8": partial(noisy, deviation=8, colours=1, width=0.9),
    "grain 10 h264": lambda frames: through(noisy(frames, 10, 1, 0.9), "h264", 26),
    "defocus 3 h264": lambda frames: through(blurred(frames, disk(3)), "h264", 23),
    **{f"blur {sigma} h264": lambda frames, sigma=sigma: through(each(frames, partial(soft, sigma=sigma)), "h264", 24) for sigma in (1.5, 6)},
    "shaken 9 h264": lambda frames: through(blurred(frames, np.ones((1, 9), np.float32)), "h264", 23),
    "sharpened h264": lambda frames: through(sharpened(frames), "h264", 23),
    "combed h264": lambda frames: through(combed(frames), "h264", 23),
    "0.4 nearest": partial(enlarged, share=0.4, way=cv2.INTER_NEAREST),
    "0.35 h264 bilinear": partial(enlarged, share=0.35, way=cv2.INTER_LINEAR, codec="h264", quality=28),
    "h264 at 0.6 again": lambda frames: through(enlarged(frames, 0.6, cv2.INTER_CUBIC, "h264", 30), "h264", 30),
}


def psnr(frames: Tensor, truth: Tensor, inside: Tensor) -> float:
    return float(-10 * torch.log10((frames - truth)[inside.expand_as(truth)].square().mean().clamp_min((0.3 / 255) ** 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+")
    parser.add_argument("--side", type=float)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--auto", action="store_true")
    parser.add_argument("--first", type=int, default=FIRST)
    options = parser.parse_args()
    restorer: Restorer = build_restorer("blind", weights=embedded.FOLDER / embedded.listed(embedded.RESTORERS)[EMBEDDED["blind"]])
    if options.auto:
        device = torch.device("cpu")
        restorer = with_estimates(restorer, device=device, precision=None, placed=lambda network: on(network, device))
    for place in options.clips:
        truth = read_frames(place, start=options.first, count=FRAMES)[0]
        if options.side:
            box = find_tracks([(0, truth)], load_detector("blazeface"))[0].boxes.median(0).values
            share = options.side / float(box[2] - box[0])
            truth = F.interpolate(truth, [int(length * share) // 2 * 2 for length in truth.shape[-2:]], mode="area")
        track = find_tracks([(0, truth)], load_detector("blazeface"))[0]
        inside = Paster(fade=False, grain="off").paste(truth, 0, [(track, align(truth, track, 0), None)])[1][:, None] > 0.9
        pixels = (truth.permute(0, 2, 3, 1) * 255).round().numpy()
        for kind in options.kinds.split(","):
            damaged = np.clip(KINDS[kind](pixels), 0, 255).round().astype(np.float32)
            seen = torch.from_numpy(damaged).permute(0, 3, 1, 2) / 255
            crops = align(seen, track, 0)
            done = Paster(grain="off").paste(seen, 0, [(track, restore_frames(restorer, crops, track), crops)])[0]
            before, after = (psnr((frames * 255).round() / 255, truth, inside) for frames in (seen, done))
            print(f"RESULT {Path(place).stem}, {kind}: {before:.2f} dB, {after - before:+.2f}", flush=True)


if __name__ == "__main__":
    main()
