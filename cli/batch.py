"""Batch restoration of a folder of videos: `fvr restore clips/ restored/`."""

from __future__ import annotations

import json
import os
import tempfile
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import host
from ..plurals import counted
from ..video import CODECS, CONTAINERS, VideoError, check_apart, check_encoding, default_codec, default_suffix
from ..video.streams.companions import losses_of
from .clips import check_used, encoding


def restore_each(options: Namespace, clips: Sequence[Path], restore: Callable[[Namespace], int]) -> int:
    """Restores each clip into the folder `options.output`; a failure is reported and the others go on. Returns the number of failures.

    When interrupted it reports the finished clips; with `options.resume` it skips them.

    Args:
        restore: restores one clip; gets `options` with that clip's input, output and report.

    Raises:
        ValueError: before any work, if an output exists, would overwrite its input or cannot be written, or if an option would have no effect.
    """
    outputs = named_outputs(clips, Path(options.output), options.codec, options.overwrite or options.resume)
    for clip, output in zip(clips, outputs, strict=True):
        one = Namespace(**{**vars(options), "output": str(output)})
        check_used(one, clip)
        check_encoding(container=output.suffix, **{**encoding(one), "pixel_format": None})  # depends on the clip
    Path(options.output).mkdir(exist_ok=True)
    reports: list[dict[str, Any]] = []
    try:
        with tempfile.TemporaryDirectory(prefix="fvr-") as notes:
            for number, (clip, output) in enumerate(zip(clips, outputs, strict=True)):
                host.say(f"{number + 1} of {len(clips)}: {clip}")
                if options.resume and os.path.lexists(output):
                    reports.append({"input": str(clip), "output": str(output), "skipped": True})
                    host.say(f"{output} is there already and stays as it is")
                    continue
                note = Path(notes) / f"{number}.json"
                try:
                    job = options.job and str(Path(options.job) / output.name)
                    restore(Namespace(**{**vars(options), "input": str(clip), "output": str(output), "report": str(note), "job": job}))
                    reports.append(json.loads(note.read_text(encoding="utf-8")))
                except (ValueError, OSError, RuntimeError) as error:
                    if options.debug:
                        raise
                    reports.append({"input": str(clip), "output": str(output), "error": str(error)})
                    host.say(f"{clip} failed: {error}")
    except BaseException:
        host.say(f"{len(reports)} of {counted(len(clips), 'clip')} are done; the same command with --resume goes on")
        raise
    finally:
        failed = sum("error" in one for one in reports)
        if options.report:
            whole = {"input": str(options.input), "output": str(options.output), "failed": failed, "clips": reports}
            Path(options.report).write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return failed


def named_outputs(clips: Sequence[Path], folder: Path, codec: str | None, overwrite: bool) -> list[Path]:
    """An output file in `folder` for each clip: its name, with a suffix whose container supports the codec; None for the suffix's default codec.

    Raises:
        VideoError: if `folder` is not a valid folder name, an output exists, or an output is one of the inputs.
    """
    if folder.suffix.lower() in CONTAINERS or folder.is_file() or not folder.parent.is_dir():
        raise VideoError(
            f"{clips[0].parent} holds {counted(len(clips), 'video')}; name a folder for their copies, in a folder that is there, got {folder}"
        )
    taken: dict[str, Path] = {}
    for clip in clips:
        suffix = clip.suffix.lower()
        chosen = codec or default_codec(clip)
        fits = chosen in CODECS and suffix in CONTAINERS and CONTAINERS[suffix] in CODECS[chosen].containers
        suffix = suffix if fits else suffix_for(clip, chosen)
        name = clip.stem + suffix
        taken[name if name.lower() not in map(str.lower, taken) else clip.name + suffix] = clip
    outputs = [folder / name for name in taken]
    for output in outputs:
        check_apart(output, clips)
        if os.path.lexists(output) and not overwrite:
            raise VideoError(f"{output} already exists; choose another folder, allow overwriting, or leave such clips alone with --resume")
    return outputs


def suffix_for(clip: Path, codec: str) -> str:
    """The default suffix of a codec, or .mkv where that keeps more of the clip's audio, subtitles and other streams."""
    usual = default_suffix(codec)
    with suppress(VideoError):  # unreadable clips are reported when they are restored
        if len(losses_of(clip, "matroska")) < len(losses_of(clip, CONTAINERS[usual])):
            return ".mkv"
    return usual
