"""Nodes that load, retime and save clips; and inputs shared with other nodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import host
from ..headless.io import io, newer, ui
from ..host.images import from_image, to_image
from ..video import (
    CODECS,
    DEINTERLACE,
    AudioTrack,
    FrameSource,
    FramesSource,
    FrameTimes,
    ImageSink,
    Selection,
    SourceInfo,
    VideoSink,
    check_encoding,
    default_suffix,
    open_sink,
    open_source,
    read_audio,
    read_frames,
)
from ..video.streams.audio import track_of
from .sockets import ABSENT, CATEGORY, Times, check_text, optional


def file_input() -> Any:
    """The combo over the input folder's clips, with an upload button."""
    tooltip = "A clip in the input folder. Ignored when a video is wired."
    return io.Combo.Input("file", options=host.input_files("video"), upload=io.UploadType.video, tooltip=tooltip)


NO_CLIP = "no clip is chosen; upload one, set the input file, or wire a VIDEO"


def check_file(file: Any, video: object) -> bool | str:
    """Validates `file`, which must be a clip unless a VIDEO is wired. (At validation a wired input is None, an unwired one ABSENT.)"""
    if video is not ABSENT or file is None:
        return True
    if file is ABSENT or not file:
        return NO_CLIP
    return check_text(lambda name: open_source(host.resolve_input(name)), file=file)


def check_output(filename_prefix: Any, codec: Any, crf: Any, pixel_format: Any) -> bool | str:
    """Validates output name and encoding; wired inputs are None, as they are not known yet."""
    if (fine := check_text(filename_prefix=filename_prefix, codec=codec, pixel_format=pixel_format)) is not True:
        return fine
    try:
        if filename_prefix is not None:
            host.check_output(filename_prefix)
        if codec is not None and pixel_format is not None and isinstance(crf, (int, float)):  # ComfyUI reports any other crf
            check_encoding(codec, default_suffix(codec), crf=crf, pixel_format=None if pixel_format == "auto" else pixel_format)
    except ValueError as error:
        return host.user_message(str(error))
    return True


def source_of(
    file: str | None, video: object, *, start: int, count: int | None, stride: int, deinterlace: str
) -> tuple[FrameSource, AudioTrack | FrameSource]:
    """The clip of the VIDEO input, else of the file combo; and the source of its sound.

    Raises:
        ValueError: without either, or if frames, not a file, are to be deinterlaced.
    """
    if video is None:
        if not file:
            raise ValueError(NO_CLIP)
        source = open_source(host.resolve_input(file), start=start, count=count, stride=stride, deinterlace=deinterlace)
        return source, source
    if (parts := host.video_components(video)) is not None:
        if deinterlace not in ("auto", "off"):
            raise ValueError(f"deinterlace {deinterlace} needs a clip's file, and the wired VIDEO was made of frames; set it to auto")
        times = FrameTimes.constant(len(parts.images), parts.frame_rate)
        frames = FramesSource(from_image(parts.images), times, selection=Selection(start, None, stride, count), sound=sound_of(parts.audio))
        return frames, sound_of(parts.audio, float(start / times.rate)) or frames
    stream, window = host.video_source(video)
    source = open_source(stream, window=window, start=start, count=count, stride=stride, deinterlace=deinterlace)
    return source, source


def sound_of(audio: dict | None, skip: float = 0.0) -> AudioTrack | None:
    """ComfyUI's AUDIO, (1, C, S) or torchaudio's (C, S), without its first `skip` seconds."""
    if audio is None:
        return None
    rate, waveform = int(audio["sample_rate"]), audio["waveform"].float()
    return AudioTrack((waveform[0] if waveform.dim() > 2 else waveform)[..., round(skip * rate) :], rate)


RANGE = [
    ("start_frame", 0, 0, "First frame to take, counted from 0."),
    ("max_frames", 0, 0, "At most this many frames; 0 takes all."),
    ("every_nth", 1, 1, "Takes every n-th frame; the times of the frames taken are kept."),
]


def range_inputs() -> list:
    return [io.Int.Input(name, default=default, min=low, max=1_000_000, tooltip=tip) for name, default, low, tip in RANGE]


def deinterlace_input() -> Any:
    return io.Combo.Input(
        "deinterlace",
        options=list(DEINTERLACE),
        default="auto",
        tooltip="auto: frames marked interlaced become whole ones; fields: both fields of each become frames, at twice the rate; top, bottom, "
        "fields-top, fields-bottom: all frames, with that field first; off: combs stay.",
        advanced=True,
    )


def encoding_inputs() -> list:
    formats = dict.fromkeys(name for codec in CODECS.values() for name in codec.pixel_formats)
    return [
        io.Combo.Input("codec", options=list(CODECS), default="h264", tooltip="h264 plays everywhere; ffv1 is lossless; prores is for editors."),
        io.Int.Input("crf", default=17, min=0, max=63, tooltip="Quality; smaller is better and larger on disk. 17 looks lossless with h264."),
        io.Combo.Input(
            "pixel_format",
            options=["auto", *formats],
            default="auto",
            tooltip="auto is yuv420p, which plays in browsers (prores: yuv422p10le); 10-bit formats avoid banding.",
            advanced=True,
        ),
    ]


def sink_for(
    prefix: str, like: SourceInfo | None, *, size: tuple[int, int], codec: str, crf: int, pixel_format: str, audio: Any, metadata: Mapping[str, str]
) -> tuple[VideoSink | ImageSink, str]:
    """(sink, subfolder) of a new numbered file in the output folder; closing may raise the number in the sink's `path`."""
    path, subfolder, _ = host.next_output_path(prefix, default_suffix(codec), width=size[1], height=size[0])
    chosen = None if pixel_format == "auto" else pixel_format
    choices = dict(size=size, codec=codec, crf=crf, pixel_format=chosen, audio=audio, metadata=metadata)
    sink = open_sink(path, like, otherwise=next_number, check_interrupt=host.check_interrupt, **choices)
    return sink, subfolder


def show_warnings(*holders: FrameSource | VideoSink | ImageSink) -> None:
    """Shows the warnings known before the first frame is decoded."""
    if lines := [warning for holder in holders for warning in holder.warnings]:
        host.say("\n".join(lines))


def next_number(path: Path) -> Path:
    """The file after restored_00001_.mp4, if another job took that name meanwhile."""
    stem, number, _ = path.stem.rsplit("_", 2)
    return path.with_name(f"{stem}_{int(number) + 1:05}_{path.suffix}")


def video_preview(path: Path, subfolder: str) -> Any:
    """A node's preview of a clip in the output folder."""
    return ui.PreviewVideo([ui.SavedResult(path.name, subfolder, io.FolderType.output)])


class LoadVideoFrames(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRLoadVideoFrames",
            display_name="Load Video Frames",
            category=f"{CATEGORY}/video",
            description="Decodes a clip into frames with their exact times. Upright, in full-range RGB. For long clips use Restore Video.",
            search_aliases=["video to images", "import video", "decode video"],
            **newer(has_intermediate_output=True),
            inputs=[
                *optional(file_input(), *range_inputs(), deinterlace_input()),
                io.Video.Input("video", optional=True, tooltip="A clip from another node, instead of the file."),
            ],
            outputs=[
                io.Image.Output("frames", tooltip="All frames taken, one image batch."),
                Times.Output("times", tooltip="When each frame is shown, and what is known of the file: rotation, colours, sound."),
                io.Audio.Output("audio", tooltip="The sound that goes with the frames taken; nothing if the clip has none."),
                io.Float.Output("frame_rate", tooltip="Frames per second, on average."),
                io.Int.Output("frame_count", tooltip="How many frames there are."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file=ABSENT, video=ABSENT):
        return check_file(file, video)

    @classmethod
    def fingerprint_inputs(cls, file=None, **others):
        return host.file_fingerprint(file)

    @classmethod
    def execute(cls, file=None, start_frame=0, max_frames=0, every_nth=1, deinterlace="auto", video=None):
        source, sound = source_of(file, video, start=start_frame, count=max_frames or None, stride=every_nth, deinterlace=deinterlace)
        show_warnings(source)
        with host.progress(source.expected, "decode") as tick:
            frames, times = read_frames(source, on_frame=tick)
        track = track_of(sound) or read_audio(source, times, check_interrupt=host.check_interrupt)
        audio = {"waveform": track.waveform[None], "sample_rate": track.rate} if track else None
        damage = {"text": tuple(source.warnings)} if source.warnings else None
        return io.NodeOutput(to_image(frames), times, audio, float(times.rate), len(frames), ui=damage)


class RetimeFrames(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRRetimeFrames",
            display_name="Retime Frames",
            category=f"{CATEGORY}/video",
            description="Times for frames that a frame interpolation node has multiplied, so that Save Video Frames keeps length, sound and "
            "variable rate.",
            search_aliases=["frame interpolation times", "slow motion", "fps"],
            inputs=[
                Times.Input("times", tooltip="Of the frames before interpolation, from Load Video Frames."),
                io.Image.Input(
                    "frames",
                    tooltip="The frames after interpolation. Interpolation blends across a shot cut too: cut the clip there first if that shows.",
                ),
            ],
            outputs=[
                Times.Output("times", tooltip="When each of the interpolated frames is shown."),
                io.Int.Output("multiple", tooltip="How many frames each frame has become."),
            ],
        )

    @classmethod
    def execute(cls, times, frames):
        before, now = len(times), len(frames)
        multiple, left = divmod(now - 1, before - 1) if before > 1 else (1, now - 1)
        if left or multiple < 1:
            raise ValueError(
                f"Retime Frames got {now} frames for the times of {before}; interpolation makes a whole multiple of the gaps, "
                f"for example {max(1, 2 * (before - 1) + 1)}: wire the frames that come out of it"
            )
        return io.NodeOutput(times.interpolated(multiple), multiple)


class SaveVideoFrames(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRSaveVideoFrames",
            display_name="Save Video Frames",
            category=f"{CATEGORY}/video",
            description="Encodes frames into a clip in the output folder and plays it in the node. "
            "Wired times keep the timing, rotation, colours and sound of the source.",
            search_aliases=["images to video", "export video", "encode video", "video combine"],
            is_output_node=True,
            inputs=[
                io.Image.Input("frames", tooltip="The frames of the clip."),
                io.String.Input("filename_prefix", default="video/restored", tooltip="Where the file goes in the output folder; a number is added."),
                io.Float.Input(
                    "frame_rate", default=25.0, min=0.01, max=1000.0, step=0.01, tooltip="Frames per second; used only when no times are wired."
                ),
                *encoding_inputs(),
                Times.Input("times", optional=True, tooltip="From Load Video Frames: when each frame is shown."),
                io.Audio.Input("audio", optional=True, tooltip="Replaces the sound. With nothing wired the source's own sound is copied."),
            ],
            outputs=[io.Video.Output("video", tooltip="The file that was written."), io.String.Output("path", tooltip="Where it is.")],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix="video/restored", codec="h264", crf=17, pixel_format="auto"):
        return check_output(filename_prefix, codec, crf, pixel_format)

    @classmethod
    def execute(cls, frames, filename_prefix="video/restored", frame_rate=25.0, codec="h264", crf=17, pixel_format="auto", times=None, audio=None):
        pictures = from_image(frames)
        if times is None:
            times = FrameTimes.constant(len(pictures), frame_rate)
        if len(times) != len(pictures):
            raise ValueError(
                f"Save Video Frames got {len(pictures)} frames but times for {len(times)}; wire the times of the clip these frames came from, or none"
            )
        sound = sound_of(audio) or (times.source if times.source and times.source.audio else None)
        size = (pictures.shape[-2], pictures.shape[-1])
        encoding = dict(codec=codec, crf=crf, pixel_format=pixel_format)
        sink, subfolder = sink_for(filename_prefix, times.source, size=size, audio=sound, metadata=host.graph_tags(cls.hidden), **encoding)
        with sink, host.progress(len(pictures), "encode") as tick:
            show_warnings(sink)
            sink.length = times.duration
            for start in range(0, len(pictures), 16):
                piece = slice(start, start + 16)
                sink.write(pictures[piece], times.starts[piece], times.ends[piece])
                tick(len(pictures[piece]))
        path = Path(str(sink.path))
        said = {"text": tuple(sink.warnings)} if sink.warnings else {}
        return io.NodeOutput(host.video_from_file(path), str(path), ui={**video_preview(path, subfolder).as_dict(), **said})
