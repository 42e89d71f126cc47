"""Film grain: whether a frame has it, and giving a face that a restorer smoothed its own grain back.

A restorer takes noise for damage. Where the frame around the face keeps it, the face shows as a clean square. What is given back is what was
there: the frame's own fine residual, so that it moves, or stands still, as around the face, and nothing depends on chunks or on chance.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from ...colour import BT601, luma
from .strength import smoothstep

GRAIN = ("auto", "off")
"""Choices of `Paster.grain`."""
BLOCK = 8
"""Side of the blocks in which noise is looked at, in coefficients: 16 pixels."""
STRIP = 2 * BLOCK
SAMPLED_PIXELS = 640 * 360
"""Pixels of a frame that tell its noise."""
NOISE_STD = (1.2 / 255, 2.0 / 255)
"""Standard deviations of diagonal detail between which noise begins to count as grain."""
CALM_SHARE = 0.25
"""Share of the blocks of each tone that noise is looked at in: those with the least structure, and those that a codec spared least."""
KURTOSIS = (3.25, 3.45)
"""Mean kurtosis of diagonal detail in the calm blocks at which noise is whole, and at which it is taken for a codec's.

64 samples of Gaussian noise have 2.9, grain in textured photographs up to 3.2, and so has grain through H.264 at CRF 14. The coarse steps of
codecs leave many zeros and few large values: grain at CRF 18 has 3.4 to 4.2, strong noise in low light at CRF 25 3.6 to 4.4, clean footage
much more. What coding left of noise is no grain to keep."""
TONE_RANGE = (0.02, 0.98)
"""Tones between which blocks count: black bars and burnt-out skies show no grain."""
MIN_BLOCKS = 16
HIGH_PASS_SIGMA = 2.0
"""Sigma, in pixels, of the Gaussian whose residual is the fine part of a picture."""
WINDOW = 9
"""Side, in pixels, of the neighbourhood that tells structure from noise."""
TONES = 8
"""Steps of brightness over which the strength of grain may differ, as it does on film."""
MIN_PIXELS = 500
"""Pixels that do not tell the strength of a tone's grain."""


def graininess(frame: Tensor) -> float:
    """How surely a frame (3, H, W) in [0, 1] has grain that no codec has touched: 0 to 1, with no step in between.

    Large frames are looked at in strips.
    """
    every = max(1, frame.shape[-2] * frame.shape[-1] // SAMPLED_PIXELS)
    rows, columns = (length // STRIP * STRIP for length in frame.shape[-2:])
    strips = luma(frame[:, :rows, :columns].unflatten(1, (-1, STRIP))[:, ::every].flatten(1, 2))[0].numpy(force=True)
    blocks, tones = split_blocks(diagonal_detail(strips)), split_blocks(strips[::2, ::2]).mean(1)
    power = np.square(blocks).mean(1)
    step = np.where((tones > TONE_RANGE[0]) & (tones < TONE_RANGE[1]), (tones * TONES).astype(int), -1)
    calm = np.zeros(len(blocks), bool)
    for n in range(TONES):
        alike = step == n
        if alike.any():
            calm |= alike & (power <= np.quantile(power[alike], CALM_SHARE))
    if calm.sum() < MIN_BLOCKS:
        return 0.0
    blocks, power = blocks[calm], power[calm]
    strength = float(smoothstep(torch.tensor(robust_std(blocks), dtype=torch.float64), *NOISE_STD))
    if strength == 0:
        return 0.0
    kurtosis = np.where(power > 0, (blocks**4).mean(1) / np.maximum(power, 1e-20) ** 2, BLOCK * BLOCK).mean()
    return strength * (1 - float(smoothstep(torch.tensor(float(kurtosis), dtype=torch.float64), *KURTOSIS)))


def restore_grain(frame: Tensor, restored: Tensor, mask: Tensor) -> Tensor:
    """`restored` with the grain of `frame` as far as it lost it.

    frame, restored: (3, h, w) in [0, 1] of one place; mask: (h, w), where the restored face will show. Returns (3, h, w), not clamped.
    """
    shown = mask.numpy(force=True) > 0.5
    before, after = (diagonal_detail(luma(picture)[0].numpy(force=True)) for picture in (frame, restored))
    inside = shown[: 2 * before.shape[0] : 2, : 2 * before.shape[1] : 2]
    if not inside.any():
        return restored
    had, has = robust_std(before[inside]), robust_std(after[inside])
    lost = max(0.0, 1 - (has / had) ** 2) ** 0.5 if had > 0 else 0.0
    return restored + lost * extract_grain(frame, restored, shown)


def extract_grain(frame: Tensor, restored: Tensor, shown: np.ndarray) -> Tensor:
    """The fine noise of `frame`, (3, h, w), without its structure.

    Structure is taken away with that of `restored` where that leaves less, as at sharp edges, and left alone where it leaves more, as where the
    restorer sharpened a blurred frame. In noise the energy around a pixel is what it is at most shown places of that tone; where it is still
    more, it is held down.
    """
    seen, mended = (picture.permute(1, 2, 0).numpy(force=True).astype(np.float32) for picture in (frame, restored))
    alone, without = high_pass(seen), high_pass(seen - mended)
    energies = local_energy(alone), local_energy(without)
    grain = (alone * energies[1][..., None] + without * energies[0][..., None]) / (energies[0] + energies[1] + 1e-12)[..., None]
    here, tone = local_energy(grain), cv2.blur(seen @ np.array(BT601, np.float32), (WINDOW, WINDOW))
    usual = median_energy(here, tone, shown)
    grain *= np.minimum(1.0, 1.5 * usual / np.maximum(here, 1e-12))[..., None]
    limit = 3 * np.sqrt(usual)[..., None]
    return torch.from_numpy(np.clip(grain, -limit, limit)).permute(2, 0, 1).to(frame)


def high_pass(picture: np.ndarray) -> np.ndarray:
    """(h, w, 3) without what a Gaussian leaves."""
    return picture - cv2.GaussianBlur(picture, (0, 0), HIGH_PASS_SIGMA)


def local_energy(picture: np.ndarray) -> np.ndarray:
    """Mean square of the luma around each pixel of (h, w, 3)."""
    return cv2.blur(np.square(picture @ np.array(BT601, np.float32)), (WINDOW, WINDOW))


def median_energy(power: np.ndarray, tone: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Per pixel the median energy that shown pixels of its tone have, (h, w); tones that few pixels have take that of all."""
    step = np.where(shown, np.minimum((tone * TONES).astype(int), TONES - 1), -1)
    everywhere = float(np.median(power[shown]))
    table = [float(np.median(power[step == n])) if (step == n).sum() > MIN_PIXELS else everywhere for n in range(TONES)]
    return np.interp(tone * TONES - 0.5, np.arange(TONES), table)


def split_blocks(coefficients: np.ndarray) -> np.ndarray:
    """(h, w) cut into (n, BLOCK * BLOCK), what is left over at the right and below dropped."""
    rows, columns = (length // BLOCK * BLOCK for length in coefficients.shape)
    cut = coefficients[:rows, :columns].reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
    return cut.swapaxes(1, 2).reshape(-1, BLOCK * BLOCK)


def diagonal_detail(picture: np.ndarray) -> np.ndarray:
    """The diagonal detail of 2 x 2 pixels (Haar's HH), (h / 2, w / 2): white noise keeps its deviation, edges leave little."""
    rows, columns = (length // 2 * 2 for length in picture.shape)
    a = picture[:rows, :columns]
    return (a[::2, ::2] - a[1::2, ::2] - a[::2, 1::2] + a[1::2, 1::2]) / 2


def robust_std(values: np.ndarray) -> float:
    """A standard deviation that outliers do not move: median |v| / 0.6745."""
    return float(np.median(np.abs(values)) / 0.6745)
