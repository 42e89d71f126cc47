"""Tracks of a plan in a file: written shot by shot while they are found, read per segment."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from typing_extensions import Self

from ..atomic import atomic_file
from ..faces import FaceTrack

DTYPES = {torch.float32: "F32", torch.bool: "BOOL"}
"""Of a track's tensors, by the names of the file format; the wider ones first, so that each lies where its type may."""


class Stored:
    """A tensor attribute of a `StoredTrack`, read from its file at each access."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, track: Any, owner: type) -> Any:
        return self if track is None else track.store.read(track.places.get(self.name))


class StoredTrack(FaceTrack):
    """A track whose per-frame rows are in a file, so that a film's tracks take little memory."""

    boxes: Tensor = Stored()  # type: ignore[assignment]
    landmarks: Tensor = Stored()  # type: ignore[assignment]
    matrices: Tensor = Stored()  # type: ignore[assignment]
    scores: Tensor = Stored()  # type: ignore[assignment]
    detected: Tensor = Stored()  # type: ignore[assignment]
    sharpness: Tensor = Stored()  # type: ignore[assignment]
    pose: Tensor | None = Stored()  # type: ignore[assignment]
    covered: Tensor | None = Stored()  # type: ignore[assignment]
    outline: Tensor | None = Stored()  # type: ignore[assignment]

    def __init__(self, track: FaceTrack, store: TrackStore) -> None:
        names = {field.name for field in fields(track)}
        rows = names & vars(StoredTrack).keys()
        plain = {name: getattr(track, name) for name in names - rows}
        places = {name: store.write(value) for name in sorted(rows) if (value := getattr(track, name)) is not None}
        vars(self).update(plain, store=store, places=places, length=len(track))

    def __len__(self) -> int:
        return vars(self)["length"]

    def with_person(self, person: int, *, unsure: bool) -> Self:
        return self._with(person=person, unsure=unsure)

    def kept_in(self, store: TrackStore) -> Self:
        """The same track, whose rows are in `store`: one that was pickled knows none."""
        return self._with(store=store)

    def _with(self, **changes: Any) -> Self:
        known = object.__new__(type(self))
        vars(known).update(vars(self), **changes)
        return known

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "store"}


class TrackStore:
    """A scratch file for the rows of tracks, truncated to `length` bytes on opening; removed if the context ends without an exception."""

    def __init__(self, path: Path, length: int = 0) -> None:
        self.path, self.length = path, length

    def __enter__(self) -> Self:
        self.file = self.path.open("r+b" if self.length else "w+b")
        self.file.truncate(self.length)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.file.close()
        if kind is None:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)

    def saved(self) -> int:
        """Flushes the file to disk; returns its length in bytes."""
        self.file.flush()
        os.fsync(self.file.fileno())
        return self.file.seek(0, 2)

    def keep(self, track: FaceTrack) -> FaceTrack:
        """The same track with its rows copied into this file."""
        return StoredTrack(track, self)

    def write(self, rows: Tensor) -> tuple[int, torch.dtype, tuple[int, ...]]:
        """Appends rows; returns their offset, dtype and shape, for `read`."""
        place = self.file.seek(0, 2)
        self.file.write(rows.contiguous().numpy().tobytes())
        return place, rows.dtype, tuple(rows.shape)

    def read(self, place: tuple[int, torch.dtype, tuple[int, ...]] | None) -> Tensor | None:
        if place is None:
            return None
        start, dtype, shape = place
        self.file.seek(start)
        return torch.frombuffer(bytearray(self.file.read(torch.Size(shape).numel() * dtype.itemsize)), dtype=dtype).reshape(shape)


def save_tracks(path: Path, tracks: Sequence[FaceTrack]) -> None:
    """Saves all fields of all tracks as safetensors, with everything but the tensors in its metadata, tensor by tensor."""
    rest: list[dict[str, Any]] = []
    shapes: list[tuple[int, str, torch.dtype, list[int]]] = []
    for number, track in enumerate(tracks):
        named = {field.name: getattr(track, field.name) for field in fields(track)}
        shapes += [(number, name, value.dtype, list(value.shape)) for name, value in named.items() if isinstance(value, Tensor)]
        rest.append({"stop": track.stop, **{name: value for name, value in named.items() if not isinstance(value, Tensor)}})
    shapes.sort(key=lambda shape: list(DTYPES).index(shape[2]))
    header: dict[str, Any] = {"__metadata__": {"tracks": json.dumps(rest)}}
    offset = 0
    for number, name, dtype, shape in shapes:
        start, offset = offset, offset + torch.Size(shape).numel() * dtype.itemsize
        header[f"{number}.{name}"] = {"dtype": DTYPES[dtype], "shape": shape, "data_offsets": [start, offset]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_file(path) as part, part.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for number, name, _, _ in shapes:
            file.write(getattr(tracks[number], name).contiguous().numpy().tobytes())


def load_tracks(path: Path, first: int, stop: int) -> list[FaceTrack]:
    """The tracks with frames in first <= i < stop, in saved order."""
    found = []
    with safe_open(path, "pt") as file:
        names: dict[int, list[str]] = {}
        for key in file.keys():  # noqa: SIM118, it is no dictionary
            number, _, name = key.partition(".")
            names.setdefault(int(number), []).append(name)
        for number, note in enumerate(json.loads(file.metadata()["tracks"])):
            if note["start"] < stop and note.pop("stop") > first:
                plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in note.items()}
                found.append(FaceTrack(**plain, **{name: file.get_tensor(f"{number}.{name}") for name in names[number]}))
    return found
