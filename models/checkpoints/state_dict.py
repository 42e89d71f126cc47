"""Checkpoint files to plain dictionaries of tensors, whatever the wrapping; what is no checkpoint is named in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..device import out_of_memory
from .pickled import SCRIPT, Archive, NeedsCode, OtherArchive, read_legacy, read_zip
from .stored import DTYPES, MAX_DIMENSIONS, Storage, Stored, check_counts, check_numbers, read_stored

SUFFIXES = (".safetensors", ".sft", ".pth", ".pt", ".ckpt", ".bin")
"""Endings of the files that are read; what is in them is told by their first bytes, not by the ending."""

WRAPPERS = ("params_ema", "g_ema", "ema", "params", "state_dict", "model_state_dict", "model", "generator", "net_g", "network")
"""Keys under which training frameworks put the network, the averaged weights first."""
NETWORK_PREFIXES = ("params_ema.", "params.", "state_dict.", "vqvae.")
"""Prefixes that mark the network's tensors among others: wrappers that a conversion flattened, and RestoreFormer++'s training run."""
SHARED_PREFIXES = ("module.", "_orig_mod.", "netG.", "generator.")
"""Prefixes that wrappers around a network give to all of its tensors."""

AGAIN = "download it again"
MAX_WRAPPERS = 16
"""Dictionaries that wrappers put around a network, at most."""
MAX_HEADER_BYTES = 1 << 25
"""Bytes of a .safetensors header; real ones take some hundred per tensor."""

_ZIP, _LFS = b"PK\x03\x04", b"version https://git-lfs"
_SAFE = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "C64": "complex64",
}  # fmt: skip
"""PyTorch's names of the kinds of number in a .safetensors file."""
_Value = TypeVar("_Value")


class Contents(NamedTuple):
    """A checkpoint file whose tensors are not read yet: the network's by name, where their bytes lie, and the file's metadata."""

    tensors: dict[str, Stored]
    places: dict[str, tuple[int, int]]
    notes: dict[str, str]


def read_state(path: Path | str, name: str | None = None) -> dict[str, Tensor]:
    """The network's tensors by name, on the CPU, in the dtypes of the file; read outside inference mode, so that they can be trained.

    Unwraps nested dictionaries (averaged weights first) and removes prefixes such as "module.". Nothing in the file is executed, and no size
    that it claims is believed beyond the file's own.

    Args:
        path: a .safetensors file, or one that torch.save wrote.
        name: what errors call the file and whose ending counts; None is the file's own name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: one sentence that says what was found instead of a checkpoint, or that numbers in it are NaN, Inf or absurd.
        RuntimeError: if memory runs out.
    """
    return unwrapped(read_tensors(path, name))


def read_tensors(path: Path | str, name: str | None = None) -> dict[str, Tensor]:
    """As `read_state`, under the names of the file."""
    path = Path(path)
    name = name or path.name
    contents = look_into(path, name)
    with torch.inference_mode(False):
        state = guarded(name, lambda: read_stored(path, contents.tensors, contents.places))
    check_numbers(unwrapped(state), name, AGAIN)
    return state


def names_of(path: Path | str) -> list[str]:
    """The names that `read_state` would give, without reading a weight. Raises FileNotFoundError or ValueError as `read_state`."""
    return list(unwrapped(look_into(Path(path)).tensors))


def notes_of(path: Path | str) -> dict[str, str]:
    """The metadata of a .safetensors file; empty for any other checkpoint. Raises FileNotFoundError or ValueError as `read_state`."""
    path = Path(path)
    return look_into(path).notes if _is_safetensors(first_bytes(path, path.name)) else {}


def look_into(path: Path, name: str | None = None) -> Contents:
    """What a checkpoint file holds, without reading a weight. Raises as `read_state`."""
    name = name or path.name
    start = first_bytes(path, name)
    if _is_safetensors(start):
        return guarded(name, lambda: _safetensors(path, name))
    if not start.startswith((_ZIP, b"\x80")):
        raise ValueError(f"{name} is not a checkpoint (it begins with {start[:12]!r}); {AGAIN} or choose another file")
    archive = _torch_file(path, name, read_zip if start.startswith(_ZIP) else read_legacy)
    return Contents(_network(archive.content, name), archive.places, {})


def guarded(name: str, read: Callable[[], _Value]) -> _Value:
    """What `read` gives; whatever a damaged file makes of it is one sentence."""
    try:
        return read()
    except (OSError, CompleteSentence):
        raise
    except Exception as error:
        raise unread(name, error, f"is cut short or damaged ({fault(error)}); {AGAIN}") from error


def unread(name: str, error: Exception, otherwise: str) -> Exception:
    """What to raise where a file gives no network: that memory ran out, of which the file is innocent, or what is `otherwise` wrong with it."""
    if out_of_memory(error):
        return RuntimeError(f"there is not enough memory to load {name} ({fault(error)}); close other programs and try again")
    return ValueError(f"{name} {otherwise}")


class CompleteSentence(ValueError):
    """A sentence that is complete."""


def fault(error: Exception) -> str:
    """The first line of an error; for those that say nothing to people, that something is missing."""
    if isinstance(error, (KeyError, IndexError, EOFError)) or not str(error):
        return "it ends too early or lacks a part"
    return str(error).splitlines()[0][:120]


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


def unwrapped(state: Mapping[str, _Value]) -> dict[str, _Value]:
    """`state` with only the network's entries where a prefix marks them, and without prefixes that all entries share."""
    flat = dict(state)
    for prefix in NETWORK_PREFIXES:
        chosen = {key.removeprefix(prefix): value for key, value in flat.items() if key.startswith(prefix)}
        if chosen:
            flat = chosen
            break
    while flat:
        shared = next((prefix for prefix in SHARED_PREFIXES if all(key.startswith(prefix) for key in flat)), None)
        if shared is None:
            return flat
        flat = {key.removeprefix(shared): value for key, value in flat.items()}
    return flat


def _network(content: Any, name: str) -> dict[str, Stored]:
    """The tensors of the innermost dictionary that wrappers lead to."""
    for _ in range(MAX_WRAPPERS):
        found = content if isinstance(content, dict) else {}
        inner = next((found[key] for key in WRAPPERS if isinstance(found.get(key), dict) and found[key]), None)
        if inner is None:
            break
        content = inner
    else:
        raise ValueError(f"{name} holds dictionaries within each other without end; {AGAIN}")
    if not isinstance(content, dict):
        what = f"one tensor of shape {content.size}" if hasattr(content, "size") else f"a {type(content).__name__}"
        raise ValueError(f"{name} holds {what} where the tensors of a network were expected; save its state_dict() instead")
    state = {str(key): value for key, value in content.items() if isinstance(value, Stored)}
    if not state:
        raise ValueError(f"{name} holds no tensors, only {_listed(content)}; choose the file with the weights")
    return state


def _listed(keys: Any) -> str:
    return ", ".join(str(key)[:40] for key in list(keys)[:5]) or "nothing"


def _is_safetensors(start: bytes) -> bool:
    return len(start) > 8 and start[8:9] == b"{"


def _safetensors(path: Path, name: str) -> Contents:
    """A .safetensors file by its header: the header's length in 8 bytes, the header, and the tensors' bytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise CompleteSentence(f"{name} is cut short: its header alone is {length} bytes, the file is {size}; {AGAIN}")
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"its header claims {length} bytes, and none has more than {MAX_HEADER_BYTES}")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            raise CompleteSentence(f"{name} begins like a .safetensors file, but its header cannot be read; {AGAIN}") from None
    notes = header.pop("__metadata__", None)
    tensors: dict[str, Stored] = {}
    places: dict[str, tuple[int, int]] = {}
    end = 8 + length
    for key, entry in header.items():
        try:
            kind, shape, (first, last) = DTYPES[_SAFE[entry["dtype"]]], tuple(entry["shape"]), entry["data_offsets"]
            check_counts(first, last, *shape[:MAX_DIMENSIONS])
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"its header does not describe {key[:40]} as one does") from None
        if len(shape) > MAX_DIMENSIONS:
            raise ValueError(f"{key[:40]} has {len(shape)} sizes")
        stride = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
        tensors[key] = Stored(Storage(key, kind, prod(shape)), 0, shape, stride)
        places[key] = 8 + length + first, last - first
        if last - first != tensors[key].nbytes:
            raise ValueError(f"{key[:40]} has {last - first} bytes where its shape needs {tensors[key].nbytes}")
        end = max(end, 8 + length + last)
    if size < end:
        raise CompleteSentence(f"{name} is cut short: {size} bytes of {end}; {AGAIN}")
    if not tensors:
        raise CompleteSentence(f"{name} holds no tensors, only {_listed(header)}; choose the file with the weights")
    return Contents(tensors, places, {str(k): str(v) for k, v in notes.items()} if isinstance(notes, dict) else {})


def _torch_file(path: Path, name: str, read: Callable[[Path], Archive]) -> Archive:
    """A file by torch.save, or the sentence that says what it is instead."""
    try:
        return read(path)
    except OtherArchive as error:
        raise ValueError(
            f"{name} is an archive of other files ({_listed(error.names[:3])}), not a checkpoint; unpack it and choose the checkpoint"
        ) from None
    except NeedsCode as error:
        if str(error) == SCRIPT:
            raise ValueError(f"{name} is {SCRIPT}, which would have to be run; get the plain checkpoint instead") from None
        raise ValueError(
            f"{name} can only be opened by running code of {error}, which a file could misuse; get it as .safetensors or as a plain state dict"
        ) from None
    except EOFError:
        raise ValueError(f"{name} is cut short: the end of its {path.stat().st_size} bytes is not the end of an archive; {AGAIN}") from None
    except OSError:
        raise
    except Exception as error:  # a damaged file can end in any of them
        raise unread(name, error, f"is cut short or damaged ({fault(error)}); {AGAIN}") from error
