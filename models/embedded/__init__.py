"""The small networks that come with the package: float16 files, each with its model card beside it.

A file may build on another one: then its metadata name that file under "base", and it holds only the tensors that differ. Metadata "alias" may map
names with one prefix to tensors of the base with another prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..checkpoints.state_dict import notes_of, read_tensors

Net = TypeVar("Net", bound=nn.Module)

FOLDER = Path(__file__).parent
BASE = "base"
"""Metadata key of a file that builds on another one: that one's name, in the same folder."""

ALIAS = "alias"
"""Metadata key of "prefix=base's prefix": tensors under the first are the base's under the second."""

SIZES = "sizes"
"""Metadata key of a network's sizes as JSON, where weights do not show all of them."""

PRIOR = "face-prior-128.safetensors"
BLIND = "blind-512.safetensors"
BLAZEFACE, FACE_MESH, FACE_EMBEDDING = "blazeface-full-range.safetensors", "face-mesh.safetensors", "face-embedding.safetensors"
CODEBOOK, KEEP, DICFACE = "face-codebook-128.safetensors", "keep-128.safetensors", "dicface-128.safetensors"

COLOURISE, INPAINT = "dicface-colourise-128.safetensors", "dicface-inpaint-128.safetensors"

RESTORERS = {
    "embedded blind": BLIND,
    "embedded codeformer": CODEBOOK,
    "embedded keep": KEEP,
    "embedded dicface": DICFACE,
    "embedded dicface colourise": COLOURISE,
    "embedded dicface inpaint": INPAINT,
}
"""Face restorers by the name that menus show."""
PRIORS = {"embedded face prior": PRIOR}
"""Diffusion priors by the name that menus show."""

FACES = {"blazeface": BLAZEFACE, "facemesh": FACE_MESH, "face embedding": FACE_EMBEDDING}
"""What finds, places and recognises faces."""


def listed(names: Mapping[str, str]) -> dict[str, Path]:
    """The entries of RESTORERS or PRIORS whose files are installed, with their paths."""
    return {name: FOLDER / file for name, file in names.items() if (FOLDER / file).is_file()}


def read_embedded(path: Path | str, builders: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """A file's tensors, those of the file it builds on included, as float32, made outside inference mode.

    Args:
        path: a path, or the name of a file in this folder.
        builders: names of the files that build on this one; guards against cycles.

    Raises:
        FileNotFoundError: if the file, or the one it builds on, is missing.
        ValueError: if one of them is damaged, or the file builds on itself.
    """
    path = FOLDER / path
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing from the package; install it again, or train the file with `fvr train`")
    about = notes_of(path)
    base = about.get(BASE)
    with torch.inference_mode(False):
        own = {key: value.float() if value.is_floating_point() else value for key, value in read_tensors(path).items()}
    if base is None:
        return own
    builders = (*builders, path.name)
    if base in builders or base != Path(base).name:
        raise ValueError(f"{path.name} says that it builds on {base[:80]!r}, which is no other file beside it; get both again")
    known = read_embedded(path.with_name(base), builders)
    return {**known, **aliased(known, about.get(ALIAS)), **own}


def load_embedded(kind: type[Net], device: torch.device | str = "cpu") -> Net:
    """A network of this class with the weights that come with the package in its `file`; in eval mode, and never trained."""
    network = kind()
    network.load_state_dict(read_embedded(network.file))  # type: ignore[arg-type]
    return network.to(device).eval().requires_grad_(False)


def aliased(known: Mapping[str, Tensor], alias: str | None) -> dict[str, Tensor]:
    """The tensors that "prefix=base's prefix" stands for."""
    if not alias:
        return {}
    new, _, old = alias.partition("=")
    return {new + key.removeprefix(old): value for key, value in known.items() if key.startswith(old)}
