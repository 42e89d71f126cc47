"""What `blind` makes of some thirty kinds of damage that are not described to it.

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
from PIL import Image
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
from fvr.training.data.codecs import transcoded
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
    small = small if codec is None else transcoded(small, codec, quality)
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


def of_each_colour(frames: np.ndarray, sigma: tuple[float, float], shift: int = 0) -> np.ndarray:
    """Colour differences (BT.601) blurred by sigmas across and down and shifted to the right, as analogue tape leaves them."""

    def change(frame: np.ndarray) -> np.ndarray:
        light, *colours = cv2.split(cv2.cvtColor(frame.astype(np.float32), cv2.COLOR_RGB2YCrCb))
        colours = [np.roll(cv2.GaussianBlur(part, (0, 0), sigmaX=sigma[0], sigmaY=sigma[1]), shift, 1) for part in colours]
        return cv2.cvtColor(cv2.merge([light, *colours]), cv2.COLOR_YCrCb2RGB)

    return each(frames, change)


def taped(frames: np.ndarray) -> np.ndarray:
    """VHS: lines are soft, overshoot at edges and tremble, colours are coarser and late, and there is noise; then digitised."""
    rng = np.random.default_rng(0)
    lines = each(frames, lambda frame: cv2.GaussianBlur(frame.astype(np.float32), (0, 0), sigmaX=1.6, sigmaY=0.5))
    lines = each(lines, lambda frame: frame + 0.5 * (frame - cv2.GaussianBlur(frame, (0, 0), sigmaX=2.5, sigmaY=0.1)))
    y, x = np.mgrid[: frames.shape[1], : frames.shape[2]].astype(np.float32)

    def trembling(frame: np.ndarray) -> np.ndarray:
        offsets = cv2.GaussianBlur(rng.normal(0, 1, (len(y), 1)).astype(np.float32), (0, 0), 2)
        return cv2.remap(frame, x + offsets, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    lines = each(lines, trembling)
    return transcoded(of_each_colour(noisy(lines, 4, 1), (5, 1.2), 4).clip(0, 255), "h264", 23)


def filmed(frames: np.ndarray) -> np.ndarray:
    """Old film: soft, grain of light, specks of dust and a scratch; then scanned and coded."""
    rng = np.random.default_rng(0)
    grain = noisy(each(frames, partial(soft, sigma=0.9)), 5, 1, 0.8)
    for frame in grain:
        for _ in range(12):
            place = (int(rng.integers(frame.shape[1])), int(rng.integers(frame.shape[0])))
            cv2.circle(frame, place, int(rng.integers(1, 3)), (float(rng.choice((15, 245))),) * 3, -1)
        frame[:, int(rng.integers(frame.shape[1]))] = 230
    return transcoded(grain.clip(0, 255), "h264", 24)


def by_webcam(frames: np.ndarray) -> np.ndarray:
    """Too dark, with coarse noise, averaged over time and sharpened by the camera, coded, and brightened again."""
    dark = noisy(0.55 * frames, 6, 3, 1.1)
    for number in range(1, len(dark)):
        dark[number] = (dark[number] + dark[number - 1]) / 2
    return transcoded(sharpened(dark).clip(0, 255), "h264", 28) / 0.55


def from_screen(frames: np.ndarray) -> np.ndarray:
    """Filmed from a screen: soft, with a moire of both grids, and noise."""
    y, x = np.mgrid[: frames.shape[1], : frames.shape[2]]
    moire = 4 * np.sin(2 * np.pi * x / 3.3) * np.cos(2 * np.pi * y / 4.1)
    return transcoded(noisy(each(frames, partial(soft, sigma=1)) + moire[..., None], 2).clip(0, 255), "h264", 25)


def smooth(frame: np.ndarray) -> np.ndarray:
    """As a phone's beauty filter."""
    return cv2.bilateralFilter(frame.astype(np.float32), 11, 30, 5)


def upscaled(frames: np.ndarray) -> np.ndarray:
    """As upscalers that smooth skin and sharpen edges leave it."""
    large = each(enlarged(frames, 0.5, cv2.INTER_LANCZOS4, "h264", 26), lambda frame: cv2.bilateralFilter(frame.astype(np.float32), 9, 18, 5))
    return transcoded(sharpened(large).clip(0, 255), "h264", 20)


def dithered(frames: np.ndarray) -> np.ndarray:
    """A GIF's palette of 128 colours, with Floyd and Steinberg's dithering."""
    return each(frames, lambda frame: np.asarray(Image.fromarray(frame.round().clip(0, 255).astype(np.uint8)).quantize(128).convert("RGB")))


KINDS: dict[str, Change] = {
    "clean": lambda frames: frames,
    **{f"h264 crf {crf}": partial(transcoded, codec="h264", quality=crf) for crf in (18, 23, 34)},
    "h265 crf 36": partial(transcoded, codec="h265", quality=36),
    "vp9 crf 50": partial(transcoded, codec="vp9", quality=50),
    **{f"mpeg4 q {q}": partial(transcoded, codec="mpeg4", quality=q) for q in (4, 12)},
    "mpeg2 q 8": partial(transcoded, codec="mpeg2", quality=8),
    "mjpeg q 12": partial(transcoded, codec="mjpeg", quality=12),
    "raw noise 4": partial(noisy, deviation=4),
    "raw noise 10": partial(noisy, deviation=10),
    **{f"grey noise {deviation}": partial(noisy, deviation=deviation, colours=1) for deviation in (2, 4)},
    "grain 8": partial(noisy, deviation=8, colours=1, width=0.9),
    "grain 10 h264": lambda frames: transcoded(noisy(frames, 10, 1, 0.9), "h264", 26),
    "defocus 3 h264": lambda frames: transcoded(blurred(frames, disk(3)), "h264", 23),
    **{f"blur {sigma} h264": lambda frames, sigma=sigma: transcoded(each(frames, partial(soft, sigma=sigma)), "h264", 24) for sigma in (1.5, 6)},
    "shaken 9 h264": lambda frames: transcoded(blurred(frames, np.ones((1, 9), np.float32)), "h264", 23),
    "sharpened h264": lambda frames: transcoded(sharpened(frames), "h264", 23),
    "combed h264": lambda frames: transcoded(combed(frames), "h264", 23),
    "0.4 nearest": partial(enlarged, share=0.4, way=cv2.INTER_NEAREST),
    "0.35 h264 bilinear": partial(enlarged, share=0.35, way=cv2.INTER_LINEAR, codec="h264", quality=28),
    "vhs h264": taped,
    "old film h264": filmed,
    "webcam h264": by_webcam,
    "from a screen h264": from_screen,
    "smoothed h264": lambda frames: transcoded(each(frames, smooth), "h264", 23),
    "upscaled h264": upscaled,
    "mjpeg q 20 h264": lambda frames: transcoded(transcoded(frames, "mjpeg", 20), "h264", 22),
    "0.33 vp9 bilinear": partial(enlarged, share=0.33, way=cv2.INTER_LINEAR, codec="vp9", quality=38),
    "gif": dithered,
    "bands of 8": lambda frames: frames // 8 * 8 + 4,
    "h264 at 0.6 again": lambda frames: transcoded(enlarged(frames, 0.6, cv2.INTER_CUBIC, "h264", 30), "h264", 30),
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
