"""Reading video files through FFmpeg, frame-exact, whatever their damage."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import av
from av.video.frame import VideoFrame
from torch import Tensor

from .errors import VideoError
from .fields import Deinterlacer, check_deinterlace
from .files import STILL, FileView, Place, check_pixels, lasting, most_pixels, open_input, picture_stream, place_name, place_path, short, stamp
from .info import AudioInfo, SourceInfo
from .pixels import DROPPED, fitted, frame_colour, frame_grading, to_tensor
from .source import FrameSource, Selection, Timed
from .timestamp_discontinuity import MAY_JUMP, RunningClock, can_seek
from .whole import missing_bytes

NEAR = 64
"""Frames closer to the start than this are decoded and dropped rather than sought."""

LATE = 10
"""Seconds of emptiness before a clip that may be meant; beyond, its times are cut out of a longer recording's."""

WHOLE = ("each frame becomes a whole one", "both fields of a frame become frames, at twice the rate")

LATE_ENDS = int(av.__version__.split(".")[0]) >= 19


class VideoSource(FrameSource):
    """A video file (or one in memory) as a stream of frames."""

    def __init__(self, place: Place, selection: Selection, deinterlace: str = "auto") -> None:
        check_deinterlace(deinterlace)
        self.place, self.deinterlace = place, deinterlace
        self.info, self.warnings = examine(place)
        self.selection = selection
        forced = deinterlace not in ("auto", "off", "fields")
        self.woven = deinterlace != "off" and (forced or self.info.interlaced)
        if self.info.interlaced or forced:
            self.warn(self.weaving())
        if self.halved:
            frames, info = self.info.frame_estimate, self.info
            self.info = replace(info, rate=2 * info.rate, time_base=info.time_base / 2, frame_estimate=None if frames is None else 2 * frames)

    def numbered(self) -> Iterator[Timed]:
        wanted = self.selection.start
        window = self.selection.window
        if window is not None:
            yield from self.inside(*window, skip=wanted)
            return
        target = self.presentation(wanted) if wanted >= NEAR and not self.halved else None
        if target is not None:
            frames = self.decoded(target - self.margin)
            for item in frames:
                if item.start < target:
                    continue
                if item.start == target:
                    yield item
                    yield from frames
                    return
                break
        for number, item in enumerate(self.decoded()):
            if number >= wanted:
                yield item

    def weaving(self) -> str:
        """What becomes of interlaced frames."""
        if self.deinterlace == "off":
            return f"{self.describe()} is interlaced, which its copy is not told to be; deinterlace it first, or its combs stay"
        named = "" if self.info.interlaced else "taken as "
        return f"{self.describe()} is {named}interlaced: {WHOLE[self.deinterlace.startswith('fields')]} (bwdif)"

    @property
    def halved(self) -> bool:
        """Whether a packet becomes two frames."""
        return self.woven and self.deinterlace.startswith("fields")

    @property
    def frame_length(self) -> Fraction:
        """Seconds that a packet's picture lasts, on average."""
        return (1 + self.halved) / self.info.rate

    @property
    def margin(self) -> Fraction:
        """Seconds to begin before the first frame wanted: a frame made of fields takes after the one before it."""
        return 3 / self.info.rate if self.woven else Fraction(0)

    def inside(self, start: Fraction, duration: Fraction | None, skip: int) -> Iterator[Timed]:
        """Frames whose presentation begins in [start, start + duration)."""
        if start < 0:
            start = max(Fraction(0), (self.info.duration or Fraction(0)) + start)
        start = start // self.info.time_base * self.info.time_base
        stop = start + duration if duration else None
        number = -1
        held: Timed | None = None
        for item in self.decoded(start - self.margin if start > self.info.start + NEAR / self.info.rate and self.can_seek else None):
            if item.start < start:
                continue
            if stop is not None and item.start >= stop:
                held = None if held is None else held._replace(end=item.start)
                break
            if held is not None and number >= skip:
                yield held
            held = item
            number += 1
        if held is not None and number >= skip:
            yield held

    @cached_property
    def can_seek(self) -> bool:
        with open_input(self.place) as container:
            return can_seek(container, self.place)

    def presentation(self, number: int) -> Fraction | None:
        """When frame `number` is shown, by its packet alone; None if the packets do not say or a time means several places."""
        if not self.can_seek:
            return None
        with open_input(self.place) as container:
            stream = picture_stream(container)
            ticks = []
            for packet in readable(container.demux(stream)):
                if packet.size and not packet.is_discard:
                    if packet.pts is None:
                        return None
                    ticks.append(packet.pts)
            return sorted(ticks)[number] * stream.time_base if number < len(ticks) else None

    def decoded(self, seek_to: Fraction | None = None) -> Iterator[Timed]:
        """Every frame in presentation order, from the key frame before `seek_to`."""
        turn = self.info.rotation, self.info.mirrored
        with open_input(self.place) as container:
            stream = picture_stream(container)
            stream.thread_type = "AUTO"
            limit(stream)
            if seek_to is not None:
                container.seek(int(seek_to / stream.time_base), stream=stream)
            health = Health()
            clock = RunningClock(self.place, container)
            last = [self.info.start, Fraction(0)]
            timed = self.timed_frames(health.frames(container, stream), clock, last)
            if self.deinterlace != "off":
                timed = Deinterlacer(self.deinterlace, self.frame_length)(timed)
            held: tuple[Fraction, Callable[[], Tensor]] | None = None
            try:
                for start, frame in timed:
                    if held is not None:
                        yield Timed(*held, None)
                    turn = orientation(frame) or turn
                    held = start, Decoded(self, frame, *turn)
            except GeneratorExit:
                self.report(health, stream, to_the_end=False)
                raise
            self.report(health, stream, to_the_end=seek_to is None)
            if held is not None:
                end = self.end_of(stream, last[0], last[1], not clock.jumps and (seek_to is not None or health.whole(stream)))
                yield Timed(*held, end)

    def timed_frames(self, frames: Iterator[VideoFrame], clock: RunningClock, last: list[Fraction]) -> Iterator[tuple[Fraction, VideoFrame]]:
        """Each decoded frame with the second it is shown at; `last` becomes the last one's, and what its file says of its length."""
        previous: Fraction | None = None
        for frame in frames:
            if self.deinterlace != "off" and frame.interlaced_frame and not self.info.interlaced:
                self.warn(f"{self.describe()} is interlaced in places: {WHOLE[self.deinterlace.startswith('fields')]} (bwdif)")
            previous = self.start_of(frame, clock, previous)
            last[:] = previous, lasting(frame)
            yield previous, frame

    def start_of(self, frame: Any, clock: RunningClock, previous: Fraction | None) -> Fraction:
        jumps = clock.jumps
        stated = stamp(frame)
        start = None if stated is None else clock(stated, lasting(frame) or self.frame_length)
        if clock.jumps > jumps:
            self.warn(f"{self.describe()} starts its clock anew on the way, as joined recordings do; each part was put right behind the one before")
        if previous is None:
            return self.info.start if start is None else start
        if start is None:
            return previous + self.frame_length
        if start <= previous:
            self.warn(f"{self.describe()} has frames whose times do not increase; they were moved apart by one tick")
            return previous + self.info.time_base
        return start

    def end_of(self, stream: Any, start: Fraction, length: Fraction, whole: bool) -> Fraction:
        """The stream's own end if it was read whole, else the last frame's own duration, else one frame.

        From PyAV 19 on the stream's end may be too late where frames are reordered, and the earlier of the two is taken.
        """
        own = start + (length or self.frame_length)
        if whole and stream.duration is not None:
            end = ((stream.start_time or 0) + stream.duration) * stream.time_base
            if end > start:
                return min(end, own) if LATE_ENDS else end
        return own

    def picture(self, frame: VideoFrame, rotation: int, mirrored: bool) -> Tensor:
        """Upright and of the clip's size, into which frames of another size are fitted with their aspect kept."""
        if frame.interlaced_frame:
            self.warn(self.weaving())
        upright = to_tensor(frame, rotation // 90 % 4)
        upright = upright.flip(-1) if mirrored else upright
        size = self.info.height, self.info.width
        if upright.shape[1:] == size:
            return upright
        here = f"{upright.shape[2]}x{upright.shape[1]}"
        self.warn(
            f"{self.describe()} changes its size on the way; frames of {here} were scaled into {size[1]}x{size[0]}, with black beside if need be"
        )
        turned = 1 if (rotation - self.info.rotation) % 180 == 0 else 1 / self.info.sample_aspect**2
        return fitted(upright, size, float(turned))

    def report(self, health: Health, stream: Any, *, to_the_end: bool) -> None:
        if to_the_end and not health.delivered:
            raise VideoError(f"{self.describe()} holds no frame that decodes ({health.fault or 'it is empty'}); it is damaged")
        if health.fault or health.damaged or (to_the_end and not health.whole(stream)):
            words = health.words(stream, to_the_end)
            self.warnings = [sentence for sentence in self.warnings if sentence != cut_sentence(self.place)]  # which this tells better
            self.warn(f"{self.describe()} is damaged or cut short: {words}; the {health.delivered} frames that decode are used")


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoded frame that makes its tensor when called. `rotation` and `mirrored` are how it is turned upright."""

    source: VideoSource
    frame: VideoFrame
    rotation: int
    mirrored: bool

    def __call__(self) -> Tensor:
        return self.source.picture(self.frame, self.rotation, self.mirrored)

    @property
    def stored(self) -> VideoFrame | None:
        """The frame itself, if it is one of the clip's size and turn."""
        info = self.source.info
        like = (self.frame.height, self.frame.width) == info.stored_size and (self.rotation, self.mirrored) == (info.rotation, info.mirrored)
        return self.frame if like else None


class Health:
    """Decodes what can be decoded and remembers what could not."""

    def __init__(self) -> None:
        self.packets = self.delivered = self.damaged = 0
        self.fault = ""
        self.ended = Fraction(0)

    def frames(self, container: Any, stream: Any) -> Iterator[Any]:
        for packet in self.packets_of(container, stream):
            try:
                frames = packet.decode() if packet else stream.decode(None)
            except av.error.EOFError:
                return
            except (av.FFmpegError, ValueError) as error:
                self.damaged += 1
                self.fault = short(error)
                continue
            for frame in frames:
                self.delivered += 1
                self.damaged += bool(frame.is_corrupt)
                yield frame

    def packets_of(self, container: Any, stream: Any) -> Iterator[Any]:
        """Packets until the end or the first that cannot be read, then None: time for the decoder to give up what it holds."""
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.FFmpegError, OSError) as error:
                self.fault = short(error)
                yield None
                return
            if packet.size:
                self.packets += 1
                if (start := stamp(packet)) is not None:
                    self.ended = max(self.ended, start + lasting(packet))
            yield packet

    def whole(self, stream: Any) -> bool:
        """Whether as many packets came as the header announces or, without a count, they reach the announced end."""
        if counted(stream):
            return self.packets >= counted(stream)
        announced = announced_end(stream)
        return announced is None or self.ended >= announced

    def words(self, stream: Any, to_the_end: bool) -> str:
        if to_the_end and self.packets < counted(stream):
            return f"its header announces {counted(stream)} frames, {self.packets} are there"
        if to_the_end and not self.whole(stream):
            return f"it stops at {float(self.ended):.2f} s of {float(announced_end(stream) or 0):.2f} s"
        return f"{self.damaged or 1} of its frames {'has' if self.damaged <= 1 else 'have'} errors"


def counted(stream: Any) -> int:
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


def examine(place: Place) -> tuple[SourceInfo, list[str]]:
    """Reads the header and decodes the first frame that decodes, which is where rotation and colours are sure; and warns of what is lost.

    Raises:
        VideoError: if there is no video stream, or none of it decodes.
    """
    with open_input(place) as container:
        stream = picture_stream(container)
        if stream is None:
            kinds = ["a cover picture" if other.disposition & STILL else other.type for other in container.streams]
            raise VideoError(f"{place_name(place)} holds no video stream, only {', '.join(kinds) or 'nothing'}")
        if stream.codec_context is None:
            raise VideoError(f"the picture of {place_name(place)} is in a codec that is not known here; convert it first")
        health = Health()
        check_pixels(place_name(place), stream.width, stream.height)
        limit(stream)
        frame = next(health.frames(container, stream), None)
        if frame is None:
            raise VideoError(f"{place_name(place)} holds no frame that decodes ({health.fault or 'it is empty'}); it is damaged")
        rotation, mirrored = orientation(frame) or (0, False)
        aspect = Fraction(stream.sample_aspect_ratio or 0) or Fraction(1)
        rate = Fraction(stream.average_rate or stream.guessed_rate or stream.base_rate or 25)
        duration = stated_duration(stream)
        if duration is None and container.duration is not None:
            duration = Fraction(container.duration, av.time_base)
        info = SourceInfo(
            path=place_path(place),
            width=frame.height if rotation % 180 else frame.width,
            height=frame.width if rotation % 180 else frame.height,
            rotation=rotation,
            mirrored=mirrored,
            sample_aspect=1 / aspect if rotation % 180 else aspect,
            rate=rate,
            frame_estimate=stream.frames or (None if duration is None else round(duration * rate) or None),
            start=stamp(frame) or Fraction(0),
            duration=duration,
            origin=origin_of(container),
            time_base=Fraction(stream.time_base),
            colour=frame_colour(frame, stream.codec_context),
            pix_fmt=frame.format.name,
            codec=codec_name(stream.codec_context),
            interlaced=bool(frame.interlaced_frame),
            grading=frame_grading(frame),
            lost=tuple(words for name, words in DROPPED.items() if frame.side_data.get(name) is not None),
            audio_streams=tuple(audio_info(audio) for audio in container.streams.audio if audio.codec_context is not None),
            sound=None if isinstance(place, (str, PathLike)) else place,
        )
        warnings = [cut] if (cut := cut_sentence(place)) else []
        return info, [*warnings, *([f"{place_name(place)} has transparent parts; transparency is not kept"] if see_through(frame, stream) else [])]


def cut_sentence(place: Place) -> str:
    """What is to be said of a file that ends before its last part does; empty for others."""
    if isinstance(place, (str, PathLike)):
        with Path(place).open("rb") as file:
            missing = missing_bytes(file)
    else:
        missing = missing_bytes(FileView(place))  # type: ignore[arg-type]
    return f"{place_name(place)} is cut short: its last part lacks {missing:,} bytes; the frames that are there are used" if missing else ""


def limit(stream: Any) -> None:
    """Has the decoder refuse pictures that grow far too large on the way; it counts rows as they lie in memory, which are longer."""
    stream.codec_context.options = {**stream.codec_context.options, "max_pixels": str(2 * most_pixels() + 1_000_000)}


def orientation(frame: Any) -> tuple[int, bool] | None:
    """-90, 0, 90 or 180 degrees counter-clockwise, and whether the picture is then mirrored left to right, by its display matrix, if it has one.

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


def see_through(frame: Any, stream: Any) -> bool:
    """Whether a frame is transparent somewhere; of WebM's transparency, which its decoder leaves out, the header tells."""
    if "1" in (stream.metadata.get("alpha_mode"), stream.metadata.get("ALPHA_MODE")):
        return True
    if not (frame.format.has_palette or any(part.is_alpha for part in frame.format.components)):
        return False
    return bool(frame.to_ndarray(format="rgba")[..., 3].min() < 255)


def origin_of(container: Any) -> Fraction:
    """The second of the file's clock that players show as its beginning: where the first of its picture and sound begins.

    That is 0 where a file begins up to LATE seconds after its clock's zero, which then is meant; broadcasts have no zero of their own.
    """
    picture = picture_stream(container)
    streams = [*([] if picture is None else [picture]), *container.streams.audio]
    first = min((stream.start_time * stream.time_base for stream in streams if stream.start_time is not None), default=Fraction(0))
    return first if first > (0 if container.format.flags & MAY_JUMP else LATE) else Fraction(0)


def audio_info(stream: Any) -> AudioInfo:
    context = stream.codec_context
    start = (stream.start_time or 0) * stream.time_base
    duration = None if stream.duration is None else stream.duration * stream.time_base
    return AudioInfo(codec_name(context), context.sample_rate, context.layout.nb_channels, start, duration)


def codec_name(context: Any) -> str:
    """FFmpeg's name of the format, not of the decoder: mp3 rather than mp3float, av1 rather than libdav1d."""
    codec = context.codec
    return getattr(codec, "canonical_name", None) or codec.name.removesuffix("float").removeprefix("lib")
