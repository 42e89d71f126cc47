"""Source of a clip's sound: samples or a file."""

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
    """Samples, or a file with sound.

    Attributes:
        track: the samples.
        place: the file, if there are no samples.
        start: source time in seconds at which `track` begins; None means at the first frame.
    """

    track: AudioTrack | None
    place: Place | None = None
    start: Fraction | None = None

    def at(self, start: Fraction) -> AudioTrack | Place:
        """The sound for frames from `start` (source seconds) on."""
        if self.track is None:
            assert self.place is not None
            return self.place
        return self.track if self.start is None else self.track.part(max(Fraction(0), start - self.start))


def sound_in(audio: AudioTrack | FrameSource | SourceInfo | Place | None) -> Sound | None:
    """The source of a clip's sound; None if it cannot have any."""
    info: Any = getattr(audio, "info", audio)
    if not isinstance(info, SourceInfo):
        return None if audio is None else Sound(track_of(audio), info)
    if info.is_sequence or (info.path is None and info.sound is None):
        return None
    return Sound(track_of(info.sound), file_of(info), info.start)


def file_of(info: SourceInfo) -> Place | None:
    """The clip's video file; None if it has none."""
    return None if info.is_sequence or track_of(info.sound) is not None else info.path or info.sound
