"""Compare Videos node."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import host
from ..headless.io import io, newer, ui
from ..host.images import from_image, to_image
from ..pipeline import CHUNK
from ..plurals import counted
from ..video import FrameTimes, open_sink
from ..video.comparison.compare import CompareOptions, compare_picture, compared_size, resize_warnings
from .choices import check_choice, choice_made
from .page.before_after import MAX_SIDE
from .page.people import page_files
from .sockets import ABSENT, CATEGORY, Times, first_fault
from .video import next_number

SOCKETS = "abcd"
TOO_FEW = "Compare Videos needs two clips, got one; wire a second to b, c or d"


def mode_input() -> Any:
    """One option per comparison mode, with its inputs."""
    period = io.Float.Input(
        "period", default=4.0, min=0.1, max=3600.0, step=0.1, tooltip="Seconds the line takes from the middle to the right, to the left and back."
    )
    gain = io.Float.Input(
        "gain",
        default=4.0,
        min=1.0,
        max=255.0,
        step=0.5,
        tooltip="What a difference is multiplied by before it becomes a colour; the brightest stands for 1 / gain.",
    )
    return io.DynamicCombo.Input(
        "mode",
        options=[io.DynamicCombo.Option("side_by_side", []), io.DynamicCombo.Option("split", [period]), io.DynamicCombo.Option("difference", [gain])],
        tooltip="side_by_side takes two to four clips; split (a moving line, a left of it) and difference (a heat map) take a and b.",
    )


class CompareVideos(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRCompareVideos",
            display_name="Compare Videos",
            category=f"{CATEGORY}/video",
            description="Shows clips side by side, split by a moving line, or their difference as a heat map, labelled. Save Video Frames writes the "
            "result, with the sound of the clip whose times are wired there.",
            search_aliases=["side by side", "before after", "split screen", "difference", "heat map", "a/b"],
            **newer(has_intermediate_output=True),
            inputs=[
                io.Image.Input("a", tooltip="The first clip; all others are resized to its size."),
                mode_input(),
                io.String.Input(
                    "labels",
                    default="before, after",
                    tooltip="One per clip in Latin letters, separated by commas; empty draws none. That of a clip that is not wired is left out.",
                ),
                io.Float.Input(
                    "frame_rate",
                    default=25.0,
                    min=0.01,
                    max=1000.0,
                    step=0.01,
                    tooltip="Frames per second, for the speed of the line; used only when no times are wired.",
                    advanced=True,
                ),
                io.Image.Input("b", optional=True, tooltip="The second clip, with as many frames. Two of the four are needed."),
                io.Image.Input("c", optional=True, tooltip="A third clip, for side_by_side."),
                io.Image.Input("d", optional=True, tooltip="A fourth clip, for side_by_side."),
                Times.Input(
                    "times", optional=True, tooltip="When each frame is shown, from Load Video Frames; steadies the line at a variable rate."
                ),
            ],
            outputs=[io.Image.Output("frames", tooltip="As many frames as went in, each a comparison.")],
        )

    @classmethod
    def validate_inputs(cls, a=None, mode=None, b=ABSENT, c=ABSENT, d=ABSENT):
        return first_fault(check_choice(cls, "mode", mode), TOO_FEW if b is c is d is ABSENT else True)

    @classmethod
    def execute(cls, a, b=None, mode=None, labels="before, after", frame_rate=25.0, c=None, d=None, times=None):
        clips = {name: clip for name, clip in zip(SOCKETS, (a, b, c, d), strict=True) if clip is not None}
        if len(clips) < 2:
            raise ValueError(TOO_FEW)
        check_lengths(clips, times)
        words = labels_of(labels, list(clips))
        chosen, values = choice_made(cls, "mode", mode)
        options = CompareOptions(chosen, words, **values)
        options.check(len(clips))
        shown = times or FrameTimes.constant(len(a), frame_rate)
        height, width = compared_size(a.shape[1], a.shape[2], len(clips), options)
        frames = torch.empty(len(a), height, width, 3, dtype=host.intermediate_dtype(), device=host.intermediate_device())
        with host.progress(len(a), "compare") as tick:
            for number, start in enumerate(shown.starts):
                moment = [from_image(clip[number : number + 1])[0] for clip in clips.values()]
                frames[number] = to_image(compare_picture(moment, float(start - shown.starts[0]), options)[None])[0]
                tick(1)  # no preview: it would stay below it
        lines = [f"{len(clips)} clips, {options.mode}, {counted(len(a), 'frame')} of {width} x {height}"]
        lines += resize_warnings([(name, (clip.shape[1], clip.shape[2])) for name, clip in clips.items()])
        return io.NodeOutput(frames, ui={"text": ("\n".join(lines),), **wipe_clips(list(clips.values())[:2], shown)})


def labels_of(text: str, clips: list[str]) -> tuple[str, ...]:
    """The labels of the wired clips, in order; if there are more labels than clips, they are those of a, b, c and d."""
    words = [label.strip() for label in text.split(",")] if text.strip() else []
    if len(clips) < len(words) <= len(SOCKETS):
        words = [word for word, name in zip(words, SOCKETS, strict=False) if name in clips]
    return tuple(words)


def wipe_clips(clips: list[Tensor], times: FrameTimes) -> dict[str, Any]:
    """Both clips as small video files with sound, for the page's wipe player (web/compare.js); empty without a page."""
    if not host.on_page():
        return {}
    files = {}
    with host.progress(len(times) * len(clips), "encode") as tick:
        for name, clip in zip(("a_video", "b_video"), clips, strict=True):
            height, width = (2 * max(1, round(side * min(1.0, MAX_SIDE / max(clip.shape[1:3])) / 2)) for side in clip.shape[1:3])
            path, subfolder, filename = host.next_output_path(f"fvr_compare/{name}", ".mp4", kind="temp")
            sound = times.source if times.source is not None and times.source.audio else None
            with open_sink(
                path, times.source, size=(height, width), crf=20, audio=sound, otherwise=next_number, check_interrupt=host.check_interrupt
            ) as sink:
                sink.length = times.duration
                for start in range(0, len(clip), CHUNK):
                    piece = slice(start, start + CHUNK)
                    frames = F.interpolate(from_image(clip[piece]), (height, width), mode="bilinear", antialias=True, align_corners=False)
                    sink.write(frames.clamp(0, 1), times.starts[piece], times.ends[piece])
                    tick(len(frames))
            files[name] = page_files([ui.SavedResult(filename, subfolder, io.FolderType.temp)])
    return files


def check_lengths(clips: dict[str, Tensor], times: FrameTimes | None) -> None:
    """Raises ValueError unless all clips and the times have as many frames as the first clip."""
    for name, clip in clips.items():
        if len(clip) != len(clips["a"]):
            raise ValueError(
                f"Compare Videos got {len(clip)} frames in {name} and {len(clips['a'])} in a; compare clips of one length, or take the first "
                f"{min(len(clip), len(clips['a']))} frames of each (max_frames of Load Video Frames)"
            )
    if times is not None and len(times) != len(clips["a"]):
        raise ValueError(
            f"Compare Videos got {len(clips['a'])} frames but times for {len(times)}; wire the times of the clip these frames came from, or none"
        )
