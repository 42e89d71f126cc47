"""Decode, encode, timestamps, audio and shot cuts: clips in and out, as streams of chunks, with nothing lost on the way."""

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
        count: at most this many frames are delivered.
        window: (start, duration) in seconds; frame numbers then count inside it. A negative start counts from the end;
            a duration of 0 or None means to the end, which from 0 on is no window at all.
        rate: frames per second of an image sequence; videos have their own.
        deinterlace: one of DEINTERLACE, which says what each does.

    Raises:
        VideoError: if nothing is there, it is no video, or no frame decodes.
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
    """Raises VideoError for a combination that `open_sink` would refuse, before there is anything to write."""
    choose_codec(codec, choose_container(None, container), pixel_format, crf, None)[0].encoder()


def exact_seconds(time: Fraction | float) -> Fraction:
    """The fraction meant by a float: 0.2 is 1/5 and 0.0333333333 is 1/30, not their binary neighbours."""
    return Fraction(time).limit_denominator(1_000_000)


def probe(place: Place, *, rate: Fraction | float = 25) -> SourceInfo:
    """What a clip is, without reading more than its first frame. Raises VideoError like `open_source`."""
    return open_source(place, rate=rate).info


def read_frames(place: Place | FrameSource, *, on_frame: Callable[[], object] | None = None, **selection: Any) -> tuple[Tensor, FrameTimes]:
    """A whole clip: (T, 3, H, W) float32 RGB in [0, 1], upright, and its times.

    Args:
        on_frame: called after each frame.
        selection: as in `open_source`.
    """
    return read_all(place if isinstance(place, FrameSource) else open_source(place, **selection), on_frame)


def read_audio(place: Place | FrameSource, times: FrameTimes | None = None, *, check_interrupt: Callable[[], object] = no_check) -> AudioTrack | None:
    """The sound that goes with the frames at `times` (the whole of it if None): sample 0 belongs to the first frame's start.

    None if the clip has no sound there; a sequence of images never has. `check_interrupt` is called all along and may raise.
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
    """A clip to be written; use it in a `with` block, which finishes the file on success and removes it on any exception.

    Args:
        path: a video file (its suffix chooses the container), an open binary file, or a folder (a name without suffix) or
            pattern (shot/%04d.png) for one image per frame, numbered as the images of the source, or an image file for the only one.
        like: the source whose rotation, pixel aspect, colours and clock are kept; without it BT.709, limited range, upright.
        size: (H, W) of the upright frames; by default that of the first frames written.
        codec: one of CODECS.
        crf: constant quality on the codec's own scale, lower is better; prores and ffv1 have none.
        preset: one of SPEEDS; by default medium.
        pixel_format: by default yuv420p (prores: yuv422p10le); for images "rgb24" or "rgb48",
            by default the one that keeps the source's depth where the images can.
        audio: where sound comes from; it is copied if the container takes it, else AAC (WebM: Opus), and cut where the
            source's frames are.
        container: muxer name or suffix, if the path does not tell.
        metadata: tags written into the file.
        time_base: seconds per tick, if `like` does not tell.
        otherwise: gives the next name to try where the video file's is taken by the time it is complete.
        check_interrupt: called at every frame, and all along while sound is written; what it raises ends the work.

    Times: a clip that begins where `like` begins keeps its times; one cut out of the middle begins at second 0. MP4 and MOV
    keep every time exactly, Matroska and WebM to the millisecond.

    Raises:
        VideoError: if the choices do not go together or the name is taken.
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
