"""Tensors as checkpoint files describe them, checked against what the file has before anything is allocated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

MAX_EXPANSION = 4
"""How many times its own size a file's tensors may take: weights may be shared and repeated, but not without end."""
MAX_DIMENSIONS = 64
"""Sizes of a tensor, at most."""
MAX_MAGNITUDE = 1e12
"""Beyond any number that a trained network holds; flipped bits give such."""

DTYPES = {name: kind for name, kind in vars(torch).items() if isinstance(kind, torch.dtype) and not name.startswith("q")}
"""What a tensor may be made of, by PyTorch's names; quantised kinds need more than numbers."""


@dataclass(frozen=True)
class Storage:
    """A row of `count` elements that starts `first` elements into the block of bytes called `key`."""

    key: str
    dtype: torch.dtype
    count: int
    first: int = 0

    def __post_init__(self) -> None:
        check_counts(self.count, self.first)


@dataclass(frozen=True)
class Stored:
    """A tensor that is not read yet: a view of a storage. Sizes, strides and offset count elements.

    Raises:
        ValueError: if the view reaches out of its storage.
    """

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        check_counts(self.offset, *self.size, *self.stride)
        if len(self.size) != len(self.stride) or len(self.size) > MAX_DIMENSIONS:
            raise ValueError(f"a tensor of {len(self.size)} sizes has {len(self.stride)} strides")
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if prod(self.size) and last >= self.storage.count:
            raise ValueError(f"a tensor of shape {list(self.size)[:8]} has {self.storage.count} numbers")

    @property
    def nbytes(self) -> int:
        return prod(self.size) * self.storage.dtype.itemsize


def check_counts(*numbers: object) -> None:
    """Raises ValueError unless all are whole numbers from 0 up."""
    for number in numbers:
        if type(number) is not int or not 0 <= number < 1 << 62:
            raise ValueError(f"a size is no count but a {type(number).__name__} out of range")


def read_stored(path: Path, wanted: Mapping[str, Stored], places: Mapping[str, tuple[int, int]]) -> dict[str, Tensor]:
    """The tensors themselves, over the file's own bytes: mapped, not read, and private, so that writing to them leaves the file alone.

    Args:
        places: of each block of bytes by its key: where it begins in the file, and how long it is.

    Raises:
        ValueError: if a block is missing or too short, or the tensors take far more than the file has.
    """
    size = path.stat().st_size
    claimed = sum(tensor.nbytes for tensor in wanted.values())
    if claimed > MAX_EXPANSION * size:
        raise ValueError(f"its tensors take {claimed} bytes where it has {size}")
    mapped = torch.UntypedStorage.from_file(str(path), False, size)
    rows: dict[Storage, torch.UntypedStorage] = {}
    for storage in {tensor.storage for tensor in wanted.values()}:
        if storage.key not in places:
            raise ValueError(f"the numbers of tensor {storage.key[:40]} are missing")
        start, length = places[storage.key]
        width = storage.dtype.itemsize
        begin, end = start + storage.first * width, start + (storage.first + storage.count) * width
        if end > min(start + length, size):
            raise ValueError(f"{storage.count} numbers were announced where {length} bytes are")
        row = mapped[begin:end]
        rows[storage] = row.clone() if begin % width else row  # numbers lie at multiples of their width
    return {name: torch.empty(0, dtype=t.storage.dtype).set_(rows[t.storage], t.offset, t.size, t.stride) for name, t in wanted.items()}


def check_numbers(state: Mapping[str, Tensor], name: str, again: str) -> None:
    """Raises ValueError for NaN, Inf, and numbers beyond MAX_MAGNITUDE; masks may hold -Inf."""
    odd = [key for key, value in state.items() if not _plausible(key, value)]
    if odd:
        more = f" and {len(odd) - 1} more of its {len(state)} tensors" if len(odd) > 1 else ""
        raise ValueError(f"{name} is damaged: {odd[0]}{more} hold NaN, Inf or numbers that no trained network has; {again}")


def _plausible(name: str, value: Tensor) -> bool:
    if value.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64) or not value.numel() or value.device.type == "meta":
        return True
    low, high = (float(bound) for bound in value.aminmax())  # NaN where any number is
    return high <= MAX_MAGNITUDE and (low >= -MAX_MAGNITUDE or "mask" in name)
