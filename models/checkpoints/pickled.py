"""What torch.save wrote, read without running any of it.

A pickle is a program for a machine with a stack. Checkpoints need few of its instructions; here they build dictionaries, lists, tuples, texts,
numbers and descriptions of tensors, and whatever else a file calls for is refused by its name. PyTorch's own reader (weights_only) runs no
code either, but believes sizes that a file claims and follows it wherever it leads.
"""

from __future__ import annotations

import io
import pickletools
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from .stored import DTYPES, Storage, Stored

MAX_MEMBERS = 50_000
"""Files in an archive; one per tensor, and the largest published models have a few thousand tensors."""
PICKLE_BYTES = 1 << 20
"""Bytes of a pickle for everything but tensors, which take some 200 each."""
PICKLE_BYTES_PER_TENSOR = 1 << 10

SCRIPT = "a TorchScript program"

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
"""What the first two of an old file's pickles hold."""

_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32", "Short": "int16",
    "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexFloat": "complex64", "ComplexDouble": "complex128", "Untyped": "uint8",
}  # fmt: skip


class NeedsCode(ValueError):
    """The file calls for a class or function, whose name this holds, that only running code would give."""


@dataclass(frozen=True)
class Archive:
    """A file by torch.save: what it holds, with Stored in place of tensors, and where its blocks of bytes lie (start, length)."""

    content: Any
    places: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle refers to."""

    full: str


@dataclass(frozen=True)
class Member:
    """A file in a zip archive: where its own header is, and its length."""

    header: int
    length: int
    packed: bool


# ---------------------------------------------------------------- the machine


def unpickled(file: BinaryIO, storages: dict[str, Storage] | None = None) -> Any:
    """The object that the next pickle of `file` makes; storages that it refers to are added to `storages` by their keys.

    Raises:
        NeedsCode: if that takes more than plain values and tensors.
        ValueError, IndexError, KeyError, TypeError: if it is damaged.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    copied = 0

    def pop_mark() -> list[Any]:
        at = marks.pop()
        items = stack[at:]
        del stack[at:]
        return items

    program: Iterator[tuple[Any, Any, Any]] = pickletools.genops(file)
    for code, argument, position in program:
        kind = code.name
        if kind in _PUSH_ARGUMENT:
            stack.append(argument)
        elif kind in _PUSH_NEW:
            stack.append(_PUSH_NEW[kind]())
        elif kind in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[argument] = stack[-1]
        elif kind == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif kind in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[argument])
        elif kind == "MARK":
            marks.append(len(stack))
        elif kind in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(kind[-1])
            stack[-count:] = [tuple(_of_length(stack[-count:], count))]
        elif kind in ("TUPLE", "LIST"):
            items = pop_mark()
            stack.append(tuple(items) if kind == "TUPLE" else items)
        elif kind in ("DICT", "SETITEMS", "SETITEM"):
            items = [stack.pop(-2), stack.pop()] if kind == "SETITEM" else pop_mark()
            if kind == "DICT":
                stack.append({})
            _set_items(stack[-1], items)
        elif kind in ("APPEND", "APPENDS"):
            items = [stack.pop()] if kind == "APPEND" else pop_mark()
            _expect(list, stack[-1]).extend(items)
        elif kind in ("ADDITEMS", "FROZENSET"):  # no weights are in sets
            pop_mark()
            if kind == "FROZENSET":
                stack.append(())
        elif kind in ("GLOBAL", "STACK_GLOBAL"):
            module, name = argument.split(" ", 1) if kind == "GLOBAL" else (stack.pop(-2), stack.pop())
            stack.append(_known(f"{module}.{name}"))
        elif kind in ("REDUCE", "NEWOBJ"):
            arguments = _expect(tuple, stack.pop())
            made, size = _reduce(_expect(Name, stack.pop()), arguments)
            copied += size
            if copied > position:
                raise ValueError("it repeats itself without end")
            stack.append(made)
        elif kind == "BUILD":
            stack.pop()
            if not isinstance(stack[-1], (dict, Stored)):
                raise ValueError("it sets attributes of what has none")
        elif kind == "BINPERSID":
            whole_row, part = _storage(_expect(tuple, stack.pop()))
            if storages is not None:
                storages[whole_row.key] = whole_row
            stack.append(part)
        elif kind == "POP":
            stack.pop()
        elif kind == "POP_MARK":
            pop_mark()
        elif kind == "DUP":
            stack.append(stack[-1])
        elif kind == "STOP":
            return stack.pop()
        elif kind not in ("PROTO", "FRAME"):
            _known(str(argument or kind).replace(" ", "."))
            raise NeedsCode(kind)
    raise ValueError("it has no end")


_PUSH_ARGUMENT = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_PUSH_NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": tuple,
}


def _expect(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"it has a {type(value).__name__} where a {kind.__name__} was expected")
    return value


def _of_length(items: list[Any], count: int) -> list[Any]:
    if len(items) != count:
        raise ValueError("it takes what it has not made")
    return items


def _set_items(target: Any, items: list[Any]) -> None:
    """Keys and values in turn; keys that are neither texts nor counts name no tensor and are left out."""
    _expect(dict, target)
    for key, value in zip(items[::2], items[1::2], strict=True):
        if isinstance(key, str) or (type(key) is int and abs(key) < 1 << 60):
            target[key] = value


def _known(full: str) -> Name:
    """A class or function that the machine knows how to stand in for. Raises NeedsCode for all others."""
    if full in _CALLS or full in _CONSTANTS or _dtype_of(full) is not None:
        return Name(full)
    if not re.fullmatch(r"[\w.]{1,120}", full):
        raise ValueError("it calls for something without a name")
    raise NeedsCode(full)


def _dtype_of(full: str) -> torch.dtype | None:
    """Of "torch.float16", or of the numbers in "torch.HalfStorage"; None for other names."""
    module, _, name = full.rpartition(".")
    if module not in ("torch", "torch.cuda", "torch.storage"):
        return None
    return DTYPES.get(_STORAGES.get(name.removesuffix("Storage"), "") if name.endswith("Storage") else name)


def _storage(mark: tuple[Any, ...]) -> tuple[Storage, Storage]:
    """The whole and the part that ("storage", class, key, device, count) means; old files may add (key, first element, count) of the part."""
    if len(mark) not in (5, 6) or mark[0] not in ("storage", b"storage"):
        raise ValueError("it refers to something that is no tensor")
    dtype = _dtype_of(_expect(Name, mark[1]).full)
    if dtype is None:
        raise ValueError(f"{mark[1].full} holds no numbers")
    row = Storage(str(mark[2]), dtype, mark[4])
    if len(mark) == 5 or mark[5] is None:
        return row, row
    part = Storage(row.key, dtype, mark[5][2], mark[5][1])
    if part.first + part.count > row.count:
        raise ValueError("a part of a storage is larger than the whole")
    return row, part


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Stored:
    return Stored(_expect(Storage, storage), offset, _expect(tuple, size), _expect(tuple, stride))


def _tensor_of(storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, dtype: Any, *_: Any) -> Stored:
    """A tensor whose numbers are not of the kind that its storage's class says, but `dtype`."""
    kind, raw = _dtype_of(_expect(Name, dtype).full), _expect(Storage, storage)
    if kind is None:
        raise ValueError(f"{dtype.full} is no kind of number")
    count, rest = divmod(raw.count * raw.dtype.itemsize, kind.itemsize)
    if rest or raw.first:
        raise ValueError("a storage is no whole number of elements long")
    return _tensor(Storage(raw.key, kind, count), offset, size, stride)


def _first_argument(value: Any = (), *_: Any) -> Any:
    return value


def _ordered(items: Any = (), *_: Any) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    _set_items(made, [part for pair in items for part in _of_length(list(pair), 2)])
    return made


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of,
    "torch._utils._rebuild_parameter": _first_argument,
    "torch._utils._rebuild_parameter_with_state": _first_argument,
    "torch.nn.parameter.Parameter": _first_argument,
    "torch._tensor._rebuild_from_type_v2": _first_argument,
    "torch.Size": _first_argument,
    "torch.device": _first_argument,
    **dict.fromkeys(
        ("builtins.set", "__builtin__.set", "builtins.bytearray", "__builtin__.bytearray", "_codecs.encode", "collections.Counter"), _first_argument
    ),
}
"""What is made in place of each function's result; of values that are no tensors any stand-in will do."""
_CONSTANTS = frozenset({"torch.Tensor", "torch.FloatTensor", "torch.strided", "torch.contiguous_format", "torch.serialization._get_layout"})


def _reduce(function: Name, arguments: tuple[Any, ...]) -> tuple[Any, int]:
    """What a call gives, and how many values it copied."""
    if function.full not in _CALLS:
        return None, 0
    if function.full.endswith("_from_type_v2"):  # (function, class of the result, arguments, attributes)
        return _reduce(_expect(Name, arguments[0]), _expect(tuple, arguments[2]))
    made = _CALLS[function.full](*arguments)
    return made, len(made) if function.full == "collections.OrderedDict" else 0


# ---------------------------------------------------------------- files


def read_zip(path: Path) -> Archive:
    """A file as torch.save writes it since version 1.6: an archive with a pickle, and each storage as a file of its own.

    Raises:
        NeedsCode, ValueError: with what is wrong, in a few words; or as `unpickled`.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        listed = dict(_central_directory(file, size))
        parts = {name.partition("/")[2]: part for name, part in listed.items()}
        if "constants.pkl" in parts:
            raise NeedsCode(SCRIPT)
        if "data.pkl" not in parts:
            raise OtherArchive(list(listed))
        packed = next((name for name, part in parts.items() if part.packed), None)
        if packed is not None or sum(part.length for part in parts.values()) > size:
            raise ValueError(f"{packed or 'its parts'} would unpack to {sum(p.length for p in parts.values())} bytes, and torch.save packs nothing")
        if "byteorder" in parts and _bytes(file, parts["byteorder"], 16) == b"big":
            raise ValueError("its numbers have their bytes in another order")
        content = unpickled(io.BytesIO(_bytes(file, parts["data.pkl"], PICKLE_BYTES + PICKLE_BYTES_PER_TENSOR * len(parts))))
        blocks = {name.removeprefix("data/"): part for name, part in parts.items() if name.startswith("data/")}
        return Archive(content, {key: (_data_offset(file, part), part.length) for key, part in blocks.items()})


class OtherArchive(ValueError):
    """An archive that torch.save did not write; holds the names of the files in it."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(", ".join(names))
        self.names = names


def _central_directory(file: BinaryIO, size: int) -> Iterator[tuple[str, Member]]:
    """The files of a zip archive by its directory, which its end points to."""
    tail = min(size, (1 << 16) + 22)
    file.seek(size - tail)
    end = file.read(tail)
    at = end.rfind(b"PK\5\6")
    if at < 0 or len(end) - at < 22:
        raise EOFError
    count, length, start = struct.unpack("<10xHLL", end[at : at + 20])
    if at >= 20 and end[at - 20 : at - 16] == b"PK\6\7":
        file.seek(min(struct.unpack("<Q", end[at - 12 : at - 4])[0], size))
        large = file.read(56)
        if len(large) < 56 or large[:4] != b"PK\6\6":
            raise EOFError
        count, length, start = struct.unpack("<32xQQQ", large)
    if count > MAX_MEMBERS or length > min(size, MAX_MEMBERS * 256):
        raise ValueError(f"it lists {count} files, and no checkpoint has more than {MAX_MEMBERS}")
    file.seek(min(start, size))
    listing = file.read(length)
    at = 0
    for _ in range(count):
        fields = struct.unpack_from("<4s4xHH8xLLHHH8xL", listing, at)
        if fields[0] != b"PK\1\2":
            raise EOFError
        flags, method, held, long, named, extra, comment, header = fields[1:]
        at += 46
        name = listing[at : at + named].decode("utf-8", "replace")
        held, long, header = _zip64(listing[at + named : at + named + extra], held, long, header)
        at += named + extra + comment
        yield name, Member(header, long, bool(flags & 1 or method or held != long))


def _zip64(extra: bytes, held: int, long: int, header: int) -> tuple[int, int, int]:
    """A part's lengths and place where they take more than 32 bits, from the fields behind its name."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            numbers = iter(struct.unpack_from(f"<{length // 8}Q", extra, at + 4))
            long, held, header = (next(numbers) if value == 0xFFFFFFFF else value for value in (long, held, header))
        at += 4 + length
    return held, long, header


def _data_offset(file: BinaryIO, part: Member) -> int:
    """Where a part's bytes begin, by the lengths in its own header."""
    file.seek(part.header)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\3\4":
        raise EOFError
    return part.header + 30 + sum(struct.unpack("<HH", header[26:]))


def _bytes(file: BinaryIO, part: Member, most: int) -> bytes:
    if part.length > most:
        raise ValueError(f"it needs {part.length} bytes to describe its tensors, and no checkpoint needs {most}")
    file.seek(_data_offset(file, part))
    return file.read(part.length)


def read_legacy(path: Path) -> Archive:
    """A file as torch.save wrote it before version 1.6: pickles in a row, then each storage's length and bytes.

    Raises:
        NeedsCode, ValueError: with what is wrong, in a few words; or as `unpickled`.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        pickles = io.BytesIO(file.read(PICKLE_BYTES + min(size >> 4, 64 * PICKLE_BYTES)))
        if unpickled(pickles) != _MAGIC or unpickled(pickles) != _PROTOCOL:
            raise ValueError("it does not begin as torch.save's files do")
        if not _expect(dict, unpickled(pickles)).get("little_endian", True):
            raise ValueError("its numbers have their bytes in another order")
        storages: dict[str, Storage] = {}
        content = unpickled(pickles, storages)
        keys = _expect(list, unpickled(pickles))
        places: dict[str, tuple[int, int]] = {}
        at = pickles.tell()
        for key in map(str, keys):
            file.seek(at)
            places[key] = at + 8, int.from_bytes(file.read(8), "little") * storages[key].dtype.itemsize
            at = sum(places[key])
            if at > size:
                raise ValueError("it ends inside its tensors")
        return Archive(content, places)
