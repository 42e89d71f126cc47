"""Where clips come from and go to: paths, folders of images, and bytes in memory."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import IO, Any

import av
from av.stream import Disposition

from .errors import VideoError
from .playlists import demuxer_options, refuse_playlist

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})
NUMBER_FIELD = re.compile(r"%(?:0[0-9]*|[1-9])?d")
"""%d, %4d and %04d, the last two alike; %20d is a space in an encoded address and part of a name."""

Place = str | PathLike[str] | IO[bytes]
"""A path, or an open binary file such as BytesIO."""


def check_apart(output: str | PathLike[str], inputs: Iterable[str | PathLike[str]]) -> None:
    """Refuses an output that would replace what it is made from: the file, or the folder whose images give way to new ones.

    Raises:
        VideoError: if the output is there and one of the inputs, or a file of one lies in it, by whatever name.
    """
    target = Path(output)
    folder = image_folder(target)
    replaced = target if folder is None else folder
    if not replaced.exists():
        return
    for place in inputs:
        files = sequence_files(place) or [Path(place)]
        parts = files if folder is None else [Path(place), *{parent for file in files for parent in (file.parent, file.resolve().parent)}]
        if any(part.exists() and part.samefile(replaced) for part in parts):
            raise VideoError(f"the output {target} exists and holds the input {place}, which would be lost; choose another name")


def number_field(path: Path) -> re.Match[str] | None:
    """Where the frame's number goes in a pattern such as shot/%04d.png; None for other names.

    Raises:
        VideoError: if there are several such places.
    """
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return None
    fields = list(NUMBER_FIELD.finditer(path.name))
    if len(fields) > 1:
        raise VideoError(f"{path} has {len(fields)} places for a number; leave one, such as %04d")
    return fields[0] if fields else None


def numbered_name(path: Path, field: re.Match[str], number: int) -> str:
    """The pattern's name of one frame; a width pads with zeros."""
    width = int(field[0][1:-1] or 0)
    return f"{path.name[: field.start()]}{number:0{width}d}{path.name[field.end() :]}"


def image_folder(target: Path) -> Path | None:
    """The folder that images written as `target` go into: a folder, or a pattern's; None for a video file."""
    if target.is_dir():
        return target
    if target.suffix.lower() in IMAGE_SUFFIXES:
        return target.parent if number_field(target) else None
    return None if target.suffix else target


STILL = Disposition.attached_pic | Disposition.timed_thumbnails


class Window(io.RawIOBase):
    """An open file with a position of its own, so that several decoders can read the same bytes in memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.position = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        self.file.seek(self.position)
        data = self.file.read(size)
        self.position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self.position
        elif whence == io.SEEK_END:
            offset += self.file.seek(0, io.SEEK_END)
        self.position = offset
        return offset

    def tell(self) -> int:
        return self.position


def place_name(place: Place) -> str:
    return place_path(place) or "the video in memory"


def place_path(place: Place) -> str | None:
    return str(Path(place)) if isinstance(place, (str, PathLike)) else None


LENIENT = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
"""Tags that are no text must not stop a clip; PyAV 19 dropped the choice."""


def open_input(place: Place) -> Any:
    """An `av` input container.

    Raises:
        VideoError: if there is no such file, it is a list of other files, or FFmpeg finds no video in it.
    """
    name = place_name(place)
    if isinstance(place, (str, PathLike)):
        if not Path(place).exists():
            raise VideoError(f"{name} does not exist; check the path")
        handle: Any = str(Path(place).absolute())  # else FFmpeg takes what is before a colon for a protocol
    else:
        handle = Window(place)
    try:
        return av.open(handle, options=demuxer_options(place), **LENIENT)
    except (av.FFmpegError, OSError) as error:
        refuse_playlist(place, name)
        raise VideoError(f"{name} cannot be read as a video ({short(error)}); it may be damaged, cut short or no video at all") from error


def picture_stream(container: Any) -> Any:
    """The video stream that is the clip: FFmpeg's choice, but never a cover picture or thumbnails; None if there is no other."""
    shown = [stream for stream in container.streams.video if not stream.disposition & STILL]
    best = container.streams.best("video")
    return next((stream for stream in shown if best is not None and stream.index == best.index), shown[0] if shown else None)


def short(error: Exception) -> str:
    """FFmpeg's own words without its number and without the path, which our sentence already names."""
    return str(getattr(error, "strerror", None) or error).split(":")[0].lower()


def natural(path: Path) -> list[tuple[int, int | str]]:
    """Sorts frame2 before frame10."""
    return [(0, int(part)) if part.isascii() and part.isdecimal() else (1, part.lower()) for part in re.split(r"([0-9]+)", path.name) if part]


def sequence_files(place: Place) -> list[Path] | None:
    """The images of a folder, of a pattern such as shot/%04d.png, or one image; in natural order. None for a video.

    Raises:
        VideoError: if a folder or pattern holds no image.
    """
    if not isinstance(place, (str, PathLike)):
        return None
    path = Path(place)
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")]
    elif path.is_file():
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            return None
        files = [path]
    elif field := number_field(path):
        wanted = re.compile(f"{re.escape(path.name[: field.start()])}[0-9]+{re.escape(path.name[field.end() :])}")
        files = [file for file in path.parent.iterdir() if wanted.fullmatch(file.name)] if path.parent.is_dir() else []
    else:
        return None
    if not files:
        raise VideoError(f"{path} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}); check the path")
    return sorted(files, key=natural)
