"""The source of a clip's sound: samples, or a file."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ..files import Place
from ..info import SourceInfo
from ..reading.source import FrameSource
from .audio import AudioTrack, track_of


@dataclass(frozen=True)
class Sound:
    """Samples, or the file that they are in.

    Attributes:
        track: the samples.
        place: the file, where there are none.
        start: second of the source's clock at which `track` begins; None if that is wherever the frames begin.
    """

    track: AudioTrack | None
    place: Place | None = None
    start: Fraction | None = None

    def at(self, start: Fraction) -> AudioTrack | Place:
        """What goes with frames from second `start` of the source on; samples without a file begin with them."""
        if self.track is None:
            assert self.place is not None
            return self.place
        return self.track if self.start is None else self.track.part(max(Fraction(0), start - self.start))


def sound_in(audio: AudioTrack | FrameSource | SourceInfo | Place | None) -> Sound | None:
    """Where a clip's sound is; None where it cannot have any."""
    info: Any = getattr(audio, "info", audio)
    if not isinstance(info, SourceInfo):
        return None if audio is None else Sound(track_of(audio), info)
    if info.is_sequence or (info.path is None and info.sound is None):
        return None
    return Sound(track_of(info.sound), file_of(info), info.start)


def file_of(info: SourceInfo) -> Place | None:
    """The video file that a clip is in, if it is in one."""
    return None if info.is_sequence or track_of(info.sound) is not None else info.path or info.sound
