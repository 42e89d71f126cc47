"""Frame-exact reading of video files through FFmpeg, also of damaged ones."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, partial
from itertools import chain, islice
from typing import Any

import av
from av.video.frame import VideoFrame
from torch import Tensor

from ...plurals import counted
from ..errors import VideoError
from ..files import Place, duration_of, open_input, picture_stream, presentation_time, version_of
from ..pixels import letterboxed, to_tensor
from .fields import Deinterlacer, check_deinterlace
from .health import Health, readable
from .mpeg4_in_avi import with_presentation_times
from .probe import examine, is_transparent, limit_pixels, orientation, transparency_warning, truncation_warning
from .program_stream import timed_as_from_the_start
from .source import FrameSource, Selection, Timed
from .timestamp_discontinuity import RunningClock, can_seek, shares_times

MIN_SEEK_FRAMES = 64
"""Frames nearer to the start are reached by decoding instead of seeking."""

SEEK_BACK = (0, 2, 10)
"""Seconds before the first frame wanted that are sought one after the other, before all is decoded."""

DEINTERLACED = ("each frame becomes a whole one", "both fields of a frame become frames, at twice the rate")

LATE_ENDS = int(av.__version__.split(".")[0]) >= 19


class VideoSource(FrameSource):
    """A video file (or one in memory) as a stream of frames."""

    def __init__(self, place: Place, selection: Selection, deinterlace: str = "auto") -> None:
        check_deinterlace(deinterlace)
        self.place, self.deinterlace = place, deinterlace
        self.version = version_of(place)
        self.info, self.warnings = examine(place)
        self.selection = selection
        forced = deinterlace not in ("auto", "off", "fields")
        self.deinterlaced = deinterlace != "off" and (forced or self.info.interlaced)
        if self.info.interlaced or forced:
            self.warn(self.interlace_warning())
        if self.field_rate:
            frames, info = self.info.frame_estimate, self.info
            self.info = replace(info, rate=2 * info.rate, time_base=info.time_base / 2, frame_estimate=None if frames is None else 2 * frames)

    def numbered(self) -> Iterator[Timed]:
        wanted = self.selection.start
        window = self.selection.window
        if window is not None:
            yield from self.frames_in_window(*window, skip=wanted)
            return
        target = self.time_of(wanted) if wanted >= MIN_SEEK_FRAMES and not self.field_rate else None
        if target is not None:
            frames = self.sought(target)
            if (first := next(frames, None)) is not None and first.start == target:
                yield first
                yield from frames
                return
        yield from islice(self.decoded(), wanted, None)

    def sought(self, target: Fraction) -> Iterator[Timed]:
        """Frames that begin at `target` or later. In transport streams a seek lands behind the time asked for, and is tried again from earlier."""
        first = target - self.margin
        item: Timed | None = None
        far = target > self.info.start + MIN_SEEK_FRAMES / self.info.rate and self.can_seek
        for back in SEEK_BACK if far else ():
            frames = self.decoded(first - back)
            item = next(frames, None)
            if item is not None and item.start <= first:
                break
            frames.close()
            item = None
        else:
            frames = self.decoded()
        yield from (one for one in chain([] if item is None else [item], frames) if one.start >= target)

    def interlace_warning(self) -> str:
        """The warning about interlaced frames."""
        if self.deinterlace == "off":
            return f"{self.describe()} is interlaced, which its copy is not told to be; deinterlace it first, or its combs stay"
        named = "" if self.info.interlaced else "taken as "
        return f"{self.describe()} is {named}interlaced: {DEINTERLACED[self.deinterlace.startswith('fields')]} (bwdif)"

    @property
    def field_rate(self) -> bool:
        """Whether each packet gives two frames, one per field."""
        return self.deinterlaced and self.deinterlace.startswith("fields")

    @property
    def frame_length(self) -> Fraction:
        """Average duration of a packet's picture in seconds."""
        return (1 + self.field_rate) / self.info.rate

    @cached_property
    def margin(self) -> Fraction:
        """Seconds to decode before the first frame wanted: deinterlacing and concealment of damage use the previous frames."""
        with open_input(self.place) as container:
            alone = picture_stream(container).codec_context.codec.intra_only
        return (3 if self.deinterlaced else Fraction(3, 2) if alone else 0) / self.info.rate

    def frames_in_window(self, start: Fraction, duration: Fraction | None, skip: int) -> Iterator[Timed]:
        """Frames whose presentation begins in [start, start + duration)."""
        if start < 0:
            start = max(Fraction(0), self.info.origin + (self.info.duration or Fraction(0)) + start)
        start = start // self.info.time_base * self.info.time_base
        stop = start + duration if duration else None
        held: Timed | None = None
        for item in islice(self.sought(start), skip, None):
            if stop is not None and item.start >= stop:
                held = None if held is None else held._replace(end=item.start)
                break
            if held is not None:
                yield held
            held = item
        if held is not None:
            yield held

    @cached_property
    def can_seek(self) -> bool:
        with open_input(self.place) as container:
            return can_seek(container, self.place)

    def time_of(self, number: int) -> Fraction | None:
        """Presentation time of frame `number` by its packet, not counting packets before the first frame that decodes.

        None if packets have no times, or times are ambiguous.
        """
        if not self.can_seek:
            return None
        with open_input(self.place) as container:
            stream = picture_stream(container)
            ticks = []
            for packet in readable(with_presentation_times(container.demux(stream), stream)):
                if packet.size and not packet.is_discard:
                    if packet.pts is None:
                        return None
                    if packet.pts * stream.time_base >= self.info.start:
                        ticks.append(packet.pts)
            return sorted(ticks)[number] * stream.time_base if number < len(ticks) else None

    def decoded(self, seek_to: Fraction | None = None) -> Generator[Timed, None, None]:
        """All frames in presentation order, from the key frame before `seek_to`."""
        if version_of(self.place) != self.version:
            raise VideoError(f"{self.describe()} was changed since it was opened; give the same command again once it stays as it is")
        turn = self.info.rotation, self.info.mirrored
        with open_input(self.place) as container:
            stream = picture_stream(container)
            stream.thread_type = "AUTO"
            limit_pixels(stream)
            if seek_to is not None:
                with suppress(av.FFmpegError):  # a stream of JPEG pictures has no index and is read from its start
                    container.seek(int(seek_to / stream.time_base), stream=stream)
            shared = seek_to is not None and shares_times(container, self.place)
            health = Health(partial(timed_as_from_the_start, place=self.place)) if shared else Health()
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
            if version_of(self.place) != self.version:
                self.warn(f"{self.describe()} was changed while it was read, so what came of it may be of both versions")
            if held is not None:
                end = self.end_of(stream, last[0], last[1], not clock.jumps and (seek_to is not None or health.whole(stream)))
                yield Timed(*held, end)

    def timed_frames(self, frames: Iterator[VideoFrame], clock: RunningClock, last: list[Fraction]) -> Iterator[tuple[Fraction, VideoFrame]]:
        """Each decoded frame with its presentation time; `last` is set to the latest time and duration."""
        previous: Fraction | None = None
        for frame in frames:
            if self.deinterlace != "off" and frame.interlaced_frame and not self.info.interlaced:
                self.warn(f"{self.describe()} is interlaced in places: {DEINTERLACED[self.deinterlace.startswith('fields')]} (bwdif)")
            previous = self.start_of(frame, clock, previous)
            last[:] = previous, duration_of(frame)
            yield previous, frame

    def start_of(self, frame: Any, clock: RunningClock, previous: Fraction | None) -> Fraction:
        jumps = clock.jumps
        stated = presentation_time(frame)
        start = None if stated is None else clock(stated, duration_of(frame) or self.frame_length)
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
        """End of the stream if it was read whole, else of the last frame by its duration, or one frame after its start.

        From PyAV 19 on the stream's end may be too late if frames are reordered, so the earlier of the two is taken.
        """
        own = start + (length or self.frame_length)
        if whole and stream.duration is not None:
            end = ((stream.start_time or 0) + stream.duration) * stream.time_base
            if end > start:
                return min(end, own) if LATE_ENDS else end
        return own

    def picture(self, frame: VideoFrame, rotation: int, mirrored: bool) -> Tensor:
        """The upright tensor in the clip's size; frames of other sizes are letterboxed."""
        if frame.interlaced_frame:
            self.warn(self.interlace_warning())
        if transparency_warning(self.place) not in self.warnings and is_transparent(frame):
            self.warn(transparency_warning(self.place))
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
        return letterboxed(upright, size, float(turned))

    def report(self, health: Health, stream: Any, *, to_the_end: bool) -> None:
        if to_the_end and not health.delivered:
            raise VideoError(f"{self.describe()} holds no frame that decodes ({health.fault or 'it is empty'}); it is damaged")
        if health.fault or health.lost(stream, to_the_end) or (to_the_end and not health.whole(stream)):
            words = health.description(stream, to_the_end)
            self.warnings = [sentence for sentence in self.warnings if sentence != truncation_warning(self.place)]  # which this tells better
            self.warn(
                f"{self.describe()} is damaged or cut short: {words}; "
                f"the {counted(health.delivered, 'frame that decodes is', 'frames that decode are')} used"
            )


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoded frame that makes its upright tensor when called, by `rotation` and `mirrored`."""

    source: VideoSource
    frame: VideoFrame
    rotation: int
    mirrored: bool

    def __call__(self) -> Tensor:
        return self.source.picture(self.frame, self.rotation, self.mirrored)

    @property
    def stored(self) -> VideoFrame | None:
        """The frame itself, if it has the clip's size and orientation."""
        info = self.source.info
        like = (self.frame.height, self.frame.width) == info.stored_size and (self.rotation, self.mirrored) == (info.rotation, info.mirrored)
        return self.frame if like else None
