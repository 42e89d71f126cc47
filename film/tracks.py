"""The faces of a plan as a file, of which a worker reads those of its segment only."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from ..faces import FaceTrack
from .files import write_whole


def save_tracks(path: Path, tracks: list[FaceTrack]) -> None:
    """Every field of every track: tensors as such, the rest in the header."""
    tensors: dict[str, Tensor] = {}
    rest: list[dict[str, Any]] = []
    for number, track in enumerate(tracks):
        named = {field.name: getattr(track, field.name) for field in fields(track)}
        tensors |= {f"{number}.{name}": value.contiguous() for name, value in named.items() if isinstance(value, Tensor)}
        rest.append({"stop": track.stop, **{name: value for name, value in named.items() if not isinstance(value, Tensor)}})
    write_whole(path, save(tensors, {"tracks": json.dumps(rest)}))


def load_tracks(path: Path, first: int, stop: int) -> list[FaceTrack]:
    """The tracks that show in frames first <= i < stop, in the order in which they were saved."""
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
