"""The restorer that fine-tuning starts from: a copy to train, its origin and its licence."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from ..methods.base import NetworkRestorer
from ..methods.registry import restorer_from
from ..models.checkpoints.fetch import sha256_of
from ..models.checkpoints.load import load_network
from ..models.checkpoints.origin import origins
from ..models.checkpoints.state_dict import notes_of
from ..models.embedded import BASE
from ..models.tuning import Use

UNKNOWN = "unknown"


@dataclass
class Base:
    """The base of a fine-tuning run.

    Attributes:
        network: float32, on the CPU, in eval mode; a copy that training may change.
        kind: as LoadedNetwork's.
        side: of its input faces, in pixels.
        use: how it is used.
        file: name of the file; "unknown" if the restorer's weights are in none. A file that builds on another is named with that one.
        sha256: of the file, and of the one it builds on.
        licence: of its weights, one line.
        notes: the file's metadata.
    """

    network: nn.Module
    kind: str
    side: int
    use: Use
    file: str = UNKNOWN
    sha256: str = UNKNOWN
    licence: str = "licence unknown"
    notes: Mapping[str, str] = field(default_factory=dict)


def base_from_file(path: Path | str) -> Base:
    """The restorer in a checkpoint file, its own options as the loader has them. Raises FileNotFoundError or ValueError as `load_network`."""
    loaded = load_network(path)
    restorer = restorer_from(loaded)
    files = _with_bases(loaded.path)
    names, digests = " + ".join(file.name for file in files), " + ".join(map(sha256_of, files))
    return Base(loaded.network, loaded.kind, restorer.side, use_of(restorer), names, digests, loaded.licence, loaded.notes)


def base_of(restorer: NetworkRestorer) -> Base:
    """The base of a restorer: loaded again from its weights' file, or a copy if its weights are not those of a file.

    Args:
        restorer: is not changed; its settings (fidelity, AdaIN) count.
    """
    origin = origins(restorer.network).get(restorer.network)
    if origin is not None and origin.path.is_file():
        base = base_from_file(origin.path)
        if _same_weights(restorer.network, base.network):
            base.side, base.use = restorer.side, use_of(restorer)
            return base
    with torch.inference_mode(False):
        network = copy.deepcopy(restorer.network).cpu().float().eval().requires_grad_(False)
    return Base(network, restorer.name, restorer.side, use_of(restorer))


def use_of(restorer: NetworkRestorer) -> Use:
    """How a restorer uses its network.

    Raises:
        ValueError: for one that colourises or inpaints: pairs of degraded and clean faces cannot train that.
    """
    mode = getattr(restorer.options, "mode", "restore")
    if mode != "restore":
        raise ValueError(f"fine-tuning teaches to restore, and this restorer is set to {mode}; set its mode to restore")
    return restorer.use


def _with_bases(path: Path) -> list[Path]:
    """The file, and those it builds on."""
    base = notes_of(path).get(BASE)
    return [path, *(_with_bases(path.with_name(base)) if base else [])]


def _same_weights(network: nn.Module, read: nn.Module) -> bool:
    """Whether two networks hold the same weights, up to a loader's half precision."""
    own, theirs = network.state_dict(), read.state_dict()
    if own.keys() != theirs.keys():
        return False
    return all(value.dtype != theirs[key].dtype or torch.equal(value.cpu(), theirs[key]) for key, value in own.items())
