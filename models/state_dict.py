"""Checkpoint files to plain dictionaries of tensors, whatever the wrapping; what is no checkpoint is named in one sentence."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

SUFFIXES = (".safetensors", ".sft", ".pth", ".pt", ".ckpt", ".bin")
"""Endings of the files that are read; what is in them is told by their first bytes, not by the ending."""

WRAPPERS = ("params_ema", "g_ema", "ema", "params", "state_dict", "model_state_dict", "model", "generator", "net_g", "network")
"""Keys under which training frameworks put the network, the averaged weights first."""
SELECTED = ("params_ema.", "params.", "state_dict.", "vqvae.")
"""Prefixes that mark the network's tensors among others: wrappers that a conversion flattened, and RestoreFormer++'s training run."""
COMMON = ("module.", "_orig_mod.", "netG.", "generator.")
"""Prefixes that wrappers around a network give to all of its tensors."""

AGAIN = "download it again"
_ZIP, _LFS = b"PK\x03\x04", b"version https://git-lfs"
_Value = TypeVar("_Value")


def read_state(path: Path | str, name: str | None = None) -> dict[str, Tensor]:
    """The network's tensors by name, on the CPU, in the dtypes of the file; read outside inference mode, so that they can be trained.

    Unwraps nested dictionaries (averaged weights first) and removes prefixes such as "module.". Nothing in the file is executed.

    Args:
        path: a .safetensors file, or one that torch.save wrote.
        name: what errors call the file and whose ending counts; None is the file's own name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: one sentence that says what was found instead of a checkpoint.
    """
    path = Path(path)
    name = name or path.name
    start = first_bytes(path, name)
    with torch.inference_mode(False):
        content = _safetensors(path, name) if _is_safetensors(start) else _pickled(path, name, start)
    return tidied(_network(content, name))


def names_of(path: Path | str) -> list[str] | None:
    """The names that `read_state` would give, without reading a weight; None where that takes reading the whole file.

    Raises:
        FileNotFoundError, ValueError: as `read_state`.
    """
    path = Path(path)
    start = first_bytes(path, path.name)
    if _is_safetensors(start):
        header, _ = _header(path, path.name)
        return list(tidied(dict.fromkeys(header)))
    return list(read_state(path)) if start.startswith(_ZIP) else None  # tensors in a zip archive are mapped, not read


def notes_of(path: Path | str) -> dict[str, str]:
    """The metadata of a .safetensors file; empty for any other checkpoint.

    Raises:
        FileNotFoundError, ValueError: as `read_state`.
    """
    path = Path(path)
    if not _is_safetensors(first_bytes(path, path.name)):
        return {}
    _header(path, path.name)  # says in one sentence what is wrong with it
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def first_bytes(path: Path, name: str) -> bytes:
    """The first 512 bytes of a file that may be a checkpoint.

    Raises:
        FileNotFoundError, ValueError: as `read_state`, for what can be told from the name, the size and these bytes.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a checkpoint; give the file in it")
    if not path.is_file():
        raise FileNotFoundError(f"the checkpoint {path} does not exist")
    if not name.lower().endswith(SUFFIXES):
        raise ValueError(f"{name} is not read, as its name ends in none of {', '.join(SUFFIXES)}; give a PyTorch checkpoint")
    with path.open("rb") as file:
        start = file.read(512)
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        raise ValueError(f"{name} is empty; {AGAIN}")
    if start.startswith(_LFS):
        raise ValueError(f"{name} is a Git LFS pointer, not the checkpoint it stands for; run git lfs pull or {AGAIN}")
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise ValueError(f"{name} is a web page saved under that name; download the file itself, not the page that links to it")
    return start


def tidied(state: Mapping[str, _Value]) -> dict[str, _Value]:
    """`state` with only the network's entries where a prefix marks them, and without prefixes that all entries share."""
    flat = dict(state)
    for prefix in SELECTED:
        chosen = {key.removeprefix(prefix): value for key, value in flat.items() if key.startswith(prefix)}
        if chosen:
            flat = chosen
            break
    while flat:
        shared = next((prefix for prefix in COMMON if all(key.startswith(prefix) for key in flat)), None)
        if shared is None:
            return flat
        flat = {key.removeprefix(shared): value for key, value in flat.items()}
    return flat


def _network(content: Any, name: str) -> dict[str, Tensor]:
    """The tensors of the innermost dictionary that wrappers lead to."""
    while isinstance(content, Mapping):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping) and content[key]), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        raise ValueError(f"{name} holds {_named(content)} where the tensors of a network were expected; save its state_dict() instead")
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not state:
        keys = ", ".join(str(key) for key in list(content)[:5]) or "nothing"
        raise ValueError(f"{name} holds no tensors, only {keys}; choose the file with the weights")
    return state


def _named(value: Any) -> str:
    return f"one tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _is_safetensors(start: bytes) -> bool:
    return len(start) > 8 and start[8:9] == b"{"


def _header(path: Path, name: str) -> tuple[dict[str, Any], int]:
    """A .safetensors file's header without its metadata, and the size that the file should have."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
        try:
            header = json.loads(file.read(length)) if length <= size - 8 else None
        except ValueError:
            raise ValueError(f"{name} begins like a .safetensors file, but its header cannot be read; {AGAIN}") from None
    if header is None:
        raise ValueError(f"{name} is cut short: its header alone is {length} bytes, the file is {size}; {AGAIN}")
    header.pop("__metadata__", None)
    return header, 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)


def _safetensors(path: Path, name: str) -> dict[str, Tensor]:
    size, whole = path.stat().st_size, _header(path, name)[1]
    if size < whole:
        raise ValueError(f"{name} is cut short: {size} bytes of {whole}; {AGAIN}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{name} is a damaged .safetensors file ({error}); {AGAIN}") from error


def _pickled(path: Path, name: str, start: bytes) -> Any:
    """What torch.save put into a file, with tensors mapped from it where its format allows."""
    zipped = start.startswith(_ZIP)
    if zipped:
        _check_archive(path, name)
    elif start[:1] != b"\x80":
        raise ValueError(f"{name} is not a checkpoint (it begins with {start[:12]!r}); {AGAIN} or choose another file")
    try:
        if zipped and path.suffix.lower() != ".safetensors":  # an ending that torch.load itself takes at its word
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(_unpicklable(name, str(error))) from error
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can end in any of them
        said = re.split(r"[.:]\s|\n", str(error))[0] or "it ends too early"
        raise ValueError(f"{name} is cut short or damaged ({said}); {AGAIN}") from error


def _check_archive(path: Path, name: str) -> None:
    """Raises ValueError for a zip archive that torch.save did not write, or not wholly."""
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{name} is cut short: the end of its {path.stat().st_size} bytes is not the end of an archive; {AGAIN}")
    with zipfile.ZipFile(path) as archive:
        files = archive.namelist()
    inner = {file.partition("/")[2] for file in files}
    if "constants.pkl" in inner:
        raise ValueError(f"{name} is a TorchScript program, which would have to be run; get the plain checkpoint instead")
    if "data.pkl" not in inner:
        raise ValueError(f"{name} is an archive of other files ({', '.join(files[:3])}), not a checkpoint; unpack it and choose the checkpoint")


def _unpicklable(name: str, said: str) -> str:
    code = re.search(r"GLOBAL ([\w.]+)", said)
    if code:
        return f"{name} can only be opened by running code of {code[1]}, which a file could misuse; get it as .safetensors or as a plain state dict"
    return f"{name} is cut short or damaged, or no PyTorch checkpoint; {AGAIN}"
