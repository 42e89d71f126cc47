"""Decoding, encoding, timestamps, audio and shot cuts: clips are read and written losslessly in streams of chunks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from .errors import VideoError
from .files import IMAGE_SUFFIXES, Place, check_apart, image_names, local, number_field, sequence_files, videos_in_folder
from .info import AudioInfo, ColourTags, SourceInfo
from .memory import FramesSink, FramesSource
from .playlists import allow_playlist
from .reading.animation import AnimationSource
from .reading.decode import VideoSource
from .reading.fields import DEINTERLACE
from .reading.source import FrameChunk, FrameSource, Selection, read_all
from .reading.stills import PNG, pictures_in
from .reading.timestamp_discontinuity import no_warning
from .sequence import ImageSink, SequenceSource, read_bytes
from .shots.cuts import ShotCutDetector, find_cuts
from .streams.audio import AudioTrack, Callbacks, no_check, track_of
from .streams.audio import read_audio as read_sound
from .streams.sound import sound_in
from .times import FrameTimes
from .writing.codecs import CODECS, CONTAINERS, SPEEDS, choose_codec, choose_container, default_codec, default_suffix
from .writing.writer import Encoding, VideoSink


def open_source(
    place: Place,
    *,
    start: int = 0,
    stop: int | None = None,
    stride: int = 1,
    count: int | None = None,
    window: tuple[Fraction | float, Fraction | float | None] | None = None,
    rate: Fraction | float = 25,
    deinterlace: str = "auto",
) -> FrameSource:
    """A video file, a folder or pattern of images, one image, or a video in an open binary file.

    Args:
        start, stop, stride: frames start <= i < stop, every `stride`-th, counted from 0.
        count: maximum number of delivered frames.
        window: (start, duration) in seconds; frame numbers then count inside it. A negative start counts from the end;
            a duration of 0 or None means to the end, which from 0 on is no window at all.
        rate: frames per second of an image sequence; videos have their own.
        deinterlace: one of DEINTERLACE (described there).

    Raises:
        VideoError: if the place does not exist, is not a video, or has no frame that decodes.
    """
    seconds = None if window is None or not any(window) else (exact_seconds(window[0]), exact_seconds(window[1]) if window[1] else None)
    selection = Selection(start, stop, stride, count, seconds)
    place = local(place)
    files = sequence_files(place)
    if files is not None and deinterlace not in ("auto", "off"):
        raise VideoError(f"{place} is read as images, which are not deinterlaced; make it a video first")
    if files is not None and len(files) == 1 and Path(str(place)).is_file() and pictures_in(data := read_bytes(files[0])) > 1:
        if data[:4] == b"RIFF":
            return AnimationSource(files[0], data, selection)
        files = None if data.startswith(PNG) else files
    return VideoSource(place, selection, deinterlace) if files is None else SequenceSource(place, files, selection, rate)


def check_encoding(codec: str, container: str, *, crf: float, pixel_format: str | None) -> None:
    """Raises VideoError for a combination that `open_sink` would refuse."""
    choose_codec(codec, choose_container(None, container), pixel_format, crf, None)[0].encoder()


def exact_seconds(time: Fraction | float) -> Fraction:
    """The fraction a float stands for: 1/5 for 0.2 and 1/30 for 0.0333333333, not their binary approximations."""
    return Fraction(time).limit_denominator(1_000_000)


def probe(place: Place, *, rate: Fraction | float = 25) -> SourceInfo:
    """Properties of a clip from its header and first frame. Raises VideoError as `open_source`."""
    return open_source(place, rate=rate).info


def read_frames(place: Place | FrameSource, *, on_frame: Callable[[], object] | None = None, **selection: Any) -> tuple[Tensor, FrameTimes]:
    """A whole clip: (T, 3, H, W) float32 RGB in [0, 1], upright, and its times.

    Args:
        on_frame: called after each frame.
        selection: as in `open_source`.
    """
    return read_all(place if isinstance(place, FrameSource) else open_source(place, **selection), on_frame)


def read_audio(place: Place | FrameSource, times: FrameTimes | None = None, *, check_interrupt: Callable[[], object] = no_check) -> AudioTrack | None:
    """The sound of the frames at `times` (all of it if None); sample 0 is at the first frame's start.

    None if the clip has no sound there, or is a sequence of images. `check_interrupt` is called regularly and may raise.
    """
    warn = no_warning
    if isinstance(place, FrameSource):
        warn = place.warn
        held, start = track_of(place.info.sound), place.info.start
        if held is not None:
            return held if times is None else held.part(times.starts[0] - start, times.end - start)
        if place.info.path is None and place.info.sound is None:
            return None
        place = place.place
    file: Place = local(place)
    if sequence_files(file) is not None:
        return None
    callbacks = Callbacks(check_interrupt, warn)
    return read_sound(file, callbacks=callbacks) if times is None else read_sound(file, times.starts[0], times.end, callbacks)


def open_sink(
    path: str | PathLike[str] | IO[bytes],
    like: SourceInfo | None = None,
    *,
    size: tuple[int, int] | None = None,
    codec: str = "h264",
    crf: float = 17,
    preset: str | None = None,
    pixel_format: str | None = None,
    audio: AudioTrack | FrameSource | SourceInfo | Place | None = None,
    overwrite: bool = False,
    container: str | None = None,
    metadata: Mapping[str, str] | None = None,
    time_base: Fraction | None = None,
    otherwise: Callable[[Path], Path] | None = None,
    check_interrupt: Callable[[], object] = no_check,
) -> VideoSink | ImageSink:
    """A sink for a clip; its `with` block finishes the file on success and removes it on any exception.

    Args:
        path: a video file (its suffix chooses the container), an open binary file, a folder (no suffix) or pattern (shot/%04d.png)
            for one image per frame, numbered like the source's images, or an image file for a single frame.
        like: source whose rotation, pixel aspect, colours and clock are kept; None is BT.709, limited range, upright.
        size: (H, W) of the upright frames; by default those of the first frames written.
        codec: one of CODECS.
        crf: constant quality on the codec's own scale, lower is better; ignored by prores and ffv1.
        preset: one of SPEEDS; medium by default.
        pixel_format: by default yuv420p (prores: yuv422p10le); for images "rgb24" or "rgb48",
            by default the one that keeps the source's depth where the images can.
        audio: source of the sound, copied if the container takes its codec, else encoded as AAC (WebM: Opus); trimmed to the
            source's selection.
        container: muxer name or suffix, if `path` has none.
        metadata: tags written into the file.
        time_base: seconds per tick, instead of that of `like`.
        otherwise: gives the next name to try if the video file's is taken when it is complete.
        check_interrupt: called for every frame and while sound is written; an exception it raises aborts the clip.

    Times: a clip that starts with the first frame of `like` keeps its times, any other starts at 0 s. MP4 and MOV are exact,
    Matroska and WebM round to milliseconds.

    Raises:
        VideoError: if the choices are incompatible or the name is taken.
    """
    name = Path(local(path)) if isinstance(path, (str, PathLike)) else None
    if name is not None and container is None and image_names(name) is not None:
        bits = {"rgb24": 8, "rgb48": 16}.get(pixel_format or "")
        frames, numbers = like.frame_estimate if like is not None else None, None
        if isinstance(audio, FrameSource):
            frames, numbers = audio.expected, audio.numbers
            if frames is None and name.suffix and number_field(name) is None:  # one image, of a file that does not count its own
                frames = len(audio.times())
        return ImageSink(name, like, size=size, bits=bits, overwrite=overwrite, frames=frames, numbers=numbers, sound=sound_in(audio))
    muxer = choose_container(name, container)
    chosen, pixels = choose_codec(codec, muxer, pixel_format, crf, preset, like)
    chosen.encoder()
    return VideoSink(
        name,
        None if name is not None else path,  # type: ignore[arg-type]
        Encoding(chosen, muxer, pixels, crf, preset, dict(metadata or {})),
        like=like,
        size=size,
        audio=audio,
        time_base=time_base,
        overwrite=overwrite,
        otherwise=otherwise,
        check_interrupt=check_interrupt,
    )
