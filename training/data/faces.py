"""Aligned faces from a folder, as training and validation sets that share no person."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...plots import decode_pixels
from ...video.files import IMAGE_SUFFIXES

FEDERAL = ("us-house_", "us-senate_")
"""Names of the portraits of the United States' federal government: the only ones that train what this package ships."""

HELD_OUT = 10
"""One identity in this many is held out for validation if the folder has no split."""


@dataclass(frozen=True)
class Jitter:
    """Augmentation of training faces, uniform within +- the amounts; it makes a restorer tolerate imperfect alignment.

    Attributes:
        turn: degrees.
        zoom: share of the size.
        shift: share of the side, along either axis.
        mirror: whether half of the faces are mirrored.
        light: share by which brightness and the contrast of each channel change.
    """

    turn: float = 4.0
    zoom: float = 0.06
    shift: float = 0.02
    mirror: bool = True
    light: float = 0.08


MIRROR_ONLY = Jitter(0.0, 0.0, 0.0, True, 0.0)
"""What CodeFormer's and KEEP's recipes do: horizontal flips only."""


class Faces:
    """The aligned faces of a folder, one split of them, kept as bytes in memory or read from disk when they are too many.

    The split is the sub-folders `train` and `val` where both exist; otherwise one identity in ten is held out. The identity is the
    `identity_key` of a manifest.csv in the folder or beside it, else the file's name without trailing numbers. Where that leaves a split
    empty, the identity with the fewest files is held out; and where all files show one identity (face_0000.png, face_0001.png, ...), one file
    in ten, at least one: the only case in which both splits may show one person. `prefixes` limits the files to those whose names begin with
    one of them.

    Raises:
        ValueError: if nothing is left to use, or only one picture.
    """

    def __init__(self, folder: Path, split: str, side: int, prefixes: Sequence[str] = (), in_memory: int = 4 << 30) -> None:
        if split not in ("train", "val"):
            raise ValueError(f"a split of faces is train or val, got {split!r}")
        self.side = side
        self.paths = _split(Path(folder), split, tuple(prefixes))
        if not self.paths:
            if _split(Path(folder), "train", tuple(prefixes)) and not _has_split_folders(Path(folder)):
                raise ValueError(f"{folder} holds one picture to use; training needs one to learn from and another to validate: add more")
            wanted = f" whose names begin with {' or '.join(prefixes)}" if prefixes else ""
            raise ValueError(f"{folder} holds no {split} pictures{wanted}; give a folder of aligned faces ({', '.join(sorted(IMAGE_SUFFIXES))})")
        self.source_side = _source_side(self.paths[0], side)
        fits = len(self.paths) * 3 * self.source_side**2 <= in_memory
        self._pixels = torch.stack([read_face(path, self.source_side) for path in self.paths]) if fits else None

    def __len__(self) -> int:
        return len(self.paths)

    def source(self, index: int) -> Tensor:
        """Face `index`, (3, S, S) float32 in [0, 1] at the side it is kept at: up to twice `side`, so that moving it costs no sharpness."""
        pixels = read_face(self.paths[index], self.source_side) if self._pixels is None else self._pixels[index]
        return pixels.float() / 255

    def face(self, index: int) -> Tensor:
        """Face `index` unmoved, (3, side, side) in [0, 1]."""
        return area_resized(self.source(index), self.side)

    def first(self, number: int) -> Tensor:
        """The first `number` faces unmoved, or all if there are fewer, (n, 3, side, side) in [0, 1]."""
        return torch.stack([self.face(index) for index in range(min(number, len(self)))])

    def sample(self, number: int, jitter: Jitter, generator: torch.Generator) -> Tensor:
        """`number` faces drawn at random, moved and relit, (number, 3, side, side) in [0, 1]."""
        drawn = torch.randint(len(self), (number,), generator=generator).tolist()
        return torch.stack([self.jittered(index, jitter, generator) for index in drawn])

    def jittered(self, index: int, jitter: Jitter, generator: torch.Generator) -> Tensor:
        """Face `index` moved and relit at random, (3, side, side) in [0, 1]."""
        draw = (torch.rand(8, generator=generator) * 2 - 1).tolist()
        image = self.source(index)
        if jitter.mirror and draw[0] > 0:
            image = image.flip(-1)
        if jitter.turn or jitter.zoom or jitter.shift:
            angle, zoom = math.radians(jitter.turn * draw[1]), 1 + jitter.zoom * draw[2]
            image = moved(image, angle, zoom, 2 * jitter.shift * draw[3], 2 * jitter.shift * draw[4])
        if jitter.light:
            gain = 1 + jitter.light * torch.tensor(draw[5:8])[:, None, None]
            image = ((image - 0.5) * gain + 0.5).clamp(0, 1)
        return area_resized(image, self.side)


def moved(image: Tensor, angle: float, zoom: float, right: float, down: float) -> Tensor:
    """(3, S, S) turned by `angle` radians, zoomed and shifted (in units of half the side); beyond the border it is mirrored."""
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    grid = F.affine_grid(torch.tensor([[[cos, -sin, right], [sin, cos, down]]]), [1, 3, *image.shape[-2:]], align_corners=False)
    return F.grid_sample(image[None], grid, mode="bilinear", padding_mode="reflection", align_corners=False)[0]


def area_resized(images: Tensor, side: int) -> Tensor:
    """(..., 3, S, S) at side x side, averaged over areas."""
    return images if images.shape[-1] == side else F.adaptive_avg_pool2d(images, side)


def read_face(path: Path, side: int) -> Tensor:
    """A picture file as (3, side, side) uint8 RGB. Raises ValueError if it cannot be read or is not square."""
    pixels = decode_pixels(path.read_bytes())
    if pixels is None:
        raise ValueError(f"{path} is not a picture that can be read; remove it from the folder or convert it to PNG")
    height, width = pixels.shape[:2]
    if height != width:
        raise ValueError(f"{path} is {width} x {height}; aligned faces are square: align the pictures first (the node Face Align does)")
    if height != side:
        pixels = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA if height > side else cv2.INTER_CUBIC)
    return torch.from_numpy(np.ascontiguousarray(pixels[..., ::-1].transpose(2, 0, 1)))


def _source_side(path: Path, side: int) -> int:
    pixels = decode_pixels(path.read_bytes())
    return side if pixels is None or pixels.shape[0] < 2 * side else 2 * side


def _split(folder: Path, split: str, prefixes: tuple[str, ...]) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give the folder that holds the aligned faces")
    named = _has_split_folders(folder)
    files = sorted(path for path in (folder / split if named else folder).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    files = [path for path in files if path.name.startswith(prefixes)] if prefixes else files
    if named:
        return files
    keys = _manifest(folder)
    people: dict[str, list[Path]] = {}
    for path in files:
        people.setdefault(keys.get(path.name, identity(path)), []).append(path)
    held_back = {path for key, shown in people.items() if held_out(key) for path in shown}
    if not 0 < len(held_back) < len(files):
        if len(people) > 1:
            held_back = set(people[min(people, key=lambda key: (len(people[key]), key))])
        else:
            held_back = set(sorted(files, key=lambda path: _hash(path.name))[: max(1, len(files) // HELD_OUT)]) if len(files) > 1 else set()
    return [path for path in files if (path in held_back) == (split == "val")]


def _has_split_folders(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in ("train", "val"))


def identity(path: Path) -> str:
    """The identity that a file name suggests: "anna_012.png" and "anna-3.jpg" are both "anna"."""
    return path.stem.rstrip("0123456789").rstrip("-_. ").lower() or path.stem


def held_out(key: str) -> bool:
    """Whether an identity is held out for validation; the same on every machine."""
    return _hash(key) % HELD_OUT == 0


def _hash(text: str) -> int:
    return int(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(), 16)


def _manifest(folder: Path) -> dict[str, str]:
    for place in (folder / "manifest.csv", folder.parent / "manifest.csv"):
        if place.is_file():
            with place.open(newline="", encoding="utf-8") as rows:
                return {row["file"]: row["identity_key"] for row in csv.DictReader(rows) if row.get("file") and row.get("identity_key")}
    return {}
