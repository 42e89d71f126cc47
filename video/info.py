"""Properties of a clip besides its pixels, which a copy must keep."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

UNSPECIFIED = 2
"""ITU-T H.273 code for an unspecified matrix, primaries or transfer."""


@dataclass(frozen=True)
class ColourTags:
    """Colour tags in ITU-T H.273 codes, as FFmpeg has them.

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
    """HDR10 metadata: mastering display (SMPTE ST 2086) and content light level (CTA-861.3).

    Attributes:
        primaries: (x, y) of red, green, blue and white; None if not stated.
        luminance: minimum and maximum in cd/m2; None if not stated.
        light: MaxCLL and MaxFALL in cd/m2; None if not stated.
    """

    primaries: tuple[tuple[Fraction, Fraction], ...] | None = None
    luminance: tuple[Fraction, Fraction] | None = None
    light: tuple[int, int] | None = None


@dataclass(frozen=True)
class AudioInfo:
    """An audio stream: FFmpeg codec name, sample rate in Hz, channels, and start and duration in seconds."""

    codec: str
    rate: int
    channels: int
    start: Fraction
    duration: Fraction | None


@dataclass(frozen=True)
class SourceInfo:
    """Properties of a clip.

    Attributes:
        path: file or folder; None if it came from memory.
        width, height: of the upright picture in pixels, after `rotation`, before `sample_aspect`.
        rotation: -90, 0, 90 or 180 degrees, counter-clockwise, that turn the stored pixels upright.
        mirrored: whether they are then mirrored left to right.
        sample_aspect: width / height of one pixel of the upright picture.
        rate: average frames per second.
        frame_estimate: approximate number of frames by the header; None if unknown.
        start: presentation time of the first frame, seconds.
        origin: time on the file's clock that becomes 0 s of a whole copy; 0 unless its clock starts at an arbitrary time.
        duration: seconds; None if unknown.
        time_base: seconds per tick of the file's clock.
        colour: colour tags as stated.
        pix_fmt, codec: FFmpeg names.
        interlaced: whether its first frame is marked as interlaced.
        grading: HDR10 metadata of a high dynamic range picture.
        lost: names of per-frame data that no copy keeps, such as closed captions.
        audio_streams: in file order.
        is_sequence: whether it is one image per frame instead of a video file.
        sound: source of the sound if there is no `path`: the open file, or an `AudioTrack` that begins at `start`.
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
