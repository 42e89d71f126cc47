"""Encodes and decodes clips by real codecs, with our own colour conversion: swscale's default rounding darkens by up to two levels each time."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import av
import cv2
import numpy as np

from ...colour import BT601, BT709
from ...physics.nonlinear.h264 import WIDTH_MULTIPLE

CODECS: Mapping[str, tuple[str, str, tuple[float, float]]] = {
    "h264": ("libx264", "crf", (16, 40)),
    "h265": ("libx265", "crf", (18, 42)),
    "mpeg2": ("mpeg2video", "q", (2, 24)),
    "mpeg4": ("mpeg4", "q", (2, 20)),
    "vp9": ("libvpx-vp9", "crf", (20, 56)),
    "mjpeg": ("mjpeg", "q", (2, 24)),
}
"""By name: FFmpeg's encoder, its option for quality, and the range of that from hardly visible to destroyed."""

LUMA_WEIGHTS = {"bt601": BT601, "bt709": BT709}
"""Weights of red and blue in luma."""
MIN_SIDE = 64
"""Smaller pictures are padded to this: encoders refuse them."""


def to_yuv420(frames: np.ndarray, matrix: str) -> np.ndarray:
    """(T, H, W, 3) float32 RGB in [0, 255], even sides, to (T, 3 H / 2, W) uint8: limited range, chroma averaged over 2 x 2, rounded."""
    count, height, width = frames.shape[:3]
    planes = frames @ _rgb_to_yuv(matrix).T + np.array([16, 128, 128], np.float32)
    chroma = planes[..., 1:].reshape(count, height // 2, 2, width // 2, 2, 2).mean((2, 4))
    parts = [planes[..., 0], chroma.transpose(0, 3, 1, 2).reshape(count, height // 2, width)]
    return np.clip(np.concatenate(parts, 1) + 0.5, 0, 255.499).astype(np.uint8)


def from_yuv420(planes: np.ndarray, matrix: str) -> np.ndarray:
    """The inverse, chroma enlarged bilinearly about the middle of its 2 x 2 pixels, to (T, H, W, 3) float32 in [0, 255], rounded."""
    count, rows, width = planes.shape
    height = rows * 2 // 3
    chroma = planes[:, height:].reshape(count, 2, height // 2, width // 2)
    yuv = np.empty((count, height, width, 3), np.float32)
    yuv[..., 0] = planes[:, :height]
    for index in range(count):
        for channel in (0, 1):
            yuv[index, ..., 1 + channel] = cv2.resize(chroma[index, channel].astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    rgb: np.ndarray = (yuv - np.array([16, 128, 128], np.float32)) @ np.linalg.inv(_rgb_to_yuv(matrix)).T.astype(np.float32)
    return np.clip(np.round(rgb), 0, 255)


def transcoded(frames: np.ndarray, codec: str | None, quality: float, matrix: str = "bt601", options: Mapping[str, str] | None = None) -> np.ndarray:
    """A clip encoded and decoded: (T, H, W, 3) float32 RGB in [0, 255] to the same, without a shift.

    Args:
        codec: of CODECS; None is 8 bits of 4:2:0 and nothing else.
        quality: in the codec's own numbers.
        options: further ones of the encoder.
    """
    height, width = frames.shape[1:3]
    bottom, right = (max(MIN_SIDE, side + side % 2) - side for side in (height, width))
    right = -width % WIDTH_MULTIPLE if codec == "h264" else right
    padded = np.pad(frames, ((0, 0), (0, bottom), (0, right), (0, 0)), "edge") if bottom or right else frames
    planes = to_yuv420(padded, matrix)
    if codec is not None:
        planes = coded(planes, codec, quality, options or {})
    return from_yuv420(planes, matrix)[:, :height, :width]


def coded(planes: np.ndarray, codec: str, quality: float, options: Mapping[str, str]) -> np.ndarray:
    """(T, 3 H / 2, W) uint8 through an encoder and its decoder. Raises RuntimeError if frames are lost."""
    name, scale, _ = CODECS[codec]
    encoder = av.CodecContext.create(name, "w")
    encoder.width, encoder.height = planes.shape[2], planes.shape[1] * 2 // 3
    encoder.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    encoder.time_base, encoder.framerate, encoder.thread_count = Fraction(1, 25), Fraction(25), 1
    chosen = dict(options)
    if scale == "crf":
        chosen["crf"] = f"{quality:.1f}"
    else:
        chosen["qmin"] = chosen["qmax"] = str(round(quality))
    if codec == "h265":
        chosen["x265-params"] = "log-level=none:pools=none:frame-threads=1:wpp=0"
    if codec == "vp9":
        chosen |= {"b": "0", "deadline": "realtime", "cpu-used": "8"}
        encoder.bit_rate = 0
    encoder.options = chosen
    packets = []
    for index, plane in enumerate(planes):
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(plane), format=encoder.pix_fmt)  # the numbers as they are, also for mjpeg
        picture.pts = index
        packets += encoder.encode(picture)
    packets += encoder.encode(None)
    decoder = av.CodecContext.create({"libx264": "h264", "libx265": "hevc", "libvpx-vp9": "vp9"}.get(name, name), "r")
    decoder.thread_count = 1
    if encoder.extradata and codec == "mpeg4":
        decoder.extradata = encoder.extradata
    frames = [picture.to_ndarray() for packet in [*packets, None] for picture in decoder.decode(packet)]
    if len(frames) != len(planes):
        raise RuntimeError(f"{codec} gave {len(frames)} frames for {len(planes)}")
    return np.stack(frames)


def _rgb_to_yuv(matrix: str) -> np.ndarray:
    """(3, 3) float32, RGB in [0, 255] to limited-range luma less 16 and chroma less 128."""
    red, _, blue = LUMA_WEIGHTS[matrix]
    luma = np.array([red, 1 - red - blue, blue])
    rows = [luma * 219 / 255, (np.array([0, 0, 1]) - luma) / (2 * (1 - blue)) * 224 / 255, (np.array([1, 0, 0]) - luma) / (2 * (1 - red)) * 224 / 255]
    return np.stack(rows).astype(np.float32)
