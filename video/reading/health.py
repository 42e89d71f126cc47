"""Decoding of damaged files, and whether as much came as the header announces."""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import islice
from typing import Any

import av

from ...plurals import counted
from ..files import duration_of, ffmpeg_reason, presentation_time
from .mpeg4_in_avi import with_presentation_times

TINY = 32
"""Bytes up to which a packet may say no more than that the picture before it stays, for which decoders give no frame."""

HIDING = ("vp8", "vp9")
"""Codecs with packets of pictures that are never shown."""


def has_presentation_times(stream: Any) -> bool:
    """Whether the packets of a stream say when their pictures are shown. AVI does not, and FFmpeg does not work it out for H.264."""
    return stream.container.format.name != "avi" or stream.codec_context.name != "h264"


class Health:
    """Decodes what can be decoded and remembers what could not.

    Where packets do not say when their pictures are shown, the pictures take the packets' places one after the other.
    """

    def __init__(self) -> None:
        self.packets = self.pictures = self.delivered = self.damaged = 0
        self.sums = False
        """Whether the packets hold checksums, as one that was right has shown."""
        self.wrong_sums = 0
        self.by_field = False
        self.fault = ""
        self.ended = Fraction(0)
        self.places: deque[int] = deque()
        self.recent: deque[Any] = deque(maxlen=2 + (os.cpu_count() or 1))
        """Packets whose frames may still be in the threads of a decoder, and the one before them."""

    def frames(self, container: Any, stream: Any) -> Iterator[Any]:
        alone = stream.codec_context.codec.intra_only
        summed = stream.codec_context.name == "ffv1"
        for packet in self.packets_of(container, stream):
            if summed and packet is not None and packet.size:
                self.check_sums(bytes(packet))
            if alone and packet is not None and packet.size:
                self.recent.append(packet)
            try:
                frames = packet.decode() if packet else stream.decode(None)
            except av.error.EOFError:
                return
            except (av.FFmpegError, ValueError) as error:
                self.damaged += 1
                self.fault = ffmpeg_reason(error)
                if self.places:
                    self.places.pop()
                continue
            for frame in frames:
                self.delivered += 1
                self.damaged += bool(frame.is_corrupt)
                self.by_field |= bool(frame.interlaced_frame)
                if self.places:
                    frame.pts = self.place(frame)
                yield self.over_the_one_before(frame, stream) if alone and frame.is_corrupt else frame

    def check_sums(self, packet: bytes) -> None:
        """Counts a packet of FFV1 whose slices are not what they were, if those of this file say so (the decoder puts the picture before there)."""
        right = slices_intact(packet)
        self.sums |= right
        self.wrong_sums += not right

    def over_the_one_before(self, damaged: Any, stream: Any) -> Any:
        """A damaged frame of a codec whose frames stand alone, where what does not decode shows the frame before it.

        A decoder with threads leaves there what happens to lie in its memory, something else on every run (ProRes).
        """
        number = next((number for number, packet in enumerate(self.recent) if packet.pts == damaged.pts), None)
        if number is None:
            return damaged
        own = stream.codec_context
        decoder: Any = av.CodecContext.create(own.codec.name, "r")
        decoder.extradata, decoder.codec_tag, decoder.options, decoder.thread_count = own.extradata, own.codec_tag, own.options, 1
        frame = None
        for packet in islice(self.recent, max(0, number - 1), number + 1):
            frame = None  # its memory is the next one's
            with suppress(av.FFmpegError):
                frame = next(iter(decoder.decode(packet)), None)
        if frame is None:
            return damaged
        for name in ("pts", "time_base", "colorspace", "color_range", "color_primaries", "color_trc"):
            if hasattr(frame, name):
                setattr(frame, name, getattr(damaged, name))
        return frame

    def place(self, frame: Any) -> int:
        """The tick of the next picture shown: the earliest that is free, and of a key frame not before its own, as pictures before it are lost."""
        while frame.key_frame and frame.pts is not None and self.places[0] < frame.pts and len(self.places) > 1:
            self.places.popleft()
        return self.places.popleft()

    def packets_of(self, container: Any, stream: Any) -> Iterator[Any]:
        """Packets until the end or the first that cannot be read, then None: time for the decoder to give up what it holds."""
        packets, timed = with_presentation_times(container.demux(stream), stream), has_presentation_times(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.FFmpegError, OSError) as error:
                self.fault = ffmpeg_reason(error)
                yield None
                return
            if packet.size:
                self.packets += 1
                self.pictures += packet.size > TINY and not packet.is_discard
                if not timed and packet.dts is not None:
                    packet.pts = packet.dts
                    self.places.append(packet.dts)
            if (start := presentation_time(packet)) is not None:
                self.ended = max(self.ended, start + duration_of(packet))
            if packet.size or packet.dts is None:  # without data the picture before stays (Theora); the last packet has no time either
                yield packet

    def whole(self, stream: Any) -> bool:
        """Whether as many packets came as the header announces or, without a count, they reach the announced end."""
        if frame_count(stream):
            return self.packets >= frame_count(stream)
        announced = announced_end(stream)
        return announced is None or self.ended >= announced

    def lost(self, stream: Any, to_the_end: bool) -> int:
        """How many frames at least are damaged or did not come, such as those that refer to a beginning that was cut off."""
        codec = stream.codec_context.name
        one_each = to_the_end and codec not in HIDING and not (codec == "h264" and self.by_field)
        return max(self.damaged, self.wrong_sums * self.sums, self.pictures - self.delivered if one_each else 0)

    def description(self, stream: Any, to_the_end: bool) -> str:
        if to_the_end and self.packets < frame_count(stream):
            return f"its header announces {counted(frame_count(stream), 'frame')}, {self.packets} {'is' if self.packets == 1 else 'are'} there"
        if to_the_end and not self.whole(stream):
            return f"it stops at {float(self.ended):.2f} s of {float(announced_end(stream) or 0):.2f} s"
        lost = self.lost(stream, to_the_end)
        return f"{lost or 1} of its frames {'has' if lost <= 1 else 'have'} errors"


BITS_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def slices_intact(packet: bytes) -> bool:
    """Whether a packet of FFV1 (RFC 9043, section 4.9) is made of slices whose checksums are right.

    A slice ends with its size (3 bytes), an error status and a CRC-32 of all that is before, highest bit first, so that the CRC of the whole is 0;
    zlib computes the one of reversed bits, with inverted ends.
    """
    end = len(packet)
    while end >= 8:
        first = end - 8 - int.from_bytes(packet[end - 8 : end - 5], "big")
        if first < 0 or zlib.crc32(packet[first:end].translate(BITS_REVERSED), 0xFFFFFFFF) != 0xFFFFFFFF:
            return False
        end = first
    return end == 0 and bool(packet)


def frame_count(stream: Any) -> int:
    """Frames by the header, 0 if it does not say; AVI counts places, and those of dropped frames are empty."""
    return 0 if stream.container.format.name == "avi" else stream.frames


def readable(packets: Iterator[Any]) -> Iterator[Any]:
    """Packets up to the first that cannot be read."""
    try:
        yield from packets
    except (av.FFmpegError, OSError):
        return


def stated_duration(stream: Any) -> Fraction | None:
    """Seconds, by the stream's header or Matroska's DURATION tag."""
    if stream.duration is not None:
        return stream.duration * stream.time_base
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        return 3600 * Fraction(hours) + 60 * Fraction(minutes) + Fraction(seconds)
    except ValueError:
        return None


def announced_end(stream: Any) -> Fraction | None:
    """The second that the packets of an undamaged file reach.

    That is the stream's duration less one and a half frames, or the file's, less half a second if other streams may be longer.
    """
    slack = Fraction(3, 2) / Fraction(stream.average_rate or 25)
    duration = stated_duration(stream)
    if duration is None:
        container = stream.container
        if container.duration is None:
            return None
        duration = Fraction(container.duration, av.time_base)
        slack += Fraction(len(container.streams) > 1, 2)
    return duration - slack
