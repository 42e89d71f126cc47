"""What nodes pass on besides frames: VIDEO values, the workflow as metadata of a clip, and ComfyUI's execution blocker (`nothing`)."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

from . import comfyui
from .video_file import VideoFile


class Nothing:
    """What `nothing` gives where there is no ComfyUI; `fvr run` treats it as ComfyUI does its own."""


def nothing() -> Any:
    """For an output that has nothing to give, such as the crops of no faces: nodes that take it do not run, all others do.

    An IMAGE without frames would fail in whatever shows or saves it.
    """
    if not comfyui.inside_comfyui():
        return Nothing()
    blocker = getattr(importlib.import_module("comfy_execution.graph_utils"), "ExecutionBlocker", None)  # the other module imports much more
    return (blocker or importlib.import_module("comfy_execution.graph").ExecutionBlocker)(None)


def is_nothing(value: Any) -> bool:
    """Whether a value came from `nothing`, or is any other ExecutionBlocker of ComfyUI."""
    return type(value).__name__ in (Nothing.__name__, "ExecutionBlocker")


def graph_tags(hidden: Any) -> dict[str, str]:
    """What a saved clip tells of the graph that made it, as ComfyUI's own nodes do: dropped on the page it opens that graph again.

    Args:
        hidden: a node's `cls.hidden` with its prompt and extra_pnginfo, as far as they are there; None outside a graph.

    Returns:
        "prompt" and, from the page, "workflow" (and what else it sends along), each as JSON; nothing under --disable-metadata.
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
    """What to open behind a VIDEO input, a path or a BytesIO, and its window (start, duration) in seconds; duration 0: to the end.

    A video made of frames (see `video_components`) is encoded by ComfyUI for this, with loss.
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
