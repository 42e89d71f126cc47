"""Checkpoint files that claim more than they hold: one sentence, at once, and no memory taken for what a file only says of itself."""

from __future__ import annotations

import json
import pickle
import struct
import time
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fvr.models.checkpoints.load import load_network, peek
from fvr.models.checkpoints.state_dict import names_of, notes_of, read_state
from fvr.models.embedded import read_embedded

CASES = Path(__file__).parents[3] / "shared" / "cases"
WEIGHTS = {"conv.weight": torch.arange(36.0).view(1, 4, 3, 3), "conv.bias": torch.tensor([0.5])}
LEGACY = dict(_use_new_zipfile_serialization=False)


def case(name):
    path = CASES / name
    if not path.exists():
        pytest.skip("needs ../shared/cases")
    return path


def safe(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def zipped(path, content, *, packed=zipfile.ZIP_STORED, **blocks):
    """An archive as torch.save's, around a pickle of our own."""
    with zipfile.ZipFile(path, "w", packed) as archive:
        archive.writestr("x/data.pkl", content)
        archive.writestr("x/version", "3")
        for key, data in blocks.items():
            archive.writestr(f"x/data/{key.removeprefix('_')}", data)
    return path


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Mark:
    def __init__(self, *identity):
        self.identity = identity


class Pickler(pickle._Pickler):
    def persistent_id(self, obj):
        return obj.identity if isinstance(obj, Mark) else None


def pickled(content):
    import io

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump(content)
    return buffer.getvalue()


def tensor(count, size, stride, offset=0, key="0"):
    return Call(torch._utils._rebuild_tensor_v2, Mark("storage", torch.FloatStorage, key, "cpu", count), offset, size, stride, False, {})


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HEADERS = {
    "a number": b"{}1",
    "nested": b"{" + b'"a":{' * 50_000,
    "a text for an entry": {"a": "F32"},
    "no dtype": {"a": {"shape": [2], "data_offsets": [0, 8]}},
    "no shape": {"a": {"dtype": "F32", "data_offsets": [0, 8]}},
    "no offsets": {"a": {"dtype": "F32", "shape": [2]}},
    "one offset": {"a": {**ENTRY, "data_offsets": [0]}},
    "offsets that are texts": {"a": {**ENTRY, "data_offsets": ["0", "8"]}},
    "an odd dtype": {"a": {**ENTRY, "dtype": "F33"}},
    "a dtype that is a list": {"a": {**ENTRY, "dtype": []}},
    "a negative size": {"a": {**ENTRY, "shape": [-2]}},
    "a broken size": {"a": {**ENTRY, "shape": [2.0]}},
    "a true size": {"a": {**ENTRY, "shape": [True, 2]}},
    "an enormous size": {"a": {**ENTRY, "shape": [10**30]}},
    "offsets the wrong way round": {"a": {**ENTRY, "data_offsets": [8, 0]}},
    "fewer bytes than its shape": {"a": {**ENTRY, "shape": [3]}},
    "more bytes than the file": {"a": {"dtype": "F32", "shape": [200], "data_offsets": [0, 800]}},
    "metadata that are a list": {"__metadata__": [1], "a": {**ENTRY, "shape": [9]}},
}


@pytest.mark.parametrize("odd", HEADERS)
def test_an_odd_header_is_one_sentence(odd, tmp_path):
    path = safe(tmp_path / "x.safetensors", HEADERS[odd], bytes(8))
    for read in (read_state, names_of, notes_of, load_network, peek):
        with pytest.raises(ValueError) as caught:
            read(path)
        assert str(caught.value).startswith("x.safetensors ") and "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["head_noshape.safetensors", "self_ref.pth"])
def test_the_damaged_files_that_people_met(name):
    began = time.monotonic()
    with pytest.raises(ValueError, match=f"^{name} ") as caught:
        load_network(case(name))
    assert "\n" not in str(caught.value) and time.monotonic() - began < 2


def test_a_file_cut_anywhere_is_one_sentence(tmp_path):
    """A cut download is the commonest fault there is; whatever first looks at the file must say it."""
    path = tmp_path / "x.safetensors"
    save_file(WEIGHTS, path, metadata={"licence": "MIT"})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        for read in (load_network, peek, *([notes_of] if length > 8 else [])):
            with pytest.raises(ValueError, match=r"^x\.safetensors .*; download it again|choose another file$"):
                read(path)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_file_by_torch_save_cut_anywhere_is_one_sentence(legacy, tmp_path):
    path = tmp_path / "x.pth"
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"^x\.pth .*(download it again|choose another file|or a plain state dict)$"):
            read_state(path)


def test_a_sparse_file_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 5 << 30) + b"{")
        file.truncate((5 << 30) + 8)
    began = time.monotonic()
    with pytest.raises(ValueError, match="header too large"):
        read_state(path)
    assert time.monotonic() - began < 1


def peak(read, path):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as caught:
            read(path)
        return tracemalloc.get_traced_memory()[1], str(caught.value)
    finally:
        tracemalloc.stop()


def test_an_archive_that_unpacks_to_a_thousand_times_its_size_is_not_unpacked(tmp_path):
    path = zipped(tmp_path / "x.pth", b"\x80\x02" + b"N0" * (20 << 20) + b"}.", packed=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 200_000
    memory, sentence = peak(read_state, path)
    assert memory < 4 << 20 and "would unpack to 41943045 bytes" in sentence


LIES = {
    "more numbers than its block": {"a": tensor(10**9, (10**9,), (1,))},
    "a view beyond its storage": {"a": tensor(2, (3,), (1,))},
    "an offset beyond its storage": {"a": tensor(2, (2,), (1,), offset=1)},
    "one number ten thousand million times": {"a": tensor(2, (10**10,), (0,))},
    "a block that is not there": {"a": tensor(2, (2,), (1,), key="9")},
    "a size of ten million digits": {"a": tensor(2, (1 << 2_000_000,) * 30, (0,) * 30)},
    "no sizes but text": {"a": tensor(2, "ab", "cd")},
    "a negative stride": {"a": tensor(2, (2,), (-1,))},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_pickle_takes_no_memory_for_what_it_claims(lie, tmp_path):
    path = zipped(tmp_path / "x.pth", pickled(LIES[lie]), _0=bytes(8))
    began = time.monotonic()
    memory, sentence = peak(read_state, path)
    assert memory < 40 << 20 and sentence.startswith("x.pth ") and time.monotonic() - began < 15


def test_a_file_that_builds_on_itself_is_told_so(tmp_path):
    for file, base in (("a", "a"), ("b", "c"), ("c", "b"), ("d", "../d")):
        save_file(WEIGHTS, tmp_path / f"{file}.safetensors", metadata={"base": f"{base}.safetensors"})
    for file in "abcd":
        with pytest.raises(ValueError, match="which is no other file beside it"):
            load_network(tmp_path / f"{file}.safetensors")
    save_file(WEIGHTS, tmp_path / "e.safetensors", metadata={"base": "absent.safetensors"})
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors is missing"):
        read_embedded(tmp_path / "e.safetensors")


# ---------------------------------------------------------------- what the reader must still read


FLOATS = ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64"]
ALL = [*FLOATS, "int64", "int32", "int16", "int8", "uint8", "bool", "uint16", "uint32"]


@pytest.mark.parametrize("legacy", [True, False])
def test_every_kind_of_number_and_view_comes_back(legacy, tmp_path):
    base = torch.arange(60).reshape(3, 4, 5)
    views = {
        "turned": base.float().permute(2, 0, 1),
        "part": base.double()[1:, ::2, 1:],
        "wide": torch.ones(1, 3).expand(4, 3),
        "none": torch.empty(0, 3),
    }
    state = {name: base.to(getattr(torch, name)) for name in ALL if not (legacy and name.startswith(("float8", "uint16", "uint32")))} | views
    state |= {"one": torch.tensor(2.5), "learnt": torch.nn.Parameter(torch.ones(2)), "tied": base, "tied again": base}
    marked = torch.nn.Parameter(torch.ones(3))
    marked.note = "an attribute of its own"
    path = tmp_path / "x.pth"
    torch.save(
        {**state, "marked": marked, "size": base.shape, "places": {1, 2}, "rng": bytearray(b"12"), "raw": b"\x00\xff"},
        path,
        _use_new_zipfile_serialization=not legacy,
    )
    found = read_state(path)
    assert found.keys() == {*state, "marked"}
    for name, value in state.items():
        assert found[name].dtype == value.dtype and torch.equal(
            found[name].view(torch.uint8) if "float8" in name else found[name], value.view(torch.uint8) if "float8" in name else value
        )
        assert type(found[name]) is torch.Tensor and not found[name].requires_grad


def test_a_module_s_metadata_are_no_tensors(tmp_path):
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    torch.save(network.state_dict(), tmp_path / "x.pth")
    state = read_state(tmp_path / "x.pth")
    network.load_state_dict(state)
    assert state["1.num_batches_tracked"].shape == ()


def test_a_sparse_tensor_is_left_out(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save({"a": torch.eye(3).to_sparse()}, tmp_path / "x.pth")
        with pytest.raises(ValueError, match="holds no tensors, only a"):
            read_state(tmp_path / "x.pth")
