"""Clips read in lockstep: frame i of each, at any sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from ..errors import VideoError
from ..info import SourceInfo
from ..reading.source import FrameSource
from ..times import FrameTimes


def synced_frames(sources: Sequence[FrameSource]) -> Iterator[tuple[Tensor, ...]]:
    """Frame 0 of every clip, then frame 1, and so on: (3, H, W) each, held one at a time. Raises VideoError if one clip ends before another."""
    streams = [source.chunks(1) for source in sources]
    try:
        for pieces in zip(*streams, strict=True):
            yield tuple(piece.frames[0] for piece in pieces)
    except VideoError:
        raise
    except ValueError as error:
        names = ", ".join(source.describe() for source in sources)
        raise VideoError(f"{names} do not end together; a file changed while it was read") from error


def check_sync(sources: Sequence[FrameSource], times: Sequence[FrameTimes]) -> None:
    """Raises VideoError unless frame i of each clip shows the same moment, by the times of their delivered frames.

    It names the first clip that has another number of frames than the first one or, unless one of them is a sequence of images, which has no
    times of its own, lasts longer or shorter than it by more than a frame.
    """
    first, shown = sources[0], times[0]
    for source, other in zip(sources[1:], times[1:], strict=True):
        if len(other) != len(shown):
            raise VideoError(
                f"{source.describe()} has {len(other)} frames and {first.describe()} has {len(shown)}; compare clips of one length, "
                f"or the first {min(len(other), len(shown))} frames of each"
            )
        if source.info.is_sequence or first.info.is_sequence:
            continue
        if abs(other.duration - shown.duration) > shown.duration / len(shown):
            raise VideoError(
                f"{source.describe()} lasts {float(other.duration):.2f} s and {first.describe()} {float(shown.duration):.2f} s with as many frames; "
                "compare clips of one frame rate"
            )


def sound_source(sources: Sequence[FrameSource], wanted: int | None = None) -> int | None:
    """The clip whose sound is kept: `wanted`, counted from 0, else the first that has any, None if none has.

    Raises:
        VideoError: if there is no clip `wanted`, or it has no sound.
    """
    if wanted is None:
        return next((number for number, source in enumerate(sources) if source.info.audio), None)
    if not 0 <= wanted < len(sources):
        raise VideoError(f"there is no clip {wanted + 1} whose sound could be kept; there are {len(sources)}")
    if not sources[wanted].info.audio:
        raise VideoError(f"{sources[wanted].describe()} has no sound to keep; choose another clip's, or none")
    return wanted


def timing_source(sources: Sequence[FrameSource], sound: int | None) -> int:
    """The clip whose times the comparison takes: the one whose sound it keeps, so that lips stay with it, else the first that has its own."""
    if sound is not None:
        return sound
    return next((number for number, source in enumerate(sources) if not source.info.is_sequence), 0)


def comparison_info(picture: SourceInfo, clock: SourceInfo) -> SourceInfo:
    """Properties of a comparison: upright, colours and pixel aspect of `picture`, times and sound of `clock`."""
    names = ("path", "rate", "frame_estimate", "start", "origin", "duration", "time_base", "audio_streams", "is_sequence", "sound")
    return replace(picture, rotation=0, mirrored=False, **{name: getattr(clock, name) for name in names})
