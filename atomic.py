"""Files that are there whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to. On leaving its file takes the place of `path`; after any exception it is gone, and `path` as it was.

    Raises OSError in one sentence for what PyTorch, safetensors and the system each say in words of their own of a full disk.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        part.replace(path)
    except BaseException as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if not isinstance(error, (OSError, RuntimeError, SafetensorError)):
            raise
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
        raise OSError(
            f"{path} could not be written ({reason}); the disk may be full: make room and start it again, which goes on from what is done"
        ) from error


def write_bytes(path: Path, data: bytes) -> None:
    with atomic_file(path) as part:
        part.write_bytes(data)


def write_tensors(tensors: Mapping[str, Tensor], path: Path, notes: Mapping[str, str] | None = None) -> None:
    """A .safetensors file with `notes` as its metadata."""
    with atomic_file(path) as part:
        save_file(dict(tensors), part, None if notes is None else dict(notes))
