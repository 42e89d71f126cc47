"""Places of clips: paths, folders of images, and files in memory."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, wraps
from os import PathLike
from pathlib import Path
from typing import IO, Any, TypeVar

import av
from av.stream import Disposition

from ..plurals import counted
from .errors import VideoError
from .playlists import demuxer_options, refuse_playlist
from .reading.stills import pictures_in

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})
VIDEO_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in """
        264 265 3g2 3gp apng asf avi divx dv f4v flv gif h264 h265 hevc ivf m2t m2ts m2v m4v mkv mod mov mp4 mpe mpeg mpg mts mxf ogv qt rm rmvb tod
        ts vob webm wmv wtv y4m
    """.split()  # noqa: SIM905
)
"""Suffixes of videos in a folder; a file named explicitly may have any suffix."""

NUMBER_FIELD = re.compile(r"%(?:0[0-9]*|[1-9])?d")
"""%d, %4d and %04d, the last two alike; not %20d, which is a URL-encoded space and a letter."""

Place = str | PathLike[str] | IO[bytes]
"""A path, or an open binary file such as BytesIO."""


MAX_PIXELS = 1 << 26
"""Limit of one frame unless FVR_MAX_PIXELS is set, twice 8K: a small file may claim any size, and a pixel takes 12 bytes."""


def check_pixels(name: str, width: int, height: int) -> None:
    """Raises VideoError for frames with too many pixels, before their memory is allocated."""
    most = max_pixels()
    if width * height > most:
        raise VideoError(
            f"{name} has pictures of {width}x{height}, which is more than {most:,} pixels; if that is meant and {width * height * 24 / 1e9:.0f} GB "
            f"are free, set FVR_MAX_PIXELS={width * height}"
        )


def max_pixels() -> int:
    given = os.environ.get("FVR_MAX_PIXELS", "")
    if given and not given.isdecimal():
        raise VideoError(f"FVR_MAX_PIXELS is a number of pixels, got {given!r}")
    return int(given or MAX_PIXELS)


def local(place: Any) -> Any:
    """The path of a file:// URL; other places unchanged.

    Raises:
        VideoError: for other URLs, remote hosts, an empty name, or - (standard input or output).
    """
    if place in ("", "-"):
        what = "an empty name was given" if not place else "- names what is piped, and clips are read and written with jumps to and fro"
        raise VideoError(f"{what}; name a file or a folder")
    address = re.fullmatch(r"([a-z][a-z0-9+.-]+)://([^/]*)(.*)", place, re.IGNORECASE | re.DOTALL) if isinstance(place, str) else None
    if address is None or Path(place).exists():
        return place
    scheme, machine, path = address.groups()
    if scheme.lower() != "file" or machine.lower() not in ("", "localhost"):
        raise VideoError(f"{place} is an address elsewhere, and nothing is fetched here; download it and name the file")
    path = path[1:] if re.match(r"/[a-z]:", path, re.IGNORECASE) else path  # /C:/clip.mp4
    return os.fsdecode(re.sub(rb"%([0-9a-fA-F]{2})", lambda digits: bytes.fromhex(digits[1].decode()), os.fsencode(path)))


def check_apart(output: str | PathLike[str], inputs: Iterable[str | PathLike[str]]) -> None:
    """Raises VideoError if the output would overwrite an input or one of its images, resolving links."""
    target = Path(local(output))
    names = image_names(target)
    for place in map(local, inputs):
        files = sequence_files(place) or [Path(place)]
        if names is None:
            lost = same(target, Path(place)) or any(same(target, file) for file in files)
        else:
            near = [file for file in (*files, *(file.resolve() for file in files)) if same(file.parent, names.folder)]
            lost = same(Path(place), names.folder) or any(names.field is None or names.number(file.name, re.IGNORECASE) is not None for file in near)
        if lost:
            raise VideoError(f"the output {target} exists and holds the input {place}, which would be lost; choose another name")


def same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def number_field(path: Path) -> re.Match[str] | None:
    """The number field of a pattern such as shot/%04d.png, None for other names. Raises VideoError for several fields."""
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return None
    fields = list(NUMBER_FIELD.finditer(path.name))
    if len(fields) > 1:
        raise VideoError(f"{path} has {len(fields)} places for a number; leave one, such as %04d")
    return fields[0] if fields else None


@dataclass(frozen=True)
class ImageNames:
    """The file names of a clip's images: 000000.png and so on in a folder, those of a pattern, or a single image's.

    Attributes:
        folder: that holds the images.
        before, after: the name's parts around the number; `after` is empty for a single image.
        width: minimum digits of the zero-padded number; None for a single image.
        field: the number field as written in a pattern; None for a plain folder.
    """

    folder: Path
    before: str
    width: int | None
    after: str
    field: str | None

    def name(self, number: int) -> str:
        return self.before if self.width is None else f"{self.before}{number:0{self.width}d}{self.after}"

    def fit(self, name: str, flags: int = 0) -> re.Match[str] | None:
        """Matches names of the sequence with any number width."""
        digits = "()" if self.width is None else "([0-9]+)"
        return re.fullmatch(f"{re.escape(self.before)}{digits}{re.escape(self.after)}", name, flags)

    def number(self, name: str, flags: int = 0) -> int | None:
        """Frame number of a file name; None if the sink would not write this name."""
        match = self.fit(name, flags)
        if match is None or self.width is None:
            return None if match is None else 0
        return int(match[1]) if match[1] == f"{int(match[1]):0{self.width}d}" else None

    @property
    def pattern(self) -> Path:
        return self.folder / (self.before if self.width is None else f"{self.before}{self.field or '%06d'}{self.after}")

    @property
    def suffix(self) -> str:
        return self.pattern.suffix.lower()


def image_names(target: Path) -> ImageNames | None:
    """Names of the images written to `target`, a folder (no suffix), pattern or image file; None for a video file."""
    if target.suffix.lower() in IMAGE_SUFFIXES and not target.is_dir():
        field = number_field(target)
        if field is None:
            return ImageNames(target.parent, target.name, None, "", "")
        return ImageNames(target.parent, target.name[: field.start()], int(field[0][1:-1] or 0), target.name[field.end() :], field[0])
    return None if target.suffix and not target.is_dir() else ImageNames(target, "", 6, ".png", None)


def hidden_prefix(name: str) -> str:
    """Prefix of temporary files beside `name`, within the byte limit of file names."""
    return f".{os.fsencode(name)[:64].decode('utf-8', 'ignore')}-"


STILL = Disposition.attached_pic | Disposition.timed_thumbnails


class FileView:
    """A view of an open file with its own position, so that several decoders can share it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.position = file, 0

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


def version_of(place: Place) -> tuple[int, int] | None:
    """Size and modification time of a file (ns); None in memory or if it is missing."""
    try:
        status = None if not isinstance(place, (str, PathLike)) else Path(place).stat()
    except OSError:
        return None
    return None if status is None else (status.st_size, status.st_mtime_ns)


Result = TypeVar("Result")


def once_per_version(read: Callable[[Place], Result]) -> Callable[[Place], Result]:
    """Decorates a function that reads a whole file: its result, which nobody may change, is remembered until the file changes."""
    known = lru_cache(maxsize=64)(lambda path, version: read(path))

    @wraps(read)
    def remembered(place: Place) -> Result:
        version = version_of(place)
        return read(place) if version is None else known(Path(place).absolute(), version)  # type: ignore[arg-type]

    return remembered


LENIENT = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
"""Tags that do not decode as text must not stop a clip; PyAV 19 dropped the option."""


def open_input(place: Place) -> Any:
    """Opens an `av` input container. Raises VideoError if the file is missing, a playlist, or not readable by FFmpeg."""
    name = place_name(place)
    if isinstance(place, (str, PathLike)):
        if not Path(place).exists():
            raise VideoError(f"{name} does not exist; check the path")
        if not Path(place).is_file():
            raise VideoError(f"{name} is a pipe or a device, and a clip is read several times, from its start; write it into a file and name that")
        handle: Any = str(Path(place).absolute())  # else FFmpeg takes what is before a colon for a protocol
    else:
        handle = FileView(place)
    try:
        container = av.open(handle, options=demuxer_options(place), **LENIENT)
        if more := better_options(container):
            container.close()
            handle = handle if isinstance(handle, str) else FileView(handle.file)
            container = av.open(handle, options={**demuxer_options(place), **more}, **LENIENT)
        return container
    except (av.FFmpegError, OSError) as error:
        refuse_playlist(place, name)
        raise VideoError(f"{name} cannot be read as a video ({ffmpeg_reason(error)}); it may be damaged, cut short or no video at all") from error


NO_TIMES = 0x80
"""FFmpeg's AVFMT_NOTIMESTAMPS: elementary streams such as .h264 and .m2v, for which it assumes 25 frames per second."""

MAX_STATED_RATE = 240
"""Frames per second; higher stated rates are clock ticks rather than frames."""


LATE_SOUND = {"analyzeduration": "60000000", "probesize": "100000000"}
"""Options with which FFmpeg looks for the first sound of an announced stream for 60 s or 100 MB; by default it looks for 7 s or 5 MB."""


def better_options(container: Any) -> dict[str, str]:
    """Options to open a file anew with: the frame rate that an elementary stream states, and a longer search for sound that begins late."""
    contexts = [stream.codec_context for stream in (*container.streams.video[:1], *container.streams.audio) if stream.codec_context is not None]
    options = LATE_SOUND if any(context.type == "audio" and not context.sample_rate for context in contexts) else {}
    rate = contexts[0].framerate if contexts and contexts[0].type == "video" and container.format.flags & NO_TIMES else None
    return options | ({"framerate": str(rate)} if rate and 1 <= rate <= MAX_STATED_RATE else {})


def picture_stream(container: Any) -> Any:
    """The main video stream: FFmpeg's choice, but never a cover picture or thumbnails; None if there is no other."""
    shown = [stream for stream in container.streams.video if not stream.disposition & STILL]
    if container.metadata.get("major_brand") == "avis":  # AVIF's animation, beside a still picture of it
        return max(shown, key=lambda stream: stream.frames, default=None)
    best = container.streams.best("video")
    return next((stream for stream in shown if best is not None and stream.index == best.index), shown[0] if shown else None)


def presentation_time(part: Any) -> Fraction | None:
    """Presentation time of a packet or frame in seconds; None if unknown."""
    return None if part.pts is None or part.time_base is None else part.pts * part.time_base


def duration_of(part: Any) -> Fraction:
    """Duration of a packet or frame in seconds; 0 if unknown."""
    return Fraction(0) if not part.duration or part.time_base is None else part.duration * part.time_base


def ffmpeg_reason(error: Exception) -> str:
    """FFmpeg's error message without errno and path."""
    return str(getattr(error, "strerror", None) or error).split(":")[0].lower()


def natural(path: Path) -> list[tuple[int, int | str]]:
    """Sort key that puts frame2 before frame10."""
    return [(0, int(part)) if part.isascii() and part.isdecimal() else (1, part.lower()) for part in re.split(r"([0-9]+)", path.name) if part]


def is_animation(file: Path) -> bool:
    """Whether an image file is an animated WebP or PNG, and so a clip of its own."""
    return file.suffix.lower() in (".webp", ".png") and file.is_file() and pictures_in(file.read_bytes()) > 1


def videos_in_folder(place: Place) -> list[Path]:
    """The videos and animations of a folder without still images, in natural order; empty for other places."""
    place = local(place)
    if not isinstance(place, (str, PathLike)) or not Path(place).is_dir():
        return []
    files = [file for file in Path(place).iterdir() if file.is_file() and not file.name.startswith(".")]
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not all(map(is_animation, images)):
        return []
    return sorted([*images, *(file for file in files if file.suffix.lower() in VIDEO_SUFFIXES)], key=natural)


def sequence_files(place: Place) -> list[Path] | None:
    """The images of a folder or of a pattern such as shot/%04d.png, in natural order, or a single image. None for a video.

    Raises:
        VideoError: if a folder or pattern has no images.
    """
    if not isinstance(place, (str, PathLike)):
        return None
    path = Path(place)
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")]
        files = [] if files and is_animation(files[0]) and videos_in_folder(path) else files
    elif path.is_file():
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            return None
        files = [path]
    elif number_field(path) and (names := image_names(path)):
        files = [file for file in path.parent.iterdir() if names.fit(file.name)] if path.parent.is_dir() else []
    else:
        return None
    if not files and (videos := videos_in_folder(path)):
        raise VideoError(
            f"{path} holds {counted(len(videos), 'video')} and no image; name one of them, such as {videos[0].name}, or restore the folder into one"
        )
    if not files:
        raise VideoError(f"{path} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}); check the path")
    return sorted(files, key=natural)
