"""Small clips made on the spot."""

from __future__ import annotations

import numpy as np
import torch

from fvr.video import FrameTimes, open_sink


def moving(count: int, height: int = 48, width: int = 64, seed: int = 0) -> torch.Tensor:
    """Smooth coloured waves that travel, different in every frame and in every corner."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    t = torch.arange(count)[:, None, None] + 7.0 * seed
    red = 0.5 + 0.3 * torch.sin(3 * x + 2 * y + 0.5 * t)
    green = 0.2 + 0.5 * x * y + 0.2 * torch.cos(0.7 * t + x)
    blue = 0.15 + 0.6 * y + 0.1 * torch.sin(t + 0 * x)
    return torch.stack(torch.broadcast_tensors(red, green, blue), 1).clamp(0, 1)


def save(path, frames: torch.Tensor, times: FrameTimes | None = None, like=None, **choices):
    """One clip written in one go, quickly."""
    times = times or FrameTimes.constant(len(frames), 25)
    choices = {"preset": "ultrafast"} | choices
    with open_sink(path, like, **choices) as sink:
        sink.write(frames, times.starts, times.ends)
    return path


def beeps(seconds: float, rate: int = 48000, start: float = 0.0) -> torch.Tensor:
    """(2, S): silence with a 1 kHz beep of 0.1 s on every whole second after `start`."""
    t = start + np.arange(int(seconds * rate)) / rate
    sound = np.where((t % 1 < 0.1) & (t >= 0.5), 0.5 * np.sin(2 * np.pi * 1000 * t), 0)
    return torch.from_numpy(np.stack([sound, sound]).astype(np.float32))


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))
