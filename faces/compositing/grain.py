"""Film grain: detecting it in a frame, and restoring it on faces that a restorer smoothed.

Restorers remove noise as damage, so a face in grainy footage stands out as a clean patch. The grain that is added back is the frame's own
high-frequency residual: it moves as it does around the face, and depends on neither chunking nor a seed.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from ...colour import BT601, luma
from .strength import smoothstep

GRAIN = ("auto", "off")
"""Values of `Paster.grain`."""
BLOCK = 8
"""Side of the blocks in which noise is measured, in coefficients: 16 pixels."""
STRIP = 2 * BLOCK
SAMPLED_PIXELS = 640 * 360
"""About how many pixels of a frame are sampled to measure its noise."""
NOISE_STD = (1.2 / 255, 2.0 / 255)
"""Smoothstep edges of the noise's standard deviation (diagonal detail), from none to grain."""
CALM_SHARE = 0.25
"""Fraction of the blocks of each tone, those of least energy, in which noise is measured: they have the least structure and the most coding loss."""
KURTOSIS = (3.25, 3.45)
"""Smoothstep edges of the mean kurtosis of diagonal detail in flat blocks, from intact noise to coding residue.

64 samples of Gaussian noise have 2.9; grain in textured photographs, and grain through H.264 at CRF 14, up to 3.2. Coarse quantisation leaves
many zeros and few large values: grain at CRF 18 has 3.4 to 4.2, strong noise in low light at CRF 25 3.6 to 4.4, clean footage much more.
Such residue is not kept."""
TONE_RANGE = (0.02, 0.98)
"""Range of brightness of blocks that count: black bars and clipped highlights show no grain."""
MIN_BLOCKS = 16
HIGH_PASS_SIGMA = 2.0
"""Sigma in pixels of the Gaussian high-pass filter."""
WINDOW = 9
"""Side in pixels of the window in which local energy is measured."""
TONES = 8
"""Brightness bins with separate grain strength, as on film."""
MIN_PIXELS = 500
"""A brightness bin of no more pixels takes the strength of the whole region."""


def graininess(frame: Tensor) -> float:
    """Confidence in [0, 1], continuous in the frame (3, H, W) in [0, 1], that it has film grain intact from coding.

    Large frames are sampled in strips.
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
    """`restored` with as much of the grain of `frame` as it lost.

    frame, restored: (3, h, w) in [0, 1], the same region; mask: (h, w), paste mask of the face. Returns (3, h, w), not clamped.
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
    """The fine noise of `frame` without its structure, (3, h, w).

    The structure of `restored` is subtracted where that lowers the local energy, as at sharp edges, and not where it raises it, as where the
    restorer sharpened a blurred frame. Local energy above what is typical of the pixel's brightness is structure that is left, and attenuated.
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
    """(h, w, 3) minus its Gaussian blur."""
    return picture - cv2.GaussianBlur(picture, (0, 0), HIGH_PASS_SIGMA)


def local_energy(picture: np.ndarray) -> np.ndarray:
    """Mean square of the luma around each pixel of (h, w, 3)."""
    return cv2.blur(np.square(picture @ np.array(BT601, np.float32)), (WINDOW, WINDOW))


def median_energy(power: np.ndarray, tone: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """(h, w) median energy of the `shown` pixels in each pixel's brightness bin, interpolated; sparse bins take the overall median."""
    step = np.where(shown, np.minimum((tone * TONES).astype(int), TONES - 1), -1)
    everywhere = float(np.median(power[shown]))
    table = [float(np.median(power[step == n])) if (step == n).sum() > MIN_PIXELS else everywhere for n in range(TONES)]
    return np.interp(tone * TONES - 0.5, np.arange(TONES), table)


def split_blocks(coefficients: np.ndarray) -> np.ndarray:
    """(h, w) split into blocks (n, BLOCK * BLOCK); incomplete ones at the right and bottom are dropped."""
    rows, columns = (length // BLOCK * BLOCK for length in coefficients.shape)
    cut = coefficients[:rows, :columns].reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
    return cut.swapaxes(1, 2).reshape(-1, BLOCK * BLOCK)


def diagonal_detail(picture: np.ndarray) -> np.ndarray:
    """Haar HH subband, (h / 2, w / 2): preserves the deviation of white noise and suppresses edges."""
    rows, columns = (length // 2 * 2 for length in picture.shape)
    a = picture[:rows, :columns]
    return (a[::2, ::2] - a[1::2, ::2] - a[::2, 1::2] + a[1::2, 1::2]) / 2


def robust_std(values: np.ndarray) -> float:
    """Robust standard deviation: median |v| / 0.6745."""
    return float(np.median(np.abs(values)) / 0.6745)
