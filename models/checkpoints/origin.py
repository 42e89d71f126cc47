"""Records which files the weights of networks came from, for reports that make a result reproducible."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ..embedded import BASE
from .catalogue import licence_line, published_as
from .state_dict import notes_of

PACKAGE = __name__.rpartition(".models.")[0]


@dataclass(frozen=True)
class Origin:
    """A weights file, its licence in one line, and the file that it builds on, if any."""

    path: Path
    licence: str
    base: Path | None


_known: WeakKeyDictionary[nn.Module, Origin] = WeakKeyDictionary()


def record_origin(network: nn.Module, path: Path | str, licence: str | None = None) -> None:
    """Records the file that `network` was loaded from, for the lifetime of the network; copies of it, which training changes, have no origin.

    Args:
        licence: None looks in the catalogue, by the file's name, and in the file's metadata.
    """
    path, entry, notes = Path(path), published_as(path), notes_of(path)
    if licence is None:
        licence = licence_line(entry) if entry is not None else notes.get("licence", "licence unknown")
    _known[network] = Origin(path, licence, path.with_name(notes[BASE]) if BASE in notes else None)


def origins(*holders: Any) -> dict[nn.Module, Origin]:
    """All networks with a known origin inside restorers, priors, detectors and the like, at any depth, with their files."""
    return {network: _known[network] for holder in holders for network in _networks(holder, set()) if network in _known}


def weights_digest(network: nn.Module) -> str:
    """SHA-256 over a network's names and numbers, 64 hex digits: the same wherever the same weights are."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _networks(holder: Any, seen: set[int]) -> Iterator[nn.Module]:
    if id(holder) in seen:
        return
    seen.add(id(holder))
    if isinstance(holder, nn.Module):
        yield from holder.modules()
    elif type(holder).__module__.startswith(PACKAGE) and hasattr(holder, "__dict__"):
        for value in vars(holder).values():
            yield from _networks(value, seen)
