"""Training pairs for fine-tuning: degraded crops and their targets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..methods.base import SQUARE, check_square, resized
from ..plots import decode_image
from ..video.files import IMAGE_SUFFIXES

INPUTS, TARGETS = "inputs", "targets"
"""Sub-folders of a folder of pairs; a pair has the same file name in both."""
UNREADABLE = "is not a picture that can be read; remove it, with its partner if it has one, or convert it to PNG"
MIN_PAIRS = 4
MAX_BYTES_IN_MEMORY = 4 << 30


class Pairs:
    """Inputs and targets (3, S, S) uint8, in memory or, where they are too many, on disk.

    Args:
        inputs, targets: uint8, of equal number; a tensor (N, 3, S, S) or a sequence of (3, S, S).
        digest: see `digest_of`, which makes it unless given.

    Raises:
        ValueError: for different numbers, or fewer pairs than can be split.
    """

    def __init__(self, inputs: Sequence[Tensor] | Tensor, targets: Sequence[Tensor] | Tensor, digest: str = "") -> None:
        if len(inputs) != len(targets):
            raise ValueError(
                f"every input has one target, got {len(inputs)} inputs and {len(targets)} targets; wire both from the same frames, in the same order"
            )
        if len(inputs) < MIN_PAIRS:
            raise ValueError(f"fine-tuning takes at least {MIN_PAIRS} pairs, some of which are held out, got {len(inputs)}; give more frames")
        self.inputs, self.targets = inputs, targets
        self.digest = digest or digest_of(inputs, targets)

    @classmethod
    def of_images(cls, inputs: Tensor, targets: Tensor, side: int) -> Pairs:
        """From crops (N, 3, H, W) in [0, 1], resized to side x side as restorers do."""
        return cls(as_bytes(inputs, side), as_bytes(targets, side))

    @classmethod
    def of_folder(cls, folder: Path, side: int, in_memory: int = MAX_BYTES_IN_MEMORY) -> Pairs:
        """From a folder with inputs/NAME.png and targets/NAME.png.

        Raises:
            ValueError: if a folder, a picture or its partner is missing, or a picture is not square.
        """
        found = {part: _pictures(folder / part) for part in (INPUTS, TARGETS)}
        alone = sorted(found[INPUTS].keys() ^ found[TARGETS].keys())
        if alone:
            raise ValueError(
                f"{folder} holds {len(alone)} pictures without a partner ({alone[0]} first); {INPUTS} and {TARGETS} need the same file names"
            )
        paths = [[found[part][name] for name in sorted(found[part])] for part in (INPUTS, TARGETS)]
        stored: list[Sequence[Tensor]] = [ImageFiles(half, side) for half in paths]
        digest = digest_of(*stored)
        if 2 * len(paths[0]) * 3 * side**2 <= in_memory:
            stored = [list(half) for half in stored]
        return cls(stored[0], stored[1], digest)

    def __len__(self) -> int:
        return len(self.inputs)

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """Input and target `index`, (3, S, S) float32 in [0, 1]."""
        return self.inputs[index].float() / 255, self.targets[index].float() / 255


class ImageFiles(Sequence[Tensor]):
    """Pictures (3, side, side) uint8, decoded on access. Their headers are checked at once.

    Raises:
        ValueError: for a file that is no picture, or one that is not square.
    """

    def __init__(self, paths: Sequence[Path], side: int) -> None:
        self.paths, self.side = paths, side
        for path in paths:
            try:
                with Image.open(path) as picture:
                    width, height = picture.size
            except (UnidentifiedImageError, Image.DecompressionBombError) as error:
                raise ValueError(f"{path} {UNREADABLE}") from error
            if width != height:
                raise ValueError(f"{path} is {width} x {height} pixels, but {SQUARE}")

    def __len__(self) -> int:
        return len(self.paths)

    def digests(self) -> Iterator[bytes]:
        """The SHA-256 of each file."""
        for path in self.paths:
            yield hashlib.sha256(path.read_bytes()).digest()

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return ImageFiles(self.paths[index], self.side)
        return read_picture(self.paths[index], self.side)


def digest_of(*parts: Sequence[Tensor] | Tensor) -> str:
    """SHA-256 over all pixels, or over the files' bytes for pictures on disk. One picture at a time is in memory."""
    digest = hashlib.sha256()
    for part in parts:
        for piece in part.digests() if hasattr(part, "digests") else (picture.contiguous().numpy().tobytes() for picture in part):
            digest.update(piece)
    return digest.hexdigest()


def as_bytes(images: Tensor, side: int) -> Tensor:
    """(N, 3, S, S) in [0, 1] to (N, 3, side, side) uint8, resized as restorers do; one at a time, to save memory.

    Raises:
        ValueError: if they are not square RGB pictures.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"pictures to learn from are (N, 3, S, S), got {tuple(images.shape)}")
    check_square(images)
    return torch.stack([(resized(image[None].float(), side, "bilinear")[0].clamp(0, 1) * 255 + 0.5).to(torch.uint8) for image in images])


def read_picture(path: Path, side: int) -> Tensor:
    """A picture file as (3, side, side) uint8 RGB. Raises ValueError if it cannot be read."""
    picture = decode_image(path.read_bytes())
    if picture is None:
        raise ValueError(f"{path} {UNREADABLE}")
    return as_bytes(picture[None], side)[0]


def _pictures(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; pairs lie in {INPUTS}/ and {TARGETS}/ of one folder, as Pseudo-Target Generate writes them")
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES}
