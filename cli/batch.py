"""A folder of videos, one after the other: `fvr restore clips/ restored/`."""

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
    """Restores each clip into the folder `options.output`; one that fails is told and the others go on. Returns how many failed.

    Stopped, it reports those that are done; with `options.resume` it leaves them alone.

    Args:
        restore: restores one clip, as `options` with its own input, output and report say.

    Raises:
        ValueError: before any work, if an output is taken, lies over its input, or cannot be written or is not changed as the options say.
    """
    outputs = named_outputs(clips, Path(options.output), options.codec, options.overwrite or options.resume)
    for clip, output in zip(clips, outputs, strict=True):
        one = Namespace(**{**vars(options), "output": str(output)})
        check_used(one, clip)
        check_encoding(container=output.suffix, **{**encoding(one), "pixel_format": None})  # which may be one of the clip's own
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
    """A file in `folder` for each clip: its own name, with a suffix that the codec goes into; None takes what the suffix usually holds.

    Raises:
        VideoError: if `folder` is no name of a folder, a name is taken, or an output is a clip of the source.
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
    """The usual suffix of a codec, or .mkv for a clip that then keeps more of its sound, subtitles and so on."""
    usual = default_suffix(codec)
    with suppress(VideoError):  # what cannot be opened is told in its turn
        if len(losses_of(clip, "matroska")) < len(losses_of(clip, CONTAINERS[usual])):
            return ".mkv"
    return usual
