"""Folders without ComfyUI: those set by `workspace`, else the current directory, and the user's model folder."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

OWN_MODELS = "face_video_restoration"
MODEL_FOLDERS = (OWN_MODELS, "facerestore_models", "facedetection", "upscale_models", "checkpoints", "detection")
"""Ours first, then those of other packs with the same weights."""


@dataclass(frozen=True)
class Places:
    """The directories in force; None leaves the choice to the host or to `default`."""

    input: Path | None = None
    output: Path | None = None
    temp: Path | None = None


_places = Places()


@contextmanager
def workspace(
    input: str | os.PathLike[str] | None = None, output: str | os.PathLike[str] | None = None, temp: str | os.PathLike[str] | None = None
) -> Iterator[Places]:
    """Sets the input, output and temp directories of this process for a while; None keeps the one in force.

    Where ComfyUI's folder_paths is loaded it is told too, so that ComfyUI's own helpers write to the same place.
    """
    global _places
    before = _places
    given = {name: Path(path).expanduser().absolute() for name, path in (("input", input), ("output", output), ("temp", temp)) if path is not None}
    host_paths = sys.modules.get("folder_paths")
    host_before = {name: getattr(host_paths, f"{name}_directory") for name in given} if host_paths else {}
    _places = replace(before, **given)
    for name in host_before:
        setattr(host_paths, f"{name}_directory", str(given[name]))
    try:
        yield _places
    finally:
        _places = before
        for name, path in host_before.items():
            setattr(host_paths, f"{name}_directory", path)


def current(kind: str) -> Path | None:
    """The directory that `workspace` set for "input", "output" or "temp", if any."""
    return getattr(_places, kind)


def default(kind: str) -> Path:
    """./input if there is one, else the current directory; ./output; a folder below the system's temporary one."""
    if kind == "temp":
        return Path(tempfile.gettempdir()) / "face-video-restoration"
    folder = Path.cwd() / kind
    return Path.cwd() if kind == "input" and not folder.is_dir() else folder


def models_root() -> Path:
    """FVR_MODELS, else $XDG_CACHE_HOME or ~/.cache, then face-video-restoration/models."""
    if os.environ.get("FVR_MODELS"):
        return Path(os.environ["FVR_MODELS"]).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "face-video-restoration" / "models"


def model_folders() -> dict[str, list[Path]]:
    """The model folders below `models_root`, which may be flat (our files in it) or a ComfyUI models folder (one folder per name)."""
    root = models_root()
    own = [root / OWN_MODELS] if (root / OWN_MODELS).is_dir() else [root]
    return {name: own if name == OWN_MODELS else [root / name] for name in MODEL_FOLDERS}


def files_below(root: str | os.PathLike[str], suffixes: Collection[str], *, deep: bool = True, parents: tuple[str, ...] = ()) -> Iterator[str]:
    """Names of the files with these endings (lower case), relative to `root` with forward slashes.

    Links are followed, but no folder is entered from inside itself (`parents` are those being walked); what cannot be read
    is skipped.
    """
    here = os.path.realpath(root)
    if here in parents:
        return
    try:
        with os.scandir(root) as opened:
            entries = list(opened)
    except OSError:
        return
    for entry in entries:
        if os.path.isfile(entry.path):  # noqa: PTH113 (unlike Path.is_file and DirEntry.is_file it never raises)
            if os.path.splitext(entry.name)[1].lower() in suffixes:  # noqa: PTH122
                yield entry.name
        elif deep:
            yield from (f"{entry.name}/{name}" for name in files_below(entry.path, suffixes, parents=(*parents, here)))


def folder_fingerprint(folder: Path) -> tuple[str, int]:
    """A hash of the names, modification times and sizes of a folder's direct entries, and their number.

    Raises:
        OSError: if the folder cannot be read.
    """
    found = sorted((path.name, status.st_mtime_ns, status.st_size) for path in folder.iterdir() for status in (path.lstat(),))
    return hashlib.sha256(repr(found).encode("utf-8", "surrogatepass")).hexdigest(), len(found)


def annotated(name: str) -> tuple[str, str | None]:
    """("clip.mp4", "output") for "clip.mp4 [output]", and ("clip.mp4", None) without a place."""
    match = re.fullmatch(r"(.*?)\s*\[(input|output|temp)\]", name, re.DOTALL)
    return (match[1], match[2]) if match else (name, None)


MAX_NAME_BYTES = 200
"""Maximum bytes of a file or folder name: disks take 255, and a number and suffix are added."""


def check_prefix(prefix: str, root: Path) -> None:
    """Raises ValueError for a prefix without a file name, with too long a name, or that leads out of `root`."""
    try:
        fits = "\0" not in prefix and max(len(part.encode()) for part in prefix.replace("\\", "/").split("/")) <= MAX_NAME_BYTES
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise ValueError(f"file name prefix {prefix[:60]!r}... is no file's name; use letters, at most {MAX_NAME_BYTES} bytes between slashes")
    normal = Path(os.path.normpath(prefix))
    if not prefix.strip() or prefix.endswith(("/", os.sep)) or normal.name in ("", ".", ".."):
        raise ValueError(f"file name prefix {prefix!r} has no file name; use something like video/restored")
    places = (root / normal).resolve(), (root / normal.parent).resolve()  # "../output" is the root itself, but its files lie beside it
    if not all(place.is_relative_to(root.resolve()) for place in places):
        raise ValueError(f"file name prefix {prefix!r} leads out of {root}; use a name or a subfolder")


def next_number(prefix: str, root: Path, width: int = 0, height: int = 0) -> tuple[Path, str, int, str]:
    """(folder, stem, number, subfolder) of the next free <stem>_<number>_ in `root`; makes the folder."""
    now = time.localtime()
    words = {"width": str(width), "height": str(height), "year": str(now.tm_year)}
    words |= {name: f"{value:02}" for name, value in zip(("month", "day", "hour", "minute", "second"), now[1:6], strict=True)}
    for word, value in words.items():
        prefix = prefix.replace(f"%{word}%", value)
    relative = Path(os.path.normpath(prefix))
    folder = root / relative.parent
    folder.mkdir(parents=True, exist_ok=True)
    taken = re.compile(re.escape(relative.name) + r"_(\d+)_?(?:\..*)?")
    numbers = [int(match[1]) for path in folder.iterdir() if (match := taken.fullmatch(path.name))]
    subfolder = "" if relative.parent == Path() else relative.parent.as_posix()
    return folder, relative.name, max(numbers, default=0) + 1, subfolder
