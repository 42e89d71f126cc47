"""What a clip is besides its pixels: everything that must survive the trip from one file to another."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

UNSPECIFIED = 2
"""ITU-T H.273 code for a matrix, primaries or transfer that the file does not state."""


@dataclass(frozen=True)
class ColourTags:
    """How numbers become colours, in ITU-T H.273 codes as FFmpeg has them.

    Attributes:
        matrix: 0 RGB, 1 BT.709, 5 and 6 BT.601, 9 BT.2020, 2 not stated.
        full_range: True for 0..255, False for 16..235, None if not stated (then limited).
        primaries, transfer: passed on, never converted.
    """

    matrix: int = UNSPECIFIED
    full_range: bool | None = None
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED


@dataclass(frozen=True)
class Grading:
    """The display that a high dynamic range picture was graded on (SMPTE ST 2086) and how bright it gets (CTA-861.3).

    Attributes:
        primaries: (x, y) of red, green, blue and white; None if not stated.
        luminance: least and most, in candela per square metre; None if not stated.
        light: MaxCLL and MaxFALL in candela per square metre; None if not stated.
    """

    primaries: tuple[tuple[Fraction, Fraction], ...] | None = None
    luminance: tuple[Fraction, Fraction] | None = None
    light: tuple[int, int] | None = None


@dataclass(frozen=True)
class AudioInfo:
    """One audio stream: FFmpeg codec name, samples per second, channels, and start and duration in seconds."""

    codec: str
    rate: int
    channels: int
    start: Fraction
    duration: Fraction | None


@dataclass(frozen=True)
class SourceInfo:
    """A clip as its file describes it.

    Attributes:
        path: file or folder; None if it came from memory.
        width, height: of the upright picture in pixels, after `rotation`, before `sample_aspect`.
        rotation: -90, 0, 90 or 180 degrees; stored pixels are turned this far counter-clockwise to stand upright.
        mirrored: whether they are then mirrored, left to right.
        sample_aspect: width / height of one pixel of the upright picture.
        rate: average frames per second.
        frame_estimate: number of frames by the header, possibly off; None if unknown.
        start: presentation time of the first frame, seconds.
        origin: second of the file's clock that becomes second 0 of a whole copy; 0 unless its clock starts anywhere.
        duration: seconds; None if unknown.
        time_base: seconds per tick of the file's clock.
        colour: colour tags as stated.
        pix_fmt, codec: FFmpeg names.
        interlaced: whether its first frame is marked so.
        grading: of a high dynamic range picture.
        lost: names of what comes with each frame and no copy keeps, such as closed captions.
        audio_streams: in file order.
        is_sequence: one image per frame instead of a video file.
        sound: where the sound is if there is no `path`: the open file, or an `AudioTrack` whose sample 0 belongs to `start`.
    """

    path: str | None
    width: int
    height: int
    rotation: int = 0
    mirrored: bool = False
    sample_aspect: Fraction = Fraction(1)
    rate: Fraction = Fraction(25)
    frame_estimate: int | None = None
    start: Fraction = Fraction(0)
    origin: Fraction = Fraction(0)
    duration: Fraction | None = None
    time_base: Fraction = Fraction(1, 25)
    colour: ColourTags = field(default_factory=ColourTags)
    pix_fmt: str = "yuv420p"
    codec: str = ""
    interlaced: bool = False
    grading: Grading | None = None
    lost: tuple[str, ...] = ()
    audio_streams: tuple[AudioInfo, ...] = ()
    is_sequence: bool = False
    sound: Any = field(default=None, compare=False, repr=False)

    @property
    def audio(self) -> bool:
        return bool(self.audio_streams)

    @property
    def stored_size(self) -> tuple[int, int]:
        """(height, width) of the pixels in the file."""
        return (self.width, self.height) if self.rotation % 180 else (self.height, self.width)
