"""Decoding of damaged files, and checks of their completeness."""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import islice
from typing import Any

import av
import numpy as np

from ...plurals import counted
from ..files import duration_of, ffmpeg_reason, presentation_time
from .mpeg4_in_avi import as_in_avi, with_presentation_times

TINY = 32
"""Size in bytes up to which a packet may just repeat the previous picture, for which decoders give no frame."""

HIDING = ("vp8", "vp9")
"""Codecs with packets of frames that are never shown."""


def has_presentation_times(stream: Any) -> bool:
    """Whether the packets of a stream have presentation times: not `as_in_avi`, for which FFmpeg does not derive those of H.264."""
    return not as_in_avi(stream) or stream.codec_context.name != "h264"


class Health:
    """Decodes a stream, skipping and counting what cannot be decoded.

    If packets have no presentation times, pictures take the packets' times in order.

    retimed: replaces the packets read, in order.
    """

    def __init__(self, retimed: Callable[[Iterator[Any]], Iterator[Any]] = iter) -> None:
        self.retimed = retimed
        self.packets = self.pictures = self.delivered = self.damaged = 0
        self.sums = False
        """Whether the packets have checksums: one of them matched."""
        self.wrong_sums = 0
        self.by_field = False
        self.fault = ""
        self.ended = Fraction(0)
        self.places: deque[int] = deque()
        self.recent: deque[Any] = deque(maxlen=2 + (os.cpu_count() or 1))
        """Packets that may still be in the decoder's threads, and the one before them."""

    def frames(self, container: Any, stream: Any) -> Iterator[Any]:
        alone = stream.codec_context.codec.intra_only
        codec = stream.codec_context.name
        for packet in self.packets_of(container, stream):
            if packet is not None and packet.size:
                if alone:
                    self.recent.append(packet)
                if codec == "ffv1":
                    self.check_sums(bytes(packet))
                elif codec == "dvvideo":
                    self.damaged += has_dropouts(bytes(packet))
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
        """Counts an FFV1 packet with a wrong slice checksum, if this file has checksums (the decoder shows the previous picture there)."""
        right = slices_intact(packet)
        self.sums |= right
        self.wrong_sums += not right

    def over_the_one_before(self, damaged: Any, stream: Any) -> Any:
        """A damaged frame of an intra-only codec, decoded again over the previous frame.

        Threaded decoders (ProRes) leave arbitrary memory in the damaged parts, which differs on every run.
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
        """Tick of the next picture: the earliest free one, but for a key frame none before its own, as the pictures before it are lost."""
        while frame.key_frame and frame.pts is not None and self.places[0] < frame.pts and len(self.places) > 1:
            self.places.popleft()
        return self.places.popleft()

    def packets_of(self, container: Any, stream: Any) -> Iterator[Any]:
        """Packets up to the end or the first unreadable one, then None to flush the decoder."""
        packets, timed = self.retimed(with_presentation_times(container.demux(stream), stream)), has_presentation_times(stream)
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
        """Whether there were as many packets as announced or, without a count, they reached the announced end."""
        if frame_count(stream):
            return self.packets >= frame_count(stream)
        announced = announced_end(stream)
        return announced is None or self.ended >= announced

    def lost(self, stream: Any, to_the_end: bool) -> int:
        """Minimum number of frames that are damaged or missing, such as those that refer to frames cut off at the start."""
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


def has_dropouts(packet: bytes) -> bool:
    """Whether the tape deck marked video blocks of a DV frame as unreadable or concealed, which FFmpeg does not report.

    DIF blocks of 80 bytes begin with their section type in three bits, 4 for video, whose fourth byte begins with the error status (IEC 61834-2).
    """
    blocks = np.frombuffer(packet[: len(packet) // 80 * 80], np.uint8).reshape(-1, 80)
    return bool((blocks[blocks[:, 0] >> 5 == 4, 3] >> 4).any())


def slices_intact(packet: bytes) -> bool:
    """Whether all slices of an FFV1 packet have correct checksums (RFC 9043, section 4.9).

    A slice ends with its size (3 bytes), an error status and a CRC-32, most significant bit first, that makes the CRC of the whole 0; zlib
    computes the bit-reversed one with inverted start and end values.
    """
    end = len(packet)
    while end >= 8:
        first = end - 8 - int.from_bytes(packet[end - 8 : end - 5], "big")
        if first < 0 or zlib.crc32(packet[first:end].translate(BITS_REVERSED), 0xFFFFFFFF) != 0xFFFFFFFF:
            return False
        end = first
    return end == 0 and bool(packet)


def frame_count(stream: Any) -> int:
    """Number of frames by the header, 0 if unknown; not for AVI, which counts dropped frames too."""
    return 0 if stream.container.format.name == "avi" else stream.frames


def readable(packets: Iterator[Any]) -> Iterator[Any]:
    """Packets up to the first unreadable one."""
    try:
        yield from packets
    except (av.FFmpegError, OSError):
        return


def stated_duration(stream: Any) -> Fraction | None:
    """Duration in seconds by the stream's header or Matroska's DURATION tag."""
    if stream.duration is not None:
        return stream.duration * stream.time_base
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        return 3600 * Fraction(hours) + 60 * Fraction(minutes) + Fraction(seconds)
    except ValueError:
        return None


def announced_end(stream: Any) -> Fraction | None:
    """The time in seconds that the packets of an undamaged file reach.

    This is the stream's duration minus 1.5 frames, or else the file's, minus a further 0.5 s if other streams may be longer.
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
