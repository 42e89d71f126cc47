"""A folder of pairs of degraded faces and pseudo-targets, to which an interrupted run can add.

inputs/000000.png    the degraded crop
initial/000000.png   what the restorer made of it
targets/000000.png   the pseudo-target
pairs.jsonl          a line for each pair, written when its pictures are: number, source, frame, seed, parameters (a hash), digest of the crop
parameters.json      the parameters of all pairs
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ...atomic import remove_abandoned, resumable_file
from ...plots import decode_image

PAIRS, PARAMETERS = "pairs.jsonl", "parameters.json"
KINDS = ("inputs", "initial", "targets")


@dataclass(frozen=True)
class PairLine:
    """A line of the manifest.

    Attributes:
        number: of the pair; its pictures are called so, with six digits.
        source: which clip or person it comes from.
        frame: index in that source.
        seed: of the noise.
        parameters: hash of parameters.json.
        digest: of the degraded crop's pixels.
        sharper, drift: see generate.Targets.
    """

    number: int
    source: str
    frame: int
    seed: int
    parameters: str
    digest: str
    sharper: float = 0.0
    drift: float = 0.0

    @property
    def file(self) -> str:
        return f"{self.number:06}.png"


class PairFolder:
    """A folder of pairs that were all made with the same parameters. It is created with its first pair.

    Args:
        path: the folder.
        parameters: everything that a pair depends on, as JSON values.

    Raises:
        ValueError: if it holds pairs of other parameters, or a manifest without parameters, or cannot be created, in one sentence that says which.
    """

    def __init__(self, path: Path | str, parameters: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.parameters = json.loads(json.dumps(dict(parameters), sort_keys=True))
        self.hash = hashlib.blake2b(json.dumps(self.parameters, sort_keys=True).encode(), digest_size=8).hexdigest()
        self._check()
        folders = [self.path / kind for kind in KINDS]
        new = [folder for folder in (*folders, self.path, *self.path.parents) if not folder.exists()]
        try:
            self._make_folders()
        finally:  # only a test: an empty folder is not kept
            for folder in new:
                with suppress(OSError):
                    folder.rmdir()
        for folder in (self.path, *folders):
            remove_abandoned(folder)
        self.lines = self._read()

    def __len__(self) -> int:
        return len(self.lines)

    def find(self, source: str, frame: int, digest: str) -> PairLine | None:
        """The pair of a frame, or None."""
        return next((line for line in self.lines if (line.source, line.frame, line.digest) == (source, frame, digest)), None)

    def add(
        self, source: str, frame: int, seed: int, crop: Tensor, initial: Tensor, target: Tensor, *, sharper: float = 0.0, drift: float = 0.0
    ) -> PairLine:
        """Writes a pair: its pictures (3, H, W) in [0, 1] first, so that every line of the manifest stands for complete pictures."""
        self._check()
        self._make_folders()
        if not (self.path / PARAMETERS).is_file():
            _write(self.path / PARAMETERS, json.dumps(self.parameters, indent=1, sort_keys=True).encode())
        number = max((line.number for line in self.lines), default=-1) + 1
        line = PairLine(number, source, frame, seed, self.hash, digest_of(crop), round(sharper, 6), round(drift, 6))
        for kind, picture in zip(KINDS, (crop, initial, target), strict=True):
            _write(self.path / kind / line.file, png(picture))
        with (self.path / PAIRS).open("a", encoding="utf-8") as manifest:
            manifest.write(json.dumps(asdict(line)) + "\n")
            manifest.flush()
            os.fsync(manifest.fileno())
        self.lines.append(line)
        return line

    def read(self, line: PairLine) -> tuple[Tensor, Tensor, Tensor]:
        """A pair's input, initial restoration and target, each (3, H, W) in [0, 1]. Raises ValueError if a picture is missing or damaged."""
        return tuple(read_png(self.path / kind / line.file) for kind in KINDS)  # type: ignore[return-value]

    def _make_folders(self) -> None:
        for kind in KINDS:
            try:
                (self.path / kind).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ValueError(f"the folder {self.path / kind} cannot be made ({error.strerror}); choose another name as `folder`") from error

    def _check(self) -> None:
        known = self.path / PARAMETERS
        if not known.is_file():
            if (self.path / PAIRS).exists():
                raise ValueError(f"{self.path} holds pairs but no {PARAMETERS}, so nothing says what they were made with; choose another folder name")
            return
        try:
            before = json.loads(known.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{known} cannot be read; choose another folder name, or delete the folder") from error
        if before != self.parameters:
            names = sorted(name for name in {*before, *self.parameters} if before.get(name) != self.parameters.get(name))
            shown = ", ".join(f"{name} {_short(before.get(name))}, now {_short(self.parameters.get(name))}" for name in names)
            raise ValueError(
                f"the folder {self.path} was begun with other parameters ({shown}); choose another folder name, or go back to those to add to it"
            )

    def _read(self) -> list[PairLine]:
        """The manifest's lines. A last line cut off by a crash, and lines whose pictures are gone, are removed from the file."""
        path = self.path / PAIRS
        if not path.is_file():
            return []
        text = path.read_text(encoding="utf-8")
        lines, kept = [], []
        for number, row in enumerate(text.splitlines()):
            try:
                line = PairLine(**json.loads(row))
            except (ValueError, TypeError) as error:
                if number == len(text.splitlines()) - 1:
                    continue
                raise ValueError(f"line {number + 1} of {path} cannot be read; choose another folder name, or delete that line") from error
            if all((self.path / kind / line.file).is_file() for kind in KINDS):
                lines.append(line)
                kept.append(row)
        whole = "".join(f"{row}\n" for row in kept)
        if whole != text:
            _write(path, whole.encode())
        return lines


def describe_parts(**parts: Any) -> dict[str, Any]:
    """Parameters as JSON values: options by their fields, restorers and priors by their options and a digest of their weights."""
    return {name: _described(part) for name, part in parts.items()}


def _described(part: Any) -> Any:
    if part is None or isinstance(part, (str, int, float, bool)):
        return part
    if hasattr(part, "__dataclass_fields__"):
        return {name: _described(getattr(part, name)) for name in part.__dataclass_fields__}
    if isinstance(part, (tuple, list)):
        return [_described(item) for item in part]
    if isinstance(part, torch.dtype):
        return str(part)
    found: dict[str, Any] = {"name": str(getattr(part, "name", type(part).__name__))}
    if hasattr(part, "options"):
        found["options"] = _described(part.options)
    for name in ("network", "prior", "enhancer", "precleaner", "coarse"):
        inner = getattr(part, name, None)
        if isinstance(inner, nn.Module):
            found["weights"] = weights_digest(inner)
        elif inner is not None:
            found[name] = _described(inner)
    if not found.keys() & {"weights", "prior", "coarse"}:
        modules = [value for value in vars(part).values() if isinstance(value, nn.Module)]
        if modules:
            found["weights"] = [weights_digest(module) for module in modules]
    operator = getattr(part, "degradation", None)
    return found | ({} if operator is None else {"degradation": str(operator)})


def weights_digest(network: nn.Module) -> str:
    """A short digest of a network's names, shapes and, of each tensor, up to 64 values spread over it."""
    known = hashlib.blake2b(digest_size=8)
    for name, value in sorted(network.state_dict().items()):
        flat = value.detach().reshape(-1)
        some = flat[:: max(1, len(flat) // 64)][:64].cpu().double().numpy()
        known.update(f"{name}{tuple(value.shape)}".encode() + some.tobytes())
    return known.hexdigest()


def digest_of(picture: Tensor) -> str:
    """A short digest of a picture (3, H, W) in [0, 1] as eight bits hold it."""
    return hashlib.blake2b(_bytes(picture).tobytes() + str(tuple(picture.shape)).encode(), digest_size=8).hexdigest()


def png(picture: Tensor) -> bytes:
    """A picture (3, H, W) RGB in [0, 1] as an eight-bit PNG."""
    return cv2.imencode(".png", np.ascontiguousarray(_bytes(picture)[..., ::-1]))[1].tobytes()


def read_png(path: Path) -> Tensor:
    """(3, H, W) RGB in [0, 1] of a picture file. Raises ValueError if there is none, or it is damaged."""
    found = decode_image(path.read_bytes()) if path.is_file() else None
    if found is None:
        raise ValueError(f"the picture {path} is missing or damaged; delete its line in {PAIRS} to have it made again")
    return found


def _bytes(picture: Tensor) -> np.ndarray:
    return picture.detach().float().cpu().clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def _write(path: Path, data: bytes) -> None:
    with resumable_file(path) as part:
        part.write_bytes(data)


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else value
    return text if len(text) <= 60 else f"{text[:57]}..."
