"""Conversion between FFmpeg frames and tensors."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from torch import Tensor

from .colour import YCbCr, settled_matrix
from .errors import VideoError
from .info import UNSPECIFIED, ColourTags, Grading

PLANAR = re.compile(r"yuv(?P<jpeg>j?)a?(?P<layout>420|422|444|440|411|410)p(?P<bits>\d*)(?:le)?")
GREY = re.compile(r"gray(?P<bits>\d*)(?:le)?")
SUBSAMPLING = {"420": (2, 2), "422": (2, 1), "444": (1, 1), "440": (1, 2), "411": (4, 1), "410": (4, 4)}
PLANAR_EQUIVALENT = {"nv12": "yuv420p", "nv21": "yuv420p", "p010le": "yuv420p10le", "yuyv422": "yuv422p", "uyvy422": "yuv422p", "nv16": "yuv422p"}


@lru_cache(maxsize=64)
def planar_layout(pix_fmt: str) -> YCbCr | None:
    """Bits and subsampling of a planar Y'CbCr (or grey) format, with its range if the name states it; None for others."""
    if match := PLANAR.fullmatch(pix_fmt):
        sub_x, sub_y = SUBSAMPLING[match["layout"]]
        return YCbCr(1, bool(match["jpeg"]), int(match["bits"] or 8), sub_x, sub_y)
    if match := GREY.fullmatch(pix_fmt):
        return YCbCr(1, False, int(match["bits"] or 8), 1, 1)
    return None


@lru_cache(maxsize=64)
def is_grey(pix_fmt: str) -> bool:
    """Whether a format is grey, which FFmpeg takes for full range unless tagged."""
    parts = VideoFormat(pix_fmt)
    return not parts.has_palette and sum(not part.is_alpha for part in parts.components) == 1


@lru_cache(maxsize=64)
def depth(pix_fmt: str) -> int:
    """Maximum bits per channel."""
    return max((part.bits for part in VideoFormat(pix_fmt).components), default=8)


def frame_colour(frame: VideoFrame, stream: Any = None) -> ColourTags:
    """The tags of one decoded frame; primaries and transfer from its stream where PyAV (before 17) has them only there."""
    stated = {1: False, 2: True}.get(int(frame.color_range))
    if frame.format.name.startswith("yuvj"):
        stated = True
    primaries, transfer = (getattr(frame, name, getattr(stream, name, UNSPECIFIED)) for name in ("color_primaries", "color_trc"))
    return ColourTags(int(frame.colorspace), stated, int(primaries), int(transfer))


DROPPED = {
    "A53_CC": "its closed captions",
    "DOVI_METADATA": "its Dolby Vision layer",
    "DYNAMIC_HDR_PLUS": "its HDR10+ curves",
    "STEREO3D": "that it is stereoscopic",
    "SPHERICAL": "that it is spherical",
}
"""Side data of frames, by FFmpeg's name, that no copy keeps."""


def frame_grading(frame: VideoFrame) -> Grading | None:
    """FFmpeg's AVMasteringDisplayMetadata (ten rationals and two flags) and AVContentLightMetadata of one decoded frame."""
    data: Any = frame.side_data
    mastering, level = data.get("MASTERING_DISPLAY_METADATA"), data.get("CONTENT_LIGHT_LEVEL")
    primaries = luminance = light = None
    if mastering is not None:
        *numbers, has_primaries, has_luminance = struct.unpack("=22i", bytes(mastering)[:88])
        values = [Fraction(top, bottom) if bottom else Fraction(0) for top, bottom in zip(numbers[::2], numbers[1::2], strict=True)]
        primaries = tuple(zip(values[:8:2], values[1:8:2], strict=True)) if has_primaries else None
        luminance = (values[8], values[9]) if has_luminance else None
    if level is not None:
        light = struct.unpack("=2I", bytes(level)[:8])
    return Grading(primaries, luminance, light) if primaries or luminance or light else None


def to_tensor(frame: VideoFrame, quarter_turns: int = 0) -> Tensor:
    """A decoded frame to (3, H, W) float32 RGB in [0, 1], turned counter-clockwise by `quarter_turns`."""
    tags = frame_colour(frame)
    full_range = is_grey(frame.format.name) if tags.full_range is None else tags.full_range
    layout = planar_layout(frame.format.name)
    if layout is None and not frame.format.is_rgb and frame.format.name not in ("pal8", "monob", "monow"):
        stated = 2 if full_range or is_grey(frame.format.name) else 1  # neither matrix nor range change; swscale takes all grey for full range
        frame = frame.reformat(format=PLANAR_EQUIVALENT.get(frame.format.name, "yuv444p16le"), src_color_range=stated, dst_color_range=stated)
        layout = planar_layout(frame.format.name)
    if layout is None:
        rgb = rgb_planes(frame)
    else:
        matrix = settled_matrix(tags, frame.height, frame.width)
        space = replace(layout, matrix=matrix, full_range=full_range)
        luma = plane_tensor(frame, 0, layout.bits)
        if GREY.fullmatch(frame.format.name):
            black, span, _, _ = space.levels
            rgb = luma.to(torch.float32).sub_(black).div_(span).clamp_(0, 1).expand(3, -1, -1)
        else:
            rgb = space.to_rgb(luma, plane_tensor(frame, 1, layout.bits), plane_tensor(frame, 2, layout.bits))
    return torch.rot90(rgb, quarter_turns, (-2, -1))


def letterboxed(picture: Tensor, size: tuple[int, int], aspect: float = 1.0) -> Tensor:
    """(3, h, w) scaled to fit (H, W) = size with its aspect kept, centred on black. `aspect`: width of its pixels relative to the new ones."""
    (height, width), (rows, columns) = size, picture.shape[-2:]
    scale = min(width / (columns * aspect), height / rows)
    inner = round(rows * scale), round(columns * aspect * scale)
    inner = (inner[0] if inner[0] < 0.98 * height else height, inner[1] if inner[1] < 0.98 * width else width)
    scaled = F.interpolate(picture[None], (max(1, inner[0]), max(1, inner[1])), mode="bilinear", antialias=True)[0]
    left, top = (width - scaled.shape[2]) // 2, (height - scaled.shape[1]) // 2
    return F.pad(scaled, (left, width - scaled.shape[2] - left, top, height - scaled.shape[1] - top))


def rgb_planes(frame: VideoFrame) -> Tensor:
    """(3, H, W) in [0, 1] of a frame of any RGB or palette format, converted by FFmpeg to planar RGB if needed."""
    bits = depth(frame.format.name)
    planar = frame
    if not re.fullmatch(r"gbrp(\d+le)?", frame.format.name):
        if min(part.bits for part in frame.format.components) < 8:  # swscale spreads 5 bits over 8 on its way to packed formats alone
            frame = frame.reformat(format="rgb24")
        bits = 16 if bits > 8 else 8
        planar = frame.reformat(format="gbrp16le" if bits > 8 else "gbrp")
    return torch.stack([plane_tensor(planar, plane, bits).to(torch.float32) for plane in (2, 0, 1)]).div_((1 << bits) - 1)


def plane_tensor(frame: VideoFrame, plane: int, bits: int) -> Tensor:
    """One plane as (h, w): uint8, or int32 above 8 bits."""
    if bits == 8:
        return torch.from_numpy(plane_view(frame, plane, np.dtype(np.uint8)).copy())
    return torch.from_numpy(plane_view(frame, plane, np.dtype("<u2")).astype(np.int32))


def plane_view(frame: Any, index: int, kind: np.dtype) -> NDArray:
    """A plane's memory as (h, w) without row padding, writable if the frame is."""
    plane = frame.planes[index]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height]
    return rows[:, : plane.width * kind.itemsize].view(kind)


RGB = 0
"""H.273 matrix code of pictures that are stored as red, green and blue."""


@lru_cache(maxsize=64)
def is_rgb(pix_fmt: str) -> bool:
    return bool(VideoFormat(pix_fmt).is_rgb)


def rgb_frame(rgb: Tensor, pix_fmt: str, colour: ColourTags) -> VideoFrame:
    """(3, H, W) in [0, 1] to a bgr0 or planar RGB (gbrp10le and so on) frame with the primaries and transfer of `colour`."""
    bits = depth(pix_fmt)
    numbers = rgb.to(torch.float32).clamp(0, 1).mul((1 << bits) - 1).round_().to(torch.int32).numpy()
    frame = VideoFrame(rgb.shape[-1], rgb.shape[-2], pix_fmt)
    if pix_fmt == "bgr0":
        packed = np.zeros((*rgb.shape[-2:], 4), np.uint8)
        packed[..., :3] = numbers[::-1].transpose(1, 2, 0)
        plane_view(frame, 0, np.dtype("<u4"))[:] = packed.view("<u4")[..., 0]
    else:
        for plane, channel in enumerate((1, 2, 0)):
            plane_view(frame, plane, np.dtype("<u2"))[:] = numbers[channel]
    return tagged(frame, ColourTags(RGB, True, colour.primaries, colour.transfer))


def tagged(frame: Any, colour: ColourTags) -> VideoFrame:
    """Sets a frame's colour tags, the only ones that ProRes writes. PyAV sets primaries and transfer from 17 on."""
    frame.colorspace, frame.color_range = colour.matrix, 2 if colour.full_range else 1
    for name, value in (("color_primaries", colour.primaries), ("color_trc", colour.transfer)):
        if hasattr(frame, name):
            setattr(frame, name, value)
    return frame


def same_planes(frame: Any, colour: ColourTags) -> VideoFrame:
    """A new frame with the planes of another, without side data or picture type."""
    copy: Any = VideoFrame(frame.width, frame.height, frame.format.name)
    for source, target in zip(frame.planes, copy.planes, strict=True):
        old, new = (np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height] for plane in (source, target))
        width = min(old.shape[1], new.shape[1])
        new[:, :width] = old[:, :width]
    return tagged(copy, colour)


def to_frame(rgb: Tensor, pix_fmt: str, colour: ColourTags, matrix: int) -> VideoFrame:
    """(3, H, W) in [0, 1] to a frame of a planar Y'CbCr or an RGB format (else VideoError), tagged with `colour` and computed with `matrix`."""
    if is_rgb(pix_fmt):
        return rgb_frame(rgb, pix_fmt, colour)
    layout = planar_layout(pix_fmt)
    if layout is None:
        raise VideoError(f"cannot write pixel format {pix_fmt!r}; choose a planar one such as yuv420p or yuv444p10le")
    space = replace(layout, matrix=matrix, full_range=bool(colour.full_range) or layout.full_range)
    kind = np.dtype(np.uint8 if layout.bits == 8 else "<u2")
    frame = VideoFrame(rgb.shape[-1], rgb.shape[-2], pix_fmt)
    for number, plane in enumerate(space.from_rgb(rgb)):
        plane_view(frame, number, kind)[:] = plane.numpy()
    return tagged(frame, replace(colour, full_range=space.full_range))
