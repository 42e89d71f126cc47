"""Properties of a clip from its header and first frame."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, islice
from os import PathLike
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from ..colour import OTHER_MATRICES
from ..errors import VideoError
from ..files import STILL, FileView, Place, check_pixels, max_pixels, open_input, picture_stream, place_name, place_path, presentation_time
from ..info import AudioInfo, SourceInfo
from ..pixels import DROPPED, frame_colour, frame_grading
from .health import Health, stated_duration
from .timestamp_discontinuity import MAY_JUMP
from .whole import missing_bytes

LATE = 10
"""Longest intended start time of a clip in seconds; a later start means that it was cut out of a recording."""


def examine(place: Place) -> tuple[SourceInfo, list[str]]:
    """A clip's properties, and warnings of losses, from its header and first decodable frame. Raises VideoError if there is none."""
    with open_input(place) as container:
        stream = picture_stream(container)
        if stream is None:
            kinds = ["a cover picture" if other.disposition & STILL else other.type for other in container.streams]
            raise VideoError(f"{place_name(place)} holds no video stream, only {', '.join(kinds) or 'nothing'}")
        if any(other.disposition & Disposition.dependent for other in container.streams.video):
            raise VideoError(f"{place_name(place)} is a photo in tiles (HEIC or AVIF), which are not put together here; save it as JPEG or PNG first")
        if stream.codec_context is None:
            raise VideoError(f"the picture of {place_name(place)} is in a codec that is not known here; convert it first")
        health = Health()
        check_pixels(place_name(place), stream.width, stream.height)
        limit_pixels(stream)
        frames = health.frames(container, stream)
        frame = next(frames, None)
        if frame is None:
            raise VideoError(f"{place_name(place)} holds no frame that decodes ({health.fault or 'it is empty'}); it is damaged")
        if (kind := OTHER_MATRICES.get(int(frame.colorspace))) and not frame.format.is_rgb:
            raise VideoError(f"the colours of {place_name(place)} are stored as {kind}, which is not read here; convert it to Y'CbCr or RGB first")
        rotation, mirrored = orientation(frame) or (0, False)
        aspect = Fraction(stream.sample_aspect_ratio or 0) or Fraction(1)
        rate = frame_rate(stream)
        duration = stated_duration(stream)
        if duration is None and container.duration is not None:
            duration = Fraction(container.duration, av.time_base)
        origin = origin_of(container)
        if duration is not None and origin < duration and "matroska" in container.format.name:
            duration -= origin  # it states its end
        info = SourceInfo(
            path=place_path(place),
            width=frame.height if rotation % 180 else frame.width,
            height=frame.width if rotation % 180 else frame.height,
            rotation=rotation,
            mirrored=mirrored,
            sample_aspect=1 / aspect if rotation % 180 else aspect,
            rate=rate,
            frame_estimate=stream.frames or (None if duration is None else round(duration * rate) or None),
            start=start_of(frame, frames, rate),
            duration=duration,
            origin=origin,
            time_base=Fraction(stream.time_base),
            colour=frame_colour(frame, stream.codec_context),
            pix_fmt=frame.format.name,
            codec=codec_name(stream.codec_context),
            interlaced=bool(frame.interlaced_frame),
            grading=frame_grading(frame),
            lost=tuple(words for name, words in DROPPED.items() if frame.side_data.get(name) is not None),
            audio_streams=tuple(audio_info(audio) for audio in container.streams.audio if has_sound(audio)),
            sound=None if isinstance(place, (str, PathLike)) else place,
        )
        warnings = [cut] if (cut := truncation_warning(place)) else []
        if states_transparency(stream) or is_transparent(frame):
            warnings.append(transparency_warning(place))
        return info, warnings


MAX_UNSTATED = 64
"""Maximum number of leading frames without a time before one with a time; elementary streams have no times at all."""


def start_of(frame: Any, later: Iterator[Any], rate: Fraction) -> Fraction:
    """Presentation time of the first frame in seconds; if unknown, as before 0 s in Matroska, counted back from the next known one."""
    for number, one in enumerate(chain([frame], islice(later, MAX_UNSTATED))):
        if (stated := presentation_time(one)) is not None:
            return stated - number / rate
    return Fraction(0)


def frame_rate(stream: Any) -> Fraction:
    """Average frames per second; FFmpeg's guess if the header states the clock's ticks instead, as for raw DV."""
    average, guess = stream.average_rate, stream.guessed_rate
    if average and guess and guess < average == 1 / stream.time_base:
        average = guess
    return Fraction(average or guess or stream.base_rate or 25)


def truncation_warning(place: Place) -> str:
    """The warning for a truncated file; empty for others."""
    if isinstance(place, (str, PathLike)):
        with Path(place).open("rb") as file:
            missing = missing_bytes(file)
    else:
        missing = missing_bytes(FileView(place))  # type: ignore[arg-type]
    return f"{place_name(place)} is cut short: its last part lacks {missing:,} bytes; the frames that are there are used" if missing else ""


def limit_pixels(stream: Any) -> None:
    """Makes the decoder refuse later frames that are far too large; it counts padded rows, so its limit is twice ours."""
    stream.codec_context.options = {**stream.codec_context.options, "max_pixels": str(2 * max_pixels() + 1_000_000)}


def orientation(frame: Any) -> tuple[int, bool] | None:
    """Rotation by the display matrix, -90, 0, 90 or 180 degrees counter-clockwise, and whether it then mirrors left to right; None without one.

    The matrix maps x' = a x + c y, y' = b x + d y; it mirrors where its determinant is negative.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data)[:36])
    mirrored = a * d < b * c
    a, c = (-a, -c) if mirrored else (a, c)
    degrees = math.degrees(math.atan2(-b / (math.hypot(b, d) or 1), a / (math.hypot(a, c) or 1)))
    turn = round(degrees / 90) * 90 % 360
    return turn - 360 if turn > 180 else turn, mirrored


def transparency_warning(place: Place) -> str:
    return f"{place_name(place)} has transparent parts; transparency is not kept"


def states_transparency(stream: Any) -> bool:
    """Whether the header states transparency that decoders drop: WebM's alpha side data, or AVIF's alpha stream."""
    if "1" in (stream.metadata.get("alpha_mode"), stream.metadata.get("ALPHA_MODE")):
        return True
    avif = stream.container.metadata.get("major_brand") == "avis"
    return avif and any(other.metadata.get("title") == "Alpha" for other in stream.container.streams.video)


def opaque(bits: int) -> int:
    """Minimum opaque value of alpha: 255 in 8 bits; if FFmpeg widened 8 or 10 bits to 16, the lowest bits are 0."""
    return 255 << (bits - 8)


def is_transparent(frame: Any) -> bool:
    """Whether a decoded frame is transparent anywhere."""
    alpha = next((part for part in frame.format.components if part.is_alpha), None)
    if alpha is None and not frame.format.has_palette:
        return False
    if alpha is not None and alpha.plane == 3 and frame.format.name.startswith(("yuva", "gbrap")) and not frame.format.name.endswith(("be", "f32le")):
        plane = frame.planes[3]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width * (1 + (alpha.bits > 8))]
        return bool(rows.view(np.uint8 if alpha.bits <= 8 else "<u2").min() < opaque(alpha.bits))
    return bool(frame.to_ndarray(format="rgba")[..., 3].min() < 255)


def origin_of(container: Any) -> Fraction:
    """The time on the file's clock that players show as 0: the earlier start of picture and sound.

    It is 0 if the file starts at most LATE seconds after its clock's zero, which is then intended; broadcasts have no such zero.
    """
    picture = picture_stream(container)
    streams = [*([] if picture is None else [picture]), *container.streams.audio]
    first = min((stream.start_time * stream.time_base for stream in streams if stream.start_time is not None), default=Fraction(0))
    return first if first > (0 if container.format.flags & MAY_JUMP else LATE) else Fraction(0)


def has_sound(stream: Any) -> bool:
    """Whether an audio stream can be decoded; broadcasts and recorders announce streams that are empty, or begin late, of which nothing is known."""
    return stream.codec_context is not None and stream.codec_context.sample_rate > 0


def audio_info(stream: Any) -> AudioInfo:
    context = stream.codec_context
    start = (stream.start_time or 0) * stream.time_base
    duration = None if stream.duration is None else stream.duration * stream.time_base
    return AudioInfo(codec_name(context), context.sample_rate, context.layout.nb_channels, start, duration)


def codec_name(context: Any) -> str:
    """FFmpeg's name of the codec, not the decoder: mp3 rather than mp3float, av1 rather than libdav1d."""
    codec = context.codec
    return getattr(codec, "canonical_name", None) or codec.name.removesuffix("float").removeprefix("lib")
