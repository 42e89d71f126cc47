"""Small clips made on the spot."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
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


def enormous(path: Path) -> Path:
    """A BMP file whose header claims 16 million columns, for which OpenCV has an error of its own kind."""
    cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8))
    data = bytearray(path.read_bytes())
    data[18:22] = (1 << 24).to_bytes(4, "little")
    path.write_bytes(data)
    return path


def beeps(seconds: float, rate: int = 48000, start: float = 0.0) -> torch.Tensor:
    """(2, S): silence with a 1 kHz beep of 0.1 s on every whole second after `start`."""
    t = start + np.arange(int(seconds * rate)) / rate
    sound = np.where((t % 1 < 0.1) & (t >= 0.5), 0.5 * np.sin(2 * np.pi * 1000 * t), 0)
    return torch.from_numpy(np.stack([sound, sound]).astype(np.float32))


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


def beep_times(path, pitch: float = 1000.0) -> list[float]:
    """Seconds, on the file's clock, at which the 1 kHz tone switches on; read by FFmpeg alone, without our reader."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        rate = stream.codec_context.sample_rate
        heard = np.zeros(int(20 * rate))
        follows = -rate
        for frame in container.decode(stream):
            samples = frame.to_ndarray().astype(float)
            mono = samples.mean(0) if frame.format.is_planar else samples.reshape(-1, stream.codec_context.layout.nb_channels).mean(1)
            stated = round(float(frame.pts * frame.time_base) * rate)
            start = stated if abs(stated - follows) > rate // 100 else follows
            follows = start + len(mono)
            skip = max(0, -start)
            heard[start + skip : start + len(mono)] = mono[skip:]
    t = np.arange(len(heard)) / rate
    window = np.ones(rate // 200) / (rate // 200)
    power = np.hypot(*(np.convolve(heard * wave(2 * np.pi * pitch * t), window, "same") for wave in (np.sin, np.cos)))
    loud = power > power.max() / 2
    return list(np.flatnonzero(loud[1:] & ~loud[:-1]) / rate)


def copy(source, path, **choices):
    with open_sink(path, source.info, **{"preset": "ultrafast", "crf": 40} | choices) as sink:
        for chunk in source.chunks(16):
            sink.write(chunk.frames, chunk.starts, chunk.ends)
    return path


def packets(path):
    with av.open(str(path)) as container:
        return [(packet.pts, bytes(packet)) for packet in container.demux(audio=0) if packet.size]
