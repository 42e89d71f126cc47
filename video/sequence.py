"""Clips stored as one image per frame."""

from __future__ import annotations

import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import partial
from io import BytesIO
from itertools import chain, count, islice, pairwise, takewhile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from ..plots import decode_pixels
from ..plurals import counted
from .errors import VideoError
from .files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Place, check_pixels, hidden_prefix, image_names
from .info import ColourTags, SourceInfo
from .pixels import depth
from .reading.probe import opaque, transparency_warning
from .reading.source import FrameSource, Selection, Timed
from .reading.stills import has_alpha, pictures_in
from .streams.companions import kept_companions
from .streams.sound import Sound
from .times import FrameTimes, nearest_rate
from .writing.leftovers import KEPT, SUFFIX, claim, keep, sweep
from .writing.publish import allow, writable

NUMBERED = re.compile(r"(.*?)([0-9]+)([^0-9]*)")

ORIENTATION = 0x112
STRUCTURAL = {*range(0x100, 0x104), 0x106, 0x111, *range(0x115, 0x118), *range(0x11A, 0x11D), 0x128, 0x13D, 0x140, *range(0x142, 0x146), 0x152, 0x153}
"""TIFF tags of the pixel layout (6.0, section 8)."""

DEEP = (".png", ".tif", ".tiff")
"""Suffixes of images that are written with 16 bits per channel."""

OLD = ".old"
"""Suffix of the hidden folder for replaced images."""


class SequenceSource(FrameSource):
    """Images of one size in natural order, each shown for 1 / rate seconds."""

    def __init__(self, place: Place, files: Sequence[Path], selection: Selection, rate: Fraction | float) -> None:
        self.place = place
        self.files = list(files)
        self.selection = selection
        self.warnings: list[str] = []
        self.transparent = False
        first = read_bytes(self.files[0])
        if len(self.files) == 1 and (count := pictures_in(first)) > 1:
            raise VideoError(f"{self.files[0]} holds {count} pictures, and of an image one is read; make it a folder of images first")
        self.info = probe_sequence(self.files, nearest_rate(rate), str(place))
        self.check_transparency(first, self.files[0])
        if Path(str(place)).is_dir() and (left := [file.name for file in Path(str(place)).iterdir() if file.suffix.lower() in VIDEO_SUFFIXES]):
            videos = counted(len(left), "video is", "videos are")
            self.warn(f"{place} is read as a sequence of images; its {videos} left out ({min(left)}); name videos one by one")
        if metadata := lost_metadata(first):
            self.warn(f"{self.files[0]} carries {' and '.join(metadata)}, which a copy will not have")
        if lack := missing(self.files):
            self.warn(f"{place} lacks {lack[0]} of its images, the first after {lack[1].name}; those that are there are shown one after the other")

    def numbered(self) -> Iterator[Timed]:
        times = ((number, number / self.info.rate) for number in range(len(self.files)))
        end = len(self.files) / self.info.rate
        for number, time in islice((timed for timed in times if self.selection.sees(timed[1], end)), self.selection.start, None):
            yield Timed(time, partial(self.picture, self.files[number]), time + 1 / self.info.rate)

    @property
    def numbers(self) -> list[int] | None:
        end, chosen = len(self.files) / self.info.rate, self.selection
        shown = [number for place, number in enumerate(numbers_in(self.files) or ()) if chosen.sees(place / self.info.rate, end)]
        return shown[chosen.start : chosen.limit : chosen.stride] or None

    def check_transparency(self, data: bytes, file: Path) -> None:
        """Warns of the first image with transparency."""
        if not self.transparent and has_transparency(data):
            self.transparent = True
            self.warn(transparency_warning(file))

    def picture(self, file: Path) -> Tensor:
        data = read_bytes(file)
        if pictures_in(data) > 1:
            self.warn(f"images of {self.place} hold several pictures each; the first of each is used")
        self.check_transparency(data, file)
        frame = read_image(data, file)
        if frame.shape[1:] != (self.info.height, self.info.width):
            raise VideoError(
                f"{file} is {frame.shape[2]}x{frame.shape[1]} but {self.files[0].name} is {self.info.width}x{self.info.height}; "
                "the images of a sequence must all have one size"
            )
        return frame


def probe_sequence(files: Sequence[Path], rate: Fraction, path: str) -> SourceInfo:
    pixels = load(read_bytes(files[0]), files[0])
    height, width = pixels.shape[:2]
    return SourceInfo(
        path=path,
        width=width,
        height=height,
        rate=rate,
        frame_estimate=len(files),
        duration=len(files) / rate,
        time_base=FrameTimes.constant(len(files), rate).time_base,
        colour=ColourTags(matrix=0, full_range=True),
        pix_fmt="rgb24" if pixels.dtype == np.uint8 else "rgb48",
        codec=files[0].suffix.lower().lstrip("."),
        is_sequence=True,
    )


def numbers_in(files: Sequence[Path]) -> list[int] | None:
    """The numbers in the names if they differ in nothing else and increase; else None."""
    parts = [NUMBERED.fullmatch(file.stem) for file in files]
    if len({(part[1], part[3], file.suffix) if part else None for part, file in zip(parts, files, strict=True)}) > 1:
        return None
    numbers = [int(part[2]) for part in parts if part]
    return numbers if numbers and all(now < after for now, after in pairwise(numbers)) else None


def missing(files: Sequence[Path]) -> tuple[int, Path] | None:
    """Number of missing images in a numbered sequence, and the file before the first gap; None if the numbers step evenly."""
    steps = [after - now for now, after in pairwise(numbers_in(files) or ())]
    least = min(steps, default=1)
    if any(step % least for step in steps) or max(steps, default=1) == least:
        return None
    return sum(step // least - 1 for step in steps), files[next(index for index, step in enumerate(steps) if step > least)]


def read_bytes(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""


def check_size(data: bytes, file: Path) -> None:
    """Raises VideoError if an image's header claims too many pixels."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(data)) as picture:
                size = picture.size
    except Image.DecompressionBombError:  # Pillow's own limit, 179 million pixels
        size = (2 * (Image.MAX_IMAGE_PIXELS or 0), 1)
    except (OSError, SyntaxError, ValueError):
        return  # what OpenCV cannot read either is said there
    check_pixels(str(file), *size)


def load(data: bytes, file: Path) -> Any:
    """(H, W, 3) BGR of dtype uint8, uint16 or float32, turned by the EXIF orientation; alpha is dropped."""
    check_size(data, file)
    pixels = decode_pixels(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16, np.float32):
        raise VideoError(f"{file} cannot be read as an image; it is damaged, or not a PNG, JPEG, WebP, TIFF or BMP file")
    return pixels


def lost_metadata(data: bytes) -> list[str]:
    """Descriptions of an image's metadata other than orientation."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(data)) as picture:
                tags = set(picture.getexif()) - {ORIENTATION}
                profile = picture.info.get("icc_profile") or b""
    except (OSError, SyntaxError, ValueError, KeyError, Image.DecompressionBombError):
        return []
    plain = b"sRGB" in profile or b"s\0R\0G\0B" in profile
    return ["a colour profile other than sRGB"] * bool(profile and not plain) + ["camera data (EXIF)"] * bool(tags - STRUCTURAL)


def has_transparency(data: bytes) -> bool:
    """Whether an image has an alpha channel that is not opaque everywhere."""
    if not has_alpha(data):
        return False
    pixels = decode_pixels(data, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 3 or pixels.shape[2] != 4:
        return False
    return bool(pixels[..., 3].min() < (1 if pixels.dtype == np.float32 else opaque(8 * pixels.itemsize)))


def read_image(data: bytes, file: Path) -> Tensor:
    """(3, H, W) float32 RGB in [0, 1]."""
    pixels = load(data, file)
    scale = 1.0 if pixels.dtype == np.float32 else float(np.iinfo(pixels.dtype).max)
    return torch.from_numpy(pixels[..., ::-1].astype(np.float32)).permute(2, 0, 1).contiguous().div_(scale).clamp_(0, 1)


def image_bytes(frame: Tensor, suffix: str, bits: int) -> bytes:
    """(3, H, W) in [0, 1] as the bytes of an image file with 8 or 16 bits per channel."""
    top, kind = ((1 << bits) - 1), (np.uint8 if bits == 8 else np.uint16)
    pixels = frame.clamp(0, 1).mul(top).round_().permute(1, 2, 0).numpy().astype(kind)[..., ::-1]
    options = {".jpg": [cv2.IMWRITE_JPEG_QUALITY, 97], ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 97], ".png": [cv2.IMWRITE_PNG_COMPRESSION, 3]}
    return cv2.imencode(suffix, np.ascontiguousarray(pixels), options.get(suffix, []))[1].tobytes()


class ImageSink:
    """Writes one image per frame; the images get their names only when the clip is complete.

    `path` is a folder (000000.png, ...), a pattern such as shot/%04d.tif whose folder is created, or an image file for a single frame. With
    `overwrite`, images of the same names are replaced, and those that continue their numbers without a gap, left by an earlier, longer clip,
    are removed. All other files stay, and so does the folder itself, which may be a link or mount.

    Args:
        bits: 8 or 16 per channel; None is 16 if `like` has more than 8 and the image format supports it.
        frames: expected number, if known; a single image takes one.
        numbers: frame numbers in the names; 0, 1, 2 and so on by default.
        sound: source of sound, which images lose, for the warning.

    Raises:
        VideoError: if a name is taken and `overwrite` is False, a plain folder holds other files than images, or `path` is a single image and
            `frames` is not 1.
    """

    def __init__(
        self,
        path: Path,
        like: SourceInfo | None = None,
        *,
        size: tuple[int, int] | None = None,
        bits: int | None = None,
        overwrite: bool = False,
        frames: int | None = None,
        numbers: Sequence[int] | None = None,
        sound: Sound | None = None,
    ) -> None:
        names = image_names(path)
        if names is None:
            raise VideoError(f"{path} is no name for images; name a folder, or a pattern such as {path.stem}_%04d.png")
        self.path, self.names, self.folder, self.suffix = path, names, names.folder, names.suffix
        self.numbers = numbers or ()
        deep = depth(like.pix_fmt) if like is not None else 8
        bits = bits or (16 if deep > 8 and self.suffix in DEEP else 8)
        if bits == 16 and self.suffix not in DEEP:
            raise VideoError(f"{self.suffix} images have 8 bits per channel; write 16 bits as .png or .tif")
        self.size, self.bits, self.overwrite = size, bits, overwrite
        self.warnings: list[str] = []
        self.length: Fraction | None = None
        """As in VideoSink; unused here."""
        if bits == 8 < deep:
            self.warnings.append(f"the source has {deep} bits per channel and {self.path} keeps 8; rgb48 in .png or .tif images keeps 16")
        kept_companions(like, sound, None, self.warnings.append, str(path))
        self.count, self.upcoming = 0, self.frame_names()
        self.check_count(frames)
        self.check_names()
        if names.width is None and not self.folder.is_dir():
            raise VideoError(f"{self.folder} is not a folder; make it first")
        if not self.folder.parent.is_dir():
            raise VideoError(f"{self.folder.parent} is not a folder; make it first")
        if names.width is not None and (others := self.other_images()):
            self.warnings.append(
                f"{self.folder} also holds {counted(len(others), 'other image')} ({others[0]}), which stay; read the frames as {names.pattern}"
            )
        home = self.folder if self.folder.exists() else self.folder.parent
        self.warnings += sweep(home)
        self.part: Path | None = self.hidden_folder(SUFFIX, home)
        self.unclaim = claim(self.part, self)

    def hidden_folder(self, suffix: str, where: Path) -> Path:
        """A new hidden folder for unfinished or replaced images, on the target's disk."""
        with writable(where):
            return Path(tempfile.mkdtemp(prefix=hidden_prefix(self.folder.name), suffix=suffix, dir=where.absolute()))

    def check_count(self, frames: int | None) -> None:
        if self.names.width is None and frames != 1:
            length = counted(frames, "frame") if frames else "perhaps more frames"
            raise VideoError(
                f"{self.path} names one image and the clip has {length}; name a folder, or a pattern such as {self.path.stem}_%04d{self.path.suffix}"
            )

    def check_names(self) -> None:
        """Raises VideoError if a name is taken, or a plain folder holds other files than images."""
        if not self.folder.exists():
            return
        if not self.folder.is_dir():
            raise VideoError(f"{self.folder} is no folder; name one for images, or a video file with a suffix such as .mp4")
        inside = self.inside()
        taken = sorted(file.name for file in inside if self.names.number(file.name) is not None)
        plain = self.names.field is None
        if (taken or (plain and inside)) and not self.overwrite:
            what = f"{self.path} already exists" if self.names.width is None else f"{self.folder} already holds {'files' if plain else taken[0]}"
            other = f"name another folder, a video file in it such as {self.folder / 'clip.mp4'}," if plain else "choose another name"
            raise VideoError(f"{what}; {other} or allow overwriting")
        if folders := [name for name in taken if (self.folder / name).is_dir()]:
            raise VideoError(f"{self.folder / folders[0]} is a folder where an image would go; choose another name")
        foreign = [file.name for file in inside if file.suffix.lower() not in IMAGE_SUFFIXES or not file.is_file()]
        if plain and foreign:
            raise VideoError(f"{self.folder} holds more than images ({sorted(foreign)[0]}); choose another folder")

    def inside(self) -> list[Path]:
        """Contents of the folder, without the hidden folders of sinks."""
        return [file for file in self.folder.iterdir() if not (file.name.startswith(".") and file.name.endswith((SUFFIX, KEPT, OLD)))]

    def frame_names(self) -> Iterator[str]:
        """The images' names in order, endless."""
        return map(self.names.name, chain(self.numbers, count(self.numbers[-1] + 1 if self.numbers else 0)))

    def earlier_frames(self) -> list[str]:
        """Existing images of these names, up to the first that is missing."""
        return [] if self.names.width is None else list(takewhile(lambda name: (self.folder / name).is_file(), self.frame_names()))

    def other_images(self) -> list[str]:
        """Other images that would be read with this clip's: all in a plain folder, those that match in a pattern's."""
        if not self.folder.is_dir():
            return []
        own, plain = set(self.earlier_frames()), self.names.field is None
        read = (file for file in self.inside() if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith("."))
        return sorted(file.name for file in read if file.name not in own and (plain or self.names.fit(file.name)))

    def write(self, frames: Tensor, starts: Sequence[Fraction] = (), ends: Sequence[Fraction] = (), stored: Sequence[Any] = ()) -> None:
        """Appends frames (n, 3, H, W) in [0, 1]; times are not kept, and `stored` is not needed for exact pixels."""
        if self.part is None:
            raise VideoError(f"{self.path} is already finished; open a new sink")
        self.size = self.size or (frames.shape[-2], frames.shape[-1])
        if frames.dim() != 4 or frames.shape[1] != 3 or tuple(frames.shape[-2:]) != tuple(self.size):
            raise VideoError(f"{self.path} takes frames (n, 3, {self.size[0]}, {self.size[1]}), got {tuple(frames.shape)}")
        self.check_count(self.count + len(frames))
        for frame in frames.detach().cpu():
            name = next(self.upcoming)
            try:
                (self.part / name).write_bytes(image_bytes(frame, self.suffix, self.bits))
            except OSError as error:
                raise VideoError(f"{self.folder / name} could not be written ({error.strerror or error}); make room and try again") from error
            self.count += 1

    def close(self) -> None:
        """Moves the images to their final names.

        Raises:
            VideoError: if no frame was written, or if the images cannot be moved, naming the hidden folder that keeps them.
        """
        if self.part is None:
            return
        if not self.count:
            self.abort()
            raise VideoError(f"{self.path} got no frame; write at least one")
        part, self.part = self.part, None
        try:
            self.check_names()
            if self.folder.exists():
                self.swap_in(part)
            else:
                allow(part, 0o777)
                part.replace(self.folder)
        except (VideoError, OSError) as error:
            raise VideoError(f"the images are complete but could not be put into {self.folder} ({error}); they are kept in {keep(part)}") from error
        except BaseException:  # a termination request: nothing is left
            shutil.rmtree(part, ignore_errors=True)
            raise
        finally:
            self.unclaim()

    def swap_in(self, part: Path) -> None:
        """Moves the images into an existing folder; replaced images are restored on failure and removed on success."""
        old = self.hidden_folder(OLD, self.folder)
        moved: list[tuple[Path, Path]] = []
        written = [file.name for file in sorted(part.iterdir())]
        replaced = [name for name in dict.fromkeys((*written, *self.earlier_frames())) if (self.folder / name).exists()]
        try:
            for source, target, names in ((self.folder, old, replaced), (part, self.folder, written)):
                for name in names:
                    (source / name).replace(target / name)
                    moved.append((source / name, target / name))
        except BaseException:
            for file, now in reversed(moved):
                with suppress(OSError):
                    now.replace(file)
            with suppress(OSError):
                old.rmdir()
            raise
        for done in (old, part):
            shutil.rmtree(done, ignore_errors=True)

    def abort(self) -> None:
        """Removes the unfinished images."""
        if self.part is not None:
            shutil.rmtree(self.part, ignore_errors=True)
            self.part = None
            self.unclaim()

    def __enter__(self) -> ImageSink:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close() if kind is None else self.abort()
