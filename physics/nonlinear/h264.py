"""H.264 recompression of a clip, in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import av
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import OnFrames, ignored
from ..identity import Transparent
from .dct import quantisation_noise

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
MIN_SIDE = 16
WIDTH_MULTIPLE = 256
"""Pixels. On AVX-512, x264's macroblock tree reads rows 16 blocks at a time and beyond shorter rows: one clip gave 38 streams in 400 runs."""


@dataclass(frozen=True)
class H264(Transparent):
    """y = D(E(x)): libx264 at constant rate factor `crf`, 8 bits 4:2:0, of clips (..., T, 3, H, W) RGB in [0, 1]; same T and size out.

    Frames are rounded to 8 bits and clamped to [0, 1]; odd and tiny sizes are padded internally by replication. (3, H, W) is a clip of one
    frame. It runs on the CPU whatever the device of x, and carries no gradient.

    Forward only: adjoint and pinv see the identity (see `Transparent`), which makes it usable in a composition with a sampler.

    Args:
        crf: 0 (best) to 51 (worst).
        preset: the encoder's effort, "ultrafast" to "veryslow".
        bits: target bits per pixel, averaged over a clip, from 0.005 to 4, reached by choosing the crf; 1 is 6.6 Mbit/s for 512 x 512 at 25 frames
            per second. The distortion is then taken as that of `crf_of_bits`. None: `crf` is used as given.

    Raises:
        ValueError: for a crf, preset or bits outside these, or (on use) frames without three channels.
        RuntimeError: if PyAV was built without libx264, or a frame is lost in coding.
    """

    crf: int = 32
    preset: str = "medium"
    bits: float | None = None

    linear = False
    mixes_frames = True

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51:
            raise ValueError(f"H.264 takes a crf from 0 (best) to 51 (worst), got {self.crf}")
        if self.preset not in PRESETS:
            raise ValueError(f"H.264 presets are {', '.join(PRESETS)}, got {self.preset!r}")
        if self.bits is not None and not 0.005 <= self.bits <= 4:
            raise ValueError(f"an H.264 stream takes from 0.005 to 4 bits a pixel, got {self.bits}")
        step = 0.625 * 2 ** ((self.crf if self.bits is None else crf_of_bits(self.bits)) / 6)
        object.__setattr__(self, "distortion", quantisation_noise(torch.full((8, 8), step)))

    def forward(self, x: Tensor) -> Tensor:
        return self._through(x, ignored)

    def observe_in_steps(self, x: Tensor, generator: torch.Generator | None, on_frames: OnFrames) -> Tensor:
        y = self._through(x, on_frames)
        on_frames(len(x))
        return y

    @torch.no_grad()
    def _through(self, x: Tensor, on_frames: OnFrames) -> Tensor:
        if x.ndim < 3 or x.shape[-3] != 3:
            raise ValueError(f"H.264 needs RGB frames (T, 3, H, W), got {tuple(x.shape)}")
        height, width = x.shape[-2:]
        clips = x.detach().reshape(-1, x.shape[-4] if x.ndim > 3 else 1, 3, height, width)
        y = torch.empty(clips.shape)
        for clip, seen in zip(clips, y, strict=True):
            for picture, frame in zip(self._recompress(_to_bytes(clip, on_frames), on_frames), seen, strict=True):
                on_frames(0)
                frame.copy_(torch.from_numpy(picture)[:height, :width].movedim(-1, -3).float() / 255)
        return y.reshape(x.shape).to(x)

    def describe(self) -> str:
        return f"H.264 crf {self.crf}" if self.bits is None else f"H.264 at {self.bits:g} bits a pixel"

    def _recompress(self, frames: np.ndarray, on_frames: OnFrames) -> list[np.ndarray]:
        packets = encode(frames, self.crf, self.preset, on_frames) if self.bits is None else streamed(frames, self.bits, self.preset, on_frames)
        return decode(packets, len(frames), on_frames)


CRF_PER_OCTAVE, TRIALS, OCTAVE_TOLERANCE = 5.6, 9, 0.1
"""Rise in crf that halves the size of a stream; most encodings tried; error in octaves at which trying ends."""


def crf_of_bits(bits: float) -> float:
    """Approximate crf of `bits` per pixel: on three face clips of 128 and 480 pixels crf 23 took 0.17 to 0.43, and 6 more about half of that."""
    return min(max(23 + CRF_PER_OCTAVE * math.log2(0.27 / bits), 0.0), 51.0)


def streamed(frames: np.ndarray, bits: float, preset: str, on_frames: OnFrames = ignored) -> list[av.Packet]:
    """Encodes at the crf that gives `bits` per pixel, as two-pass coding would; the encoder's own rate control needs seconds to settle."""
    wanted, crf = bits * frames[..., 0].size, crf_of_bits(bits)
    for _ in range(TRIALS):
        packets = encode(frames, crf, preset, on_frames)
        octaves = math.log2(8 * sum(packet.size for packet in packets) / wanted)
        crf, before = min(max(crf + CRF_PER_OCTAVE * octaves, 0.0), 51.0), crf
        if abs(octaves) < OCTAVE_TOLERANCE or crf == before:
            break
    return packets


def encode(frames: np.ndarray, crf: float, preset: str, on_frames: OnFrames = ignored) -> list[av.Packet]:
    """libx264's packets of (T, H, W, 3) uint8 RGB with even sides, padded by its last column to a multiple of `WIDTH_MULTIPLE`."""
    more = -frames.shape[2] % WIDTH_MULTIPLE
    try:
        encoder = av.CodecContext.create("libx264", "w")
    except (av.codec.codec.UnknownCodecError, ValueError) as error:
        raise RuntimeError("H.264 recompression needs PyAV with libx264, which this build lacks; install the av wheel from PyPI") from error
    encoder.width, encoder.height, encoder.pix_fmt = frames.shape[2] + more, frames.shape[1], "yuv420p"
    encoder.time_base = encoder.framerate = 25
    encoder.options = {"crf": f"{crf:g}", "preset": preset, "threads": "1"}
    packets: list[av.Packet] = []
    for index, frame in enumerate(frames):
        on_frames(0)
        picture = av.VideoFrame.from_ndarray(np.pad(frame, ((0, 0), (0, more), (0, 0)), "edge"), format="rgb24")
        picture.pts = index
        packets += encoder.encode(picture)
    for packet in encoder.encode_lazy(None):  # frames held back for lookahead, possibly all of them
        on_frames(0)
        packets.append(packet)
    return packets


def decode(packets: list[av.Packet], count: int, on_frames: OnFrames) -> list[np.ndarray]:
    """The `count` frames, (H, W, 3) uint8 RGB, of packets from `encode`. Raises RuntimeError if there are more or fewer."""
    decoder = av.CodecContext.create("h264", "r")
    frames = []
    for packet in [*packets, None]:
        on_frames(0)
        frames += [picture.to_ndarray(format="rgb24") for picture in decoder.decode(packet)]
    if len(frames) != count:
        raise RuntimeError(f"H.264 recompression gave {len(frames)} frames for {count}; try another preset")
    return frames


def _to_bytes(clip: Tensor, on_frames: OnFrames) -> np.ndarray:
    """(T, 3, H, W) in [0, 1] to (T, H', W', 3) uint8 with even sides of at least MIN_SIDE."""
    height, width = (max(MIN_SIDE, side + side % 2) for side in clip.shape[-2:])
    coded = np.empty((len(clip), height, width, 3), np.uint8)
    for frame, picture in zip(clip, coded, strict=True):
        on_frames(0)
        padded = F.pad(frame.float().cpu()[None], (0, width - frame.shape[-1], 0, height - frame.shape[-2]), mode="replicate")[0]
        picture[:] = (padded.clamp(0, 1) * 255).round().byte().movedim(-3, -1).numpy()
    return coded
