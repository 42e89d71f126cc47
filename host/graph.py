"""What nodes exchange with ComfyUI besides frames: VIDEO values, the workflow as a clip's metadata, and the execution blocker (`nothing`)."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

from . import comfyui
from .video_file import VideoFile


class Nothing:
    """The result of `nothing` without ComfyUI; `fvr run` treats it as ComfyUI treats its ExecutionBlocker."""


def nothing() -> Any:
    """The value of an empty output, such as the crops without a face: downstream nodes do not run, all others do.

    An IMAGE without frames would make preview and save nodes fail.
    """
    if not comfyui.inside_comfyui():
        return Nothing()
    blocker = getattr(importlib.import_module("comfy_execution.graph_utils"), "ExecutionBlocker", None)  # the other module imports much more
    return (blocker or importlib.import_module("comfy_execution.graph").ExecutionBlocker)(None)


def is_nothing(value: Any) -> bool:
    """Whether a value is `nothing` or another ExecutionBlocker of ComfyUI."""
    return type(value).__name__ in (Nothing.__name__, "ExecutionBlocker")


def graph_tags(hidden: Any) -> dict[str, str]:
    """The workflow as metadata of a saved clip, as ComfyUI's own nodes write it: dropping the clip on the page opens it.

    Args:
        hidden: a node's `cls.hidden`, which may have `prompt` and `extra_pnginfo`; None outside a graph.

    Returns:
        "prompt" and, from the page, "workflow" (and other extra_pnginfo), each as JSON; empty under --disable-metadata.
    """
    if comfyui.inside_comfyui():
        from comfy.cli_args import args

        if args.disable_metadata:
            return {}
    prompt = getattr(hidden, "prompt", None)
    tags = {**(getattr(hidden, "extra_pnginfo", None) or {}), **({"prompt": prompt} if prompt is not None else {})}
    return {str(name): json.dumps(value, default=str) for name, value in tags.items()}


def video_from_file(path: str | os.PathLike[str]) -> Any:
    """A value for a VIDEO output: ComfyUI's, else a `VideoFile`."""
    if not comfyui.inside_comfyui():
        return VideoFile(Path(path))
    from comfy_api.latest import InputImpl

    return InputImpl.VideoFromFile(os.fspath(path))


def video_source(video: Any) -> tuple[Any, tuple[float, float]]:
    """The path or BytesIO of a VIDEO input, and its window (start, duration) in seconds; a duration of 0 reaches to the end.

    ComfyUI encodes a video made of frames for this, lossily (see `video_components`).
    """
    window = getattr(video, "get_active_trim_window", None)
    if window is None:  # older hosts keep the window to themselves
        start, duration = (getattr(video, f"_{type(video).__name__}__{name}", 0.0) for name in ("start_time", "duration"))
        return video.get_stream_source(), (float(start), float(duration))
    return video.get_stream_source(), window()


def video_components(video: Any) -> Any:
    """The frames, rate and sound of a VIDEO that is held in memory (`.images`, `.frame_rate`, `.audio`), or None for one with a file.

    Opening such a video through `video_source` would compress it first; take its frames instead.
    """
    if not comfyui.inside_comfyui():
        return None
    from comfy_api.latest import InputImpl

    return video.get_components() if isinstance(video, InputImpl.VideoFromComponents) else None
