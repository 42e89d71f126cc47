"""Pictures with grain, and how much of it there is."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor


def grainy(picture: Tensor, sigma: float, seed: int = 0, soft: float = 0.0) -> Tensor:
    """With Gaussian noise of `sigma` grey levels, the same in all channels and correlated over `soft` pixels, in 8 bits."""
    noise = np.random.default_rng(seed).normal(0, 1, picture.shape[-2:])
    if soft:
        noise = cv2.GaussianBlur(noise, (0, 0), soft)
        noise /= noise.std()
    return ((picture * 255 + sigma * torch.from_numpy(noise)).round().clamp(0, 255) / 255).float()


def fine(picture: Tensor) -> np.ndarray:
    """x - gauss(x, 2) in grey levels, (H, W, 3)."""
    x = picture.permute(1, 2, 0).numpy() * 255
    return x - cv2.GaussianBlur(x, (0, 0), 2)


def robust(values: np.ndarray) -> float:
    return float(np.median(np.abs(values)) / 0.6745)
