"""Encoders, their containers and pixel formats, and their options for quality."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from os import PathLike
from pathlib import Path

import av
from av.video.format import VideoFormat

from ..errors import VideoError
from ..info import Grading, SourceInfo
from ..pixels import depth

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""File suffix to FFmpeg muxer."""

SPEEDS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")

HDR = (16, 18)
"""H.273 transfer codes PQ and HLG."""


@dataclass(frozen=True)
class VideoCodec:
    """A choice of `codec`.

    Attributes:
        encoders: FFmpeg encoders, the first available one is used.
        containers: FFmpeg muxers that take it.
        pixel_formats: accepted ones, the first is the default.
        kept: further pixel formats, used if the source has them and none is requested.
        odd_sizes: whether it stores odd sizes with subsampled chroma.
        constant_quality: whether it has a `crf` scale.
        least_side: minimum safe width and height (below 64, x265 writes outside its memory and SVT-AV1 hangs).
    """

    name: str
    encoders: tuple[str, ...]
    containers: frozenset[str]
    pixel_formats: tuple[str, ...]
    odd_sizes: bool = False
    least_side: int = 1
    kept: tuple[str, ...] = ()
    constant_quality: bool = True

    def encoder(self) -> str:
        for name in self.encoders:
            try:
                av.codec.Codec(name, "w")
            except ValueError:
                continue
            return name
        raise VideoError(f"this PyAV has no encoder for {self.name} ({' or '.join(self.encoders)}); choose another codec")

    def options(self, encoder: str, crf: float, preset: str | None, pixel_format: str, grading: Grading | None = None) -> dict[str, str]:
        """Encoder options for a constant quality `crf` (the codec's own scale) and one of SPEEDS."""
        speed = SPEEDS.index(preset or "medium")
        options = {
            # With mbtree, x264's AVX-512 code gives other bits on every run at most widths (x264 core 165, PyAV 18); without, files grow 14 %.
            "libx264": {"crf": f"{crf:g}", "preset": SPEEDS[speed], "x264-params": "mbtree=0"},
            "libx265": {"crf": f"{crf:g}", "preset": SPEEDS[speed], "x265-params": "log-level=error"},
            "libsvtav1": {"crf": f"{crf:g}", "preset": str(13 - speed)},
            "libaom-av1": {"crf": f"{crf:g}", "cpu-used": str(min(8, 9 - speed)), "row-mt": "1"},
            "libvpx-vp9": {"crf": f"{crf:g}", "b": "0", "cpu-used": str(min(5, 8 - speed)), "row-mt": "1", "deadline": "good"},
            "prores_ks": {"profile": "4" if "444" in pixel_format else "3", "vendor": "apl0"},
            "ffv1": {"level": "3", "slicecrc": "1"},
        }[encoder]
        if grading is not None and encoder in HDR_PARAMETERS:
            name, separator, display, light, dot = HDR_PARAMETERS[encoder]
            entries = [f"{display}={mastering_display(grading, dot)}"] if grading.primaries and grading.luminance else []
            entries += [f"{light}={grading.light[0]},{grading.light[1]}"] if grading.light else []
            options[name] = separator.join([*([options[name]] if name in options else []), *entries])
        return options


HDR_PARAMETERS = {
    "libx264": ("x264-params", ":", "mastering-display", "cll", False),
    "libx265": ("x265-params", ":", "master-display", "max-cll", False),
    "libsvtav1": ("svtav1-params", ":", "mastering-display", "content-light", True),
}
"""By encoder: option of its own parameters, their separator, the two names for a Grading, and whether its numbers are decimal."""


def mastering_display(grading: Grading, decimal: bool) -> str:
    """G(x,y)B(x,y)R(x,y)WP(x,y)L(max,min): decimal, or in units of 0.00002 and 0.0001 cd/m2."""

    def pair(values: tuple[Fraction, Fraction], unit: int) -> str:
        return "({},{})".format(*(f"{float(value):.5f}" if decimal else round(value * unit) for value in values))

    assert grading.primaries is not None and grading.luminance is not None
    red, green, blue, white = (pair(place, 50_000) for place in grading.primaries)
    return f"G{green}B{blue}R{red}WP{white}L{pair((grading.luminance[1], grading.luminance[0]), 10_000)}"


EIGHT = ("yuv420p", "yuv422p", "yuv444p")
TEN = ("yuv420p10le", "yuv422p10le", "yuv444p10le")
DEEP = ("gbrp10le", *(f"{kind}{bits}le" for kind in ("yuv420p", "yuv422p", "yuv444p", "gbrp") for bits in (12, 16)))
ISO = frozenset({"mp4", "mov", "matroska"})

CODECS = {
    codec.name: codec
    for codec in (
        VideoCodec("h264", ("libx264",), ISO, EIGHT + TEN),
        VideoCodec("h265", ("libx265",), ISO, EIGHT + TEN, least_side=64),
        VideoCodec(
            "av1", ("libsvtav1", "libaom-av1"), frozenset({"mp4", "matroska", "webm"}), ("yuv420p", "yuv420p10le"), odd_sizes=True, least_side=64
        ),
        VideoCodec("vp9", ("libvpx-vp9",), frozenset({"mp4", "matroska", "webm"}), EIGHT, odd_sizes=True),
        VideoCodec("prores", ("prores_ks",), frozenset({"mov", "matroska"}), ("yuv422p10le", "yuv444p10le"), constant_quality=False),
        VideoCodec(
            "ffv1", ("ffv1",), frozenset({"matroska"}), EIGHT + TEN, odd_sizes=True, kept=(*EIGHT, *TEN, *DEEP, "bgr0"), constant_quality=False
        ),
    )
}


def default_codec(path: str | PathLike[str]) -> str:
    """The default codec of a file: h264, or vp9 in WebM."""
    return "vp9" if CONTAINERS.get(Path(path).suffix.lower()) == "webm" else "h264"


def default_suffix(codec: str) -> str:
    """The default file suffix of a codec."""
    return {"prores": ".mov", "ffv1": ".mkv"}.get(codec, ".mp4")


def choose_container(path: Path | None, container: str | None) -> str:
    """The muxer by suffix or name. Raises VideoError for an unsupported container."""
    suffix = f".{container.lstrip('.').lower()}" if container else (path.suffix.lower() if path else ".mp4")
    if suffix == ".matroska":
        return "matroska"
    if suffix not in CONTAINERS:
        raise VideoError(f"{path or 'the video in memory'} asks for container {suffix!r}, which is not one of {', '.join(CONTAINERS)}")
    return CONTAINERS[suffix]


def choose_codec(
    name: str, container: str, pixel_format: str | None, crf: float, preset: str | None, like: SourceInfo | None = None
) -> tuple[VideoCodec, str]:
    """The codec and its pixel format, which a lossless codec takes from the clip it is `like`.

    Raises:
        VideoError: for an unknown name, and for what cannot be stored.
    """
    if name not in CODECS:
        raise VideoError(f"codec must be one of {', '.join(CODECS)}, got {name!r}")
    codec = CODECS[name]
    if container not in codec.containers:
        others = [other.name for other in CODECS.values() if container in other.containers]
        raise VideoError(f"{name} does not go into {container}; use {' or '.join(sorted(codec.containers))}, or codec {' or '.join(others)}")
    own = like.pix_fmt if like is not None and like.pix_fmt in codec.kept else None
    chosen = pixel_format or own or codec.pixel_formats[0]
    if chosen not in codec.pixel_formats and chosen != own:
        raise VideoError(f"{name} takes pixel formats {', '.join(codec.pixel_formats)}, got {chosen!r}")
    if not 0 <= crf <= 63 or (name in ("h264", "h265") and crf > 51):
        raise VideoError(f"crf must be 0 to 51 for h264 and h265, 0 to 63 for av1 and vp9, got {crf:g}")
    if preset is not None and preset not in SPEEDS:
        raise VideoError(f"preset must be one of {', '.join(SPEEDS)}, got {preset!r}")
    return codec, chosen


def storable_format(codec: VideoCodec, container: str, pixel_format: str, height: int, width: int) -> str:
    """`pixel_format`, or its 4:4:4 twin where subsampled chroma cannot show an odd size.

    H.264 counts its crop in whole chroma samples, so an odd size is announced by the MP4 or MOV container instead; players
    crop to it. Where that is not possible (H.265, Matroska), or FFmpeg blackens the last odd column (ProRes), chroma is
    kept whole.

    Raises:
        VideoError: for pictures smaller than the encoder takes.
    """
    if min(height, width) < codec.least_side:
        raise VideoError(f"{codec.name} needs at least {codec.least_side}x{codec.least_side} pixels, got {width}x{height}; use h264")
    even = height % 2 == 0 and width % 2 == 0
    announced = codec.name == "h264" and container in ("mp4", "mov")
    if even or codec.odd_sizes or announced or "444" in pixel_format:
        return pixel_format
    return pixel_format.replace("420", "444").replace("422", "444")


def lost_detail(source: SourceInfo, codec: VideoCodec, pixel_format: str) -> str | None:
    """A warning if `pixel_format` has 8 bits and the source more, or fewer chroma samples than the source; else empty."""
    bits = depth(source.pix_fmt)

    def deep(name: str) -> bool:
        return bits <= 8 or depth(name) > 8

    def fine(name: str) -> bool:
        return all(here <= there for here, there in zip(chroma_samples(source.pix_fmt), chroma_samples(name), strict=True))

    has = [f"{bits} bits per channel"] * (not deep(pixel_format)) + ["finer chroma"] * (not fine(pixel_format))
    if not has:
        return None
    deeper = [] if deep(pixel_format) else [name for name in codec.pixel_formats if deep(name)]
    better = [name for name in codec.pixel_formats if deep(name) and fine(name)] or deeper
    advice = f"choose pixel format {better[0]} to keep more" if better else "choose a codec that has more, such as h265 or prores"
    bright = ", and high dynamic range shows bands with so few bits" if source.colour.transfer in HDR and not deep(pixel_format) else ""
    return f"the source has {' and '.join(has)} ({source.pix_fmt}), more than {pixel_format} keeps{bright}; {advice}"


def chroma_samples(pix_fmt: str) -> tuple[int, int]:
    """Chroma samples across and down per 64 x 64 pixels; none for grey and RGB."""
    kind = VideoFormat(pix_fmt)
    return (0, 0) if kind.is_rgb or len(kind.components) < 3 else (kind.chroma_width(64), kind.chroma_height(64))
