"""The output file of fine-tuning: all tensors of the network, and its origin as metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ..atomic import remove_abandoned, temporary_name, write_tensors
from ..models.checkpoints.catalogue import published_as
from ..models.embedded import BASE
from ..training.card import converted

RUN_METADATA = (BASE, "seed", "command", "recipe", "title", "format")
"""Metadata of a base that do not hold for the fine-tuned file; all others (sizes, best settings) are copied."""


def write_fine_tuned(state: Mapping[str, Tensor], path: Path, notes: Mapping[str, str], of_base: Mapping[str, str], *, half: bool = False) -> None:
    """Writes all tensors of a network to one file, atomically.

    Args:
        state: with the parameter names of such files.
        path: ends in .safetensors.
        notes: metadata; missing entries are taken from `of_base`, the metadata of the base.
        half: floating-point tensors as float16 instead of float32.

    Raises:
        ValueError: if a value does not fit into float16.
    """
    tensors = converted(state, torch.float16 if half else torch.float32, "save as float32")
    carried = {key: value for key, value in of_base.items() if key not in RUN_METADATA}
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent)
    write_tensors(tensors, path, {**carried, "format": "pt", **notes})


def check_writable(path: Path) -> None:
    """Makes the folder of an output file and tries to write there, before hours of training. Leaves no file.

    Raises:
        ValueError: if it cannot be made, or not be written to.
    """
    part = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab"):
            pass
        part.unlink()
    except OSError as error:
        raise ValueError(
            f"{path.name} cannot be written into {path.parent} ({error.strerror}), so nothing was learnt; make that a folder with the right to "
            "write, or choose another"
        ) from error
    if path.is_dir():
        raise ValueError(f"{path} is a folder, so no file of that name can be written; choose another file name")


def stored_dtype(path: Path) -> str:
    """The dtype of a file by `write_fine_tuned`: "float16" or "float32"."""
    with safe_open(path, "pt") as file:
        kinds = {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
    return "float16" if "F16" in kinds else "float32"


def validated_name(name: str) -> str:
    """A file name for a fine-tuned restorer, with its ending.

    Raises:
        ValueError: for a name with a folder in it, an odd one, or one by which the loader would take the file for a published checkpoint.
    """
    bare = name.strip().removesuffix(".safetensors")
    odd = sorted({character for character in bare if not (character.isalnum() or character in " ._-+()")})
    if not bare or bare.startswith(".") or odd or len(bare) > 120:
        what = f"holds {' '.join(odd)}" if odd else "is empty, hidden or too long"
        raise ValueError(f"the file name {name!r} {what}; use letters, digits, spaces and . _ - + ( ), such as codeformer-my-camera")
    known = published_as(f"{bare}.safetensors")
    if known is not None:
        raise ValueError(f"{bare} is the name of a published checkpoint ({known.purpose}), which this is not; choose another file name")
    return f"{bare}.safetensors"
