"""Writing a clip in chunks; the file gets its name only when complete."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import av
import torch
import torch.nn.functional as F
from av.video.frame import VideoFrame
from torch import Tensor
from typing_extensions import Self

from ...atomic import DISK_FULL, fsync
from ..colour import LUMA_WEIGHTS, settled_matrix
from ..errors import VideoError
from ..files import Place, ffmpeg_reason
from ..info import UNSPECIFIED, ColourTags, SourceInfo
from ..pixels import RGB, is_rgb, same_planes, to_frame
from ..reading.source import FrameSource
from ..streams.audio import AudioTrack, Callbacks, Lane, no_check, open_lanes
from ..streams.companions import PLAIN_TAGS, Companions, SubtitleLane, add_attached, advance_timecode, kept_companions, moved_chapters
from ..streams.sound import file_of, sound_in
from .boxes import set_display
from .codecs import HDR, HDR_PARAMETERS, VideoCodec, lost_detail, storable_format
from .leftovers import claim, keep, sweep
from .publish import hidden_file, pour, publish
from .timeline import Timeline, choose_tick


@dataclass(frozen=True)
class Encoding:
    """How a clip is compressed; the fields are the choices of `open_sink`."""

    codec: VideoCodec
    container: str
    pixel_format: str
    crf: float = 17
    preset: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


class VideoSink:
    """A video file being written. As a context manager, it finishes the file on success and removes it on an exception.

    Attributes:
        path: final name, settled when the sink is closed; None for an open binary file.
        size: (H, W) of the upright frames; None until known.
        warnings: sentences about losses and changes.
        count: number of frames written.
        length: duration in seconds if shorter than `like`; chapters and subtitles end there.
    """

    def __init__(
        self,
        path: Path | None,
        file: IO[bytes] | None,
        encoding: Encoding,
        *,
        like: SourceInfo | None,
        size: tuple[int, int] | None,
        audio: AudioTrack | FrameSource | SourceInfo | Place | None,
        time_base: Fraction | None,
        overwrite: bool,
        otherwise: Callable[[Path], Path] | None = None,
        check_interrupt: Callable[[], object] = no_check,
    ) -> None:
        self.path, self.file = path, file
        self.encoding, self.like, self.size, self.time_base, self.overwrite = encoding, like, size, time_base, overwrite
        self.sound = sound_in(audio)
        source = audio if isinstance(audio, FrameSource) and audio.cut_short else None
        self.stops_early = source is not None
        self.otherwise = otherwise
        self.callbacks = Callbacks(check_interrupt, self.warn)
        self.warnings: list[str] = []
        self.count = 0
        self.pixel_format = ""
        askew = like is not None and (like.rotation != 0 or like.mirrored)
        self.turned = askew and encoding.container in ("mp4", "mov")
        if askew and not self.turned:
            self.warnings.append(f"{encoding.container} files cannot carry a rotation flag here, so the pixels were written upright")
        self.length = None if source is None else (source.expected or 0) * source.selection.stride / source.info.rate
        more = []
        if like is not None and like.grading is not None and encoding.codec.encoder() not in HDR_PARAMETERS:
            more.append(f"the HDR10 mastering display and light level, for which {encoding.codec.name} has no place here; h265 and av1 have")
        if like is not None and encoding.codec.name == "prores" and like.colour.transfer in HDR and not hasattr(VideoFrame, "color_trc"):
            more.append("that it is of high dynamic range, which only PyAV 17 and newer write into ProRes")
        self.companions = kept_companions(like, self.sound, encoding.container, self.warn, self.name, *more)
        if self.size is not None:
            self.choose_pixel_format()
        self.part: Path | None = self.temporary()
        self.warnings += sweep(self.part.parent)
        self.unclaim = claim(self.part, self)
        self.output: Any = None
        self.stream: Any = None
        self.lanes: list[Lane | SubtitleLane] = []
        self.attached: list[Any] = []
        self.timeline: Timeline | None = None

    def write(self, frames: Tensor, starts: Sequence[Fraction], ends: Sequence[Fraction], stored: Sequence[Any] = ()) -> None:
        """Appends frames.

        Args:
            frames: (n, 3, H, W) in [0, 1], upright.
            starts, ends: seconds, starts increasing over the whole clip. A frame lasts until the next one starts, the last
                one until its end.
            stored: decoded frames of `like`, None for changed ones; written losslessly if they have the output's format.

        Raises:
            VideoError: for frames of another size, times that do not increase, or encoder errors.
        """
        if self.part is None:
            raise VideoError(f"{self.name} is already finished; open a new sink")
        self.size = self.size or (frames.shape[-2], frames.shape[-1])
        if frames.dim() != 4 or frames.shape[1] != 3 or tuple(frames.shape[-2:]) != tuple(self.size):
            raise VideoError(f"{self.name} takes frames (n, 3, {self.size[0]}, {self.size[1]}), got {tuple(frames.shape)}")
        if not len(frames) == len(starts) == len(ends):
            raise VideoError(f"{self.name} needs one start and one end per frame, got {len(frames)} frames, {len(starts)} starts, {len(ends)} ends")
        if not len(frames):
            return
        try:
            if self.output is None:
                self.open(list(starts), list(ends))
            frames = frames.detach().cpu()
            for frame, start, end, own in zip(frames, starts, ends, stored or (None,) * len(frames), strict=True):
                self.encode(frame, start, end, own)
        except av.FFmpegError as error:
            raise self.refused(error, "written") from error

    def refused(self, error: av.FFmpegError | OSError, what: str) -> VideoError:
        """The error for a failure of encoder or disk."""
        if error.errno in DISK_FULL:
            return VideoError(f"{self.name} could not be {what}, as its disk is full; make room and give the same command again")
        if error.errno == errno.EFBIG:
            limit = "as its disk takes no file so large (FAT32: 4 GiB at most)"
            return VideoError(f"{self.name} could not be {what}, {limit}; choose a place on another disk, or a smaller file, as by a higher crf")
        return VideoError(f"{self.name} could not be {what} by {self.encoding.codec.name} ({ffmpeg_reason(error)})")

    def choose_pixel_format(self) -> None:
        """Chooses the pixel format by size, with warnings of losses."""
        assert self.size is not None
        like, encoding = self.like, self.encoding
        height, width = self.stored_size
        self.pixel_format = storable_format(encoding.codec, encoding.container, encoding.pixel_format, height, width)
        if self.pixel_format != encoding.pixel_format:
            self.warn(
                f"{width}x{height} has an odd side, so {encoding.codec.name} was written as {self.pixel_format} instead of {encoding.pixel_format}"
            )
        if like is not None and (loss := lost_detail(like, encoding.codec, self.pixel_format)):
            self.warn(loss)
        squeezes = encoding.container in ("matroska", "webm") and encoding.codec.name not in ("h264", "h265")  # theirs is in the stream itself
        if like is not None and like.sample_aspect != 1 and squeezes:
            self.warn(
                f"{encoding.codec.name} in {encoding.container} cannot carry here that pixels are {like.sample_aspect} as wide as high, so "
                "players show the picture squeezed; choose h264, h265, or an .mp4 or .mov file"
            )

    def open(self, starts: list[Fraction], ends: list[Fraction]) -> None:
        """Opens the encoder and writes the header, once size and clock are known."""
        assert self.size is not None
        like, encoding = self.like, self.encoding
        if not self.pixel_format:
            self.choose_pixel_format()
        origin = self.zero(starts[0])
        self.padded = encoding.codec.name in ("h264",) and "444" not in self.pixel_format
        self.colour, self.matrix = self.settled_colour()
        wanted = self.time_base or (None if like is None or like.is_sequence else like.time_base)
        tick = choose_tick([time - origin for time in (*starts, *ends)], wanted, fine=encoding.container in ("mp4", "mov"))
        self.timeline = Timeline(origin, tick)
        self.output = av.open(str(self.part), "w", format=encoding.container, options=self.muxer_options(tick))
        self.output.metadata.update(self.tags)
        self.stream = self.add_picture(like.rate if like is not None else 1 / (ends[0] - starts[0]), tick)
        if self.sound is not None:
            zero = like.origin if like is not None else Fraction(0)
            self.lanes += open_lanes(self.sound.at(starts[0]), encoding.container, self.output, origin - zero, starts[0] - origin, self.callbacks)
        self.add_companions(starts[0], origin)
        self.output.start_encoding()
        for packet in self.attached:
            self.output.mux(packet)

    def zero(self, start: Fraction) -> Fraction:
        """Source time in seconds that becomes 0 s of a file whose first frame starts at `start`."""
        like = self.like
        return start if like is not None and start != like.start else min(like.origin if like is not None else Fraction(0), start)

    def add_picture(self, rate: Fraction, tick: Fraction) -> Any:
        """Adds the video stream with its encoder."""
        like, encoding = self.like, self.encoding
        height, width = self.stored_size
        encoder = encoding.codec.encoder()
        if encoder == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")
        options = encoding.codec.options(encoder, encoding.crf, encoding.preset, self.pixel_format, None if like is None else like.grading)
        stream = self.output.add_stream(encoder, rate=rate.limit_denominator(1001), options=options)
        context = stream.codec_context
        context.width, context.height = (width + width % 2, height + height % 2) if self.padded else (width, height)
        context.pix_fmt = self.pixel_format
        context.time_base = stream.time_base = tick
        context.colorspace, context.color_range = self.colour.matrix, 2 if self.colour.full_range else 1
        context.color_primaries, context.color_trc = self.colour.primaries, self.colour.transfer
        if encoder == "libx264":
            context.thread_type = "FRAME"  # PyAV's default, slices, compresses worse
        if encoding.codec.name == "h265" and encoding.container != "matroska":
            context.codec_tag = "hvc1"
        if like is not None and like.sample_aspect != 1:
            context.sample_aspect_ratio = self.stored_aspect
        return stream

    def add_companions(self, start: Fraction, origin: Fraction) -> None:
        """Adds chapters, subtitles and timecode; the first frame is at `start` (source seconds)."""
        companions, like = self.companions, self.like
        if like is None or companions == Companions():
            return
        self.stream.metadata.update(companions.picture)
        if companions.timecode:
            self.output.metadata["timecode"] = advance_timecode(companions.timecode, round((start - like.start) * like.rate), like.rate)
        if companions.chapters and hasattr(self.output, "set_chapters"):
            length = self.length if self.length is not None else None if like.duration is None else like.duration + like.start - origin
            self.output.set_chapters(moved_chapters(companions.chapters, origin, length))
        if (place := file_of(like)) is not None:
            self.attached = add_attached(place, self.encoding.container, self.output)
            self.lanes += [SubtitleLane(place, index, self.output, origin, self.length) for index in companions.taken(self.encoding.container)]

    @property
    def tags(self) -> dict[str, str]:
        """Tags of the source and those requested."""
        return {**self.companions.tags, **self.encoding.metadata}

    def warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def lossless_frame(self, stored: Any) -> VideoFrame | None:
        """A copy of a decoded frame's planes; None if its format, orientation or colours differ from this file's."""
        like = self.like
        if stored is None or like is None or stored.format.name != self.pixel_format or (stored.height, stored.width) != self.stored_size:
            return None
        turned = (like.rotation or like.mirrored) and not self.turned
        coded = self.stream.codec_context.height, self.stream.codec_context.width
        matrix = like.colour.matrix if like.colour.matrix == RGB else settled_matrix(like.colour, *like.stored_size)
        if turned or coded != self.stored_size or matrix != self.matrix or bool(like.colour.full_range) != bool(self.colour.full_range):
            return None
        return same_planes(stored, self.colour)

    def encode(self, frame: Tensor, start: Fraction, end: Fraction, stored: Any = None) -> None:
        assert self.timeline is not None
        self.callbacks.check_interrupt()
        tick = self.timeline.place(start, end, f"{self.name}: frame {self.count}")
        picture = self.lossless_frame(stored) or self.stored_form(frame)
        picture.pts, picture.time_base = tick, self.timeline.tick
        self.mux(self.stream.encode(picture))
        self.count += 1
        for lane in self.lanes:
            lane.pump(tick * self.timeline.tick)

    def stored_form(self, frame: Tensor) -> VideoFrame:
        """(3, H, W) upright to a stored frame."""
        if self.turned and self.like is not None:
            frame = frame.flip(-1) if self.like.mirrored else frame
            frame = torch.rot90(frame, -self.like.rotation // 90, (-2, -1))
        if self.padded:
            frame = F.pad(frame[None], (0, frame.shape[-1] % 2, 0, frame.shape[-2] % 2), mode="replicate")[0]
        return to_frame(frame, self.pixel_format, self.colour, self.matrix)

    def close(self) -> None:
        """Finishes the file and moves it to its final name.

        Raises:
            VideoError: if no frame was written, the file could not be finished, or it could not be renamed; then it names the
                hidden file that is kept.
        """
        if self.part is None:
            return
        try:
            if self.timeline is None or self.timeline.last is None:
                raise VideoError(f"{self.name} got no frame; write at least one")
            self.finish(self.timeline)
            self.settle()
        except av.FFmpegError as error:
            self.abort()
            raise self.refused(error, "finished") from error
        except BaseException:
            self.abort()
            raise
        part, self.part = self.part, None
        try:
            if self.path is not None:
                self.path = self.publish(part)
            elif self.file is not None:
                pour(part, self.file)
        except OSError as error:
            reason = "it appeared while it was being written" if isinstance(error, FileExistsError) else error
            raise VideoError(f"{self.name} is complete but could not be given its name ({reason}); it is kept as {keep(part)}") from error
        except BaseException:  # a termination request: nothing is left, neither hidden nor half named
            part.unlink(missing_ok=True)
            raise
        finally:
            self.unclaim()

    def settle(self) -> None:
        """Flushes the file to disk before it is renamed and its job removed; network disks report only now that they are full."""
        assert self.part is not None
        try:
            fsync(self.part, os.O_RDWR)
        except OSError as error:
            raise self.refused(error, "finished") from error

    def temporary(self) -> Path:
        """A new temporary file to write into."""
        return hidden_file(self.path, self.overwrite)

    def publish(self, part: Path) -> Path:
        """Moves the finished file to its name; returns the path."""
        assert self.path is not None
        return publish(part, self.path, self.overwrite, self.otherwise)

    def mux(self, packets: Sequence[Any]) -> None:
        """Writes video packets."""
        assert self.timeline is not None
        self.timeline.mux(packets, self.output)

    def flush(self) -> None:
        """Flushes the encoder."""
        for packet in self.stream.codec_context.encode_lazy(None):
            self.callbacks.check_interrupt()
            packet.stream = self.stream
            self.mux([packet])

    def finish(self, timeline: Timeline) -> None:
        assert self.part is not None
        self.flush()
        last = timeline.finish(self.output, exact=self.encoding.container in ("mp4", "mov"))
        end = last - timeline.origin if self.cuts_audio(last) else None
        for lane in self.lanes:
            lane.finish(end)
        self.release()
        height, width = self.stored_size
        if self.turned or (self.padded and (height % 2 or width % 2)):
            rotation, mirrored = (self.like.rotation, self.like.mirrored) if self.turned and self.like is not None else (0, False)
            set_display(self.part, rotation=rotation, mirrored=mirrored, size=(height, width), aspect=float(self.stored_aspect))

    def cuts_audio(self, end: Fraction) -> bool:
        """Whether sound is cut at the picture's end: for an AudioTrack, or if the frames end before `like`."""
        if self.stops_early or (self.sound is not None and self.sound.track is not None):
            return True
        like = self.like
        return like is not None and like.duration is not None and end < like.start + like.duration - 1 / like.rate

    def release(self) -> None:
        output, self.output = self.output, None
        lanes, self.lanes = self.lanes, []
        try:
            if output is not None:
                output.close()
        finally:
            for lane in lanes:
                lane.close()

    def abort(self) -> None:
        """Removes the unfinished file."""
        if self.part is None:
            return
        part, self.part = self.part, None
        with suppress(av.FFmpegError, OSError, ValueError):
            self.release()
        part.unlink(missing_ok=True)
        self.unclaim()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close() if kind is None else self.abort()

    @property
    def name(self) -> str:
        return str(self.path) if self.path is not None else "the video in memory"

    @property
    def stored_size(self) -> tuple[int, int]:
        assert self.size is not None
        height, width = self.size
        return (width, height) if self.turned and self.like is not None and self.like.rotation % 180 else (height, width)

    @property
    def stored_aspect(self) -> Fraction:
        if self.like is None:
            return Fraction(1)
        return 1 / self.like.sample_aspect if self.turned and self.like.rotation % 180 else self.like.sample_aspect

    def settled_colour(self) -> tuple[ColourTags, int]:
        """Tags to write and the matrix to compute with.

        An unstated matrix stays unstated as long as players will guess the same one at the new size.
        """
        assert self.size is not None
        height, width = self.stored_size
        if self.like is not None and is_rgb(self.pixel_format):
            return ColourTags(RGB, True, self.like.colour.primaries, self.like.colour.transfer), RGB
        if self.like is None or self.like.colour.matrix not in (*LUMA_WEIGHTS, UNSPECIFIED):
            return ColourTags(1, False, 1, 1), 1
        tags, (old_height, old_width) = self.like.colour, self.like.stored_size
        matrix = settled_matrix(tags, old_height, old_width)
        full = bool(tags.full_range) or self.like.pix_fmt.startswith("yuvj")
        stated = tags.matrix if settled_matrix(tags, height, width) == matrix else matrix
        return ColourTags(stated, full, tags.primaries, tags.transfer), matrix

    def muxer_options(self, tick: Fraction) -> dict[str, str]:
        if self.encoding.container not in ("mp4", "mov"):
            return {}
        ticks = str(tick.denominator)
        flags = "+faststart" if all(name.lower() in PLAIN_TAGS for name in self.tags) else "+faststart+use_metadata_tags"
        return {"movflags": flags, "movie_timescale": ticks, "video_track_timescale": ticks}
