"""Reads checkpoint files as plain dictionaries of tensors, whatever the wrapping; other files are named in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar
from zipfile import ZipFile

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ..device import out_of_memory

SUFFIXES = (".safetensors", ".sft", ".pth", ".pt", ".ckpt", ".bin")
"""Endings of the files that are read; the format is recognised by the first bytes, not by the ending."""

WRAPPERS = ("params_ema", "g_ema", "ema", "params", "state_dict", "model_state_dict", "model", "generator", "net_g", "network")
"""Keys under which training frameworks put the network, the averaged weights first."""
NETWORK_PREFIXES = ("params_ema.", "params.", "state_dict.", "vqvae.")
"""Prefixes that mark the network's tensors among others: from flattened wrappers, and from RestoreFormer++'s training run."""
SHARED_PREFIXES = ("module.", "_orig_mod.", "netG.", "generator.")
"""Prefixes that wrappers around a network give to all of its tensors."""

AGAIN = "download it again"
MAX_WRAPPERS = 16
"""Largest number of nested dictionaries around a network."""
MAX_EXPANSION = 4
"""Largest ratio of the tensors' size to the file's: weights may be shared and repeated, but not without limit."""
MAX_NAMED = 16
"""Largest number of classes that a file may refer to; none of them is used."""
MAX_MAGNITUDE = 1e12
"""Larger than any number in a trained network; flipped bits produce larger ones."""

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
        ValueError: one sentence that says what was found instead of a checkpoint, or that numbers in it are NaN, Inf or absurd.
        RuntimeError: if memory runs out.
    """
    return unwrapped(read_tensors(path, name))


def read_tensors(path: Path | str, name: str | None = None) -> dict[str, Tensor]:
    """As `read_state`, under the names of the file."""
    path = Path(path)
    name = name or path.name
    with torch.inference_mode(False):
        state = _tensors(path, name)
    check_numbers(unwrapped(state), name)
    return state


def names_of(path: Path | str) -> list[str]:
    """The names that `read_state` would give; what can be mapped is not read. Raises FileNotFoundError or ValueError as `read_state`."""
    path = Path(path)
    return list(unwrapped(_tensors(path, path.name)))


def notes_of(path: Path | str) -> dict[str, str]:
    """The metadata of a .safetensors file; empty for any other checkpoint. Raises FileNotFoundError or ValueError as `read_state`."""
    path = Path(path)
    if not _is_safetensors(first_bytes(path, path.name)):
        return {}
    with guarded(path.name), safe_open(path, "pt") as file:
        return file.metadata() or {}


def _tensors(path: Path, name: str) -> dict[str, Tensor]:
    """The network's tensors, mapped where the file's form allows it: writing to them leaves the file alone."""
    start = first_bytes(path, name)
    if _is_safetensors(start):
        with guarded(name):
            state = load_file(path)
        if not state:
            raise ValueError(f"{name} holds no tensors; choose the file with the weights")
        return state
    if not start.startswith((_ZIP, b"\x80")):
        raise ValueError(f"{name} is not a checkpoint (it begins with {start[:12]!r}); {AGAIN} or choose another file")
    state = _network(_unpickled(path, name, start.startswith(_ZIP)), name)
    claimed, size = sum(value.numel() * value.itemsize for value in state.values()), path.stat().st_size
    if claimed > MAX_EXPANSION * size:
        raise ValueError(f"{name} is damaged (its tensors take {claimed} bytes where it has {size}); {AGAIN}")
    return state


@contextmanager
def guarded(name: str) -> Iterator[None]:
    """Turns whatever a reader raises for a damaged file into one sentence."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and not out_of_memory(error):
            raise
        raise unread(name, error, f"is cut short or damaged ({fault(error)}); {AGAIN}") from error


def unread(name: str, error: Exception, otherwise: str) -> Exception:
    """The exception for a file that could not be read: RuntimeError if memory ran out, else ValueError with the sentence `otherwise`."""
    if out_of_memory(error):
        return RuntimeError(f"there is not enough memory to load {name} ({fault(error)}); close other programs and try again")
    return ValueError(f"{name} {otherwise}")


def fault(error: Exception) -> str:
    """The first line of an error; for errors without a readable message, that something is missing."""
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


def _network(content: Any, name: str) -> dict[str, Tensor]:
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
        what = f"one tensor of shape {tuple(content.shape)}" if isinstance(content, Tensor) else f"a {type(content).__name__}"
        raise ValueError(f"{name} holds {what} where the tensors of a network were expected; save its state_dict() instead")
    state = {str(key): value.detach() for key, value in content.items() if isinstance(value, Tensor) and value.layout == torch.strided}
    if not state:
        raise ValueError(f"{name} holds no tensors, only {_listed(content)}; choose the file with the weights")
    return state


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(str(name)[:40] for name in list(names)[:5]) or "nothing"


def _is_safetensors(start: bytes) -> bool:
    return len(start) > 8 and start[8:9] == b"{"


class _Named:
    """Stands for a class that a file only refers to, as Lightning's checkpoints do for their callbacks; it cannot be called."""

    def __new__(cls, *_: Any) -> Any:
        raise TypeError(f"GLOBAL {cls.__module__}.{cls.__name__}")


def _unpickled(path: Path, name: str, zipped: bool) -> Any:
    """The content of a file by torch.save, read by PyTorch without executing code."""
    if zipped:
        _check_archive(path, name)
    named: dict[str, type[_Named]] = {}
    while True:
        try:
            with guarded(name), _allowed(list(named.values())):
                if path.suffix == ".safetensors":  # PyTorch would believe the name
                    with path.open("rb") as file:
                        return torch.load(file, map_location="cpu", weights_only=True)
                return torch.load(str(path), map_location="cpu", weights_only=True, mmap=zipped)
        except ValueError as error:
            called = re.search(r"(?:GLOBAL|Unsupported class) (\w[\w.]*)\.(\w+)", str(error.__cause__))
            if called is None:
                raise
            full = f"{called[1]}.{called[2]}"
            if full in named or len(named) == MAX_NAMED or "blocked" in str(error.__cause__):
                raise ValueError(
                    f"{name} can only be opened by running code of {full}, which a file could misuse; get it as .safetensors or a plain state dict"
                ) from None
            named[full] = type(called[2], (_Named,), {"__module__": called[1]})


def _allowed(stand_ins: list[type[_Named]]) -> AbstractContextManager[Any]:
    """torch.serialization.safe_globals, which lets stand-ins take the names of classes; PyTorch before 2.5 has none and refuses such files."""
    safe_globals = getattr(torch.serialization, "safe_globals", None)
    return nullcontext() if safe_globals is None else safe_globals(stand_ins)


def _check_archive(path: Path, name: str) -> None:
    """Raises ValueError for an archive that torch.save did not write, and for a compressed one, as torch.save compresses nothing."""
    with guarded(name), ZipFile(path) as archive:
        members = {member.filename.partition("/")[2]: member for member in archive.infolist()}
        names = archive.namelist()
    if "constants.pkl" in members:
        raise ValueError(f"{name} is a TorchScript program, which would have to be run; get the plain checkpoint instead")
    if "data.pkl" not in members:
        raise ValueError(f"{name} is an archive of other files ({_listed(names[:3])}), not a checkpoint; unpack it and choose the checkpoint")
    unpacked = sum(member.file_size for member in members.values())
    if unpacked > path.stat().st_size:
        raise ValueError(f"{name} would unpack to {unpacked} bytes, and torch.save packs nothing; {AGAIN}")


def check_numbers(state: Mapping[str, Tensor], name: str) -> None:
    """Raises ValueError for NaN, Inf, and numbers beyond MAX_MAGNITUDE; masks may hold -Inf."""
    odd = [key for key, value in state.items() if not _plausible(key, value)]
    if odd:
        more = f" and {len(odd) - 1} more of its {len(state)} tensors" if len(odd) > 1 else ""
        raise ValueError(f"{name} is damaged: {odd[0]}{more} hold NaN, Inf or numbers that no trained network has; {AGAIN}")


def _plausible(name: str, value: Tensor) -> bool:
    if value.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64) or not value.numel() or value.device.type == "meta":
        return True
    low, high = (float(bound) for bound in value.aminmax())  # NaN where any number is
    return high <= MAX_MAGNITUDE and (low >= -MAX_MAGNITUDE or "mask" in name)
