"""Files to tensors: every wrapping that people publish, and one sentence for everything else that lies in model folders."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from fvr.models.checkpoints.state_dict import names_of, read_state

WEIGHTS = {"conv.weight": torch.arange(36.0).view(1, 4, 3, 3), "conv.bias": torch.tensor([0.5])}
OTHER = {key: -value for key, value in WEIGHTS.items()}


def prefixed(prefix, state=WEIGHTS):
    return {prefix + key: value for key, value in state.items()}


class ModelCheckpoint:
    """A callback of Lightning's, by whose class its checkpoints keep what it knows."""


WRAPPINGS = {
    "flat": WEIGHTS,
    "params_ema before params": {"params": OTHER, "params_ema": WEIGHTS},
    "params": {"params": WEIGHTS, "iter": 3},
    "state_dict": {"state_dict": WEIGHTS, "epoch": 7, "global_step": 9},
    "model": {"model": WEIGHTS, "optimizer": {"state": {}, "param_groups": []}},
    "generator": {"generator": WEIGHTS},
    "g_ema before g": {"g": OTHER, "g_ema": WEIGHTS},
    "an empty average": {"params_ema": {}, "params": WEIGHTS},
    "two deep": {"state_dict": {"params_ema": WEIGHTS}},
    "module": prefixed("module."),
    "params_ema and module": {"params_ema": prefixed("module.")},
    "compiled in parallel": prefixed("_orig_mod.module."),
    "RestoreFormer++": {"state_dict": {**prefixed("vqvae."), **prefixed("loss.", OTHER)}, "callbacks": {ModelCheckpoint: {"best": 0.5}}},
    "a flattened wrapper": {**prefixed("params."), **prefixed("unused.", OTHER)},
}


FLAT = [wrapping for wrapping, content in WRAPPINGS.items() if all(isinstance(value, torch.Tensor) for value in content.values())]
CASES = [(wrapping, ending) for wrapping in WRAPPINGS for ending in ("pth", "legacy.pth")] + [(wrapping, "safetensors") for wrapping in FLAT]


@pytest.mark.parametrize(("wrapping", "ending"), CASES)
def test_the_network_is_found_in_every_wrapping(wrapping, ending, tmp_path):
    path, content = tmp_path / f"x.{ending}", WRAPPINGS[wrapping]
    if ending == "safetensors":
        save_file(content, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization="legacy" not in ending)
    state = read_state(path)
    assert state.keys() == WEIGHTS.keys()
    assert all(torch.equal(state[key], value) for key, value in WEIGHTS.items())
    assert sorted(names_of(path)) == sorted(WEIGHTS)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_a_file_that_memory_has_no_room_for_is_not_called_damaged(tmp_path):
    import resource

    path, size = tmp_path / "large.safetensors", 1 << 36
    header = json.dumps({"weight": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)  # sparse: takes no room on the disk
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 35, before[1]))
    try:
        with pytest.raises(RuntimeError, match=r"not enough memory to load large\.safetensors .*; close other programs and try again"):
            read_state(path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_what_is_inside_counts_not_the_ending(tmp_path):
    save_file(WEIGHTS, tmp_path / "named.pth")
    torch.save(WEIGHTS, tmp_path / "named.safetensors")
    for path in tmp_path.iterdir():
        assert torch.equal(read_state(path)["conv.bias"], WEIGHTS["conv.bias"])


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_weights_read_in_inference_mode_can_be_trained(ending, tmp_path):
    path = tmp_path / f"x.{ending}"
    save_file(WEIGHTS, path) if ending == "safetensors" else torch.save(WEIGHTS, path)
    with torch.inference_mode():
        state = read_state(path)
    assert not any(value.is_inference() for value in state.values())
    weight = state["conv.weight"].requires_grad_()
    weight.square().sum().backward()
    assert torch.equal(weight.grad, 2 * WEIGHTS["conv.weight"])
    with torch.no_grad():
        weight.zero_()
    assert torch.equal(read_state(path)["conv.weight"], WEIGHTS["conv.weight"]), "the file itself was written to"


def saved(content, path, **options):
    torch.save(content, path, **options)
    return path.read_bytes()


LEGACY = dict(_use_new_zipfile_serialization=False)


def script(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))


def archive(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "hello")


def tensors(path):
    save_file(WEIGHTS, path)
    return path.read_bytes()


FAULTS = {
    "empty": ("x.pth", lambda path: path.touch(), "x.pth is empty"),
    "page": ("x.pth", lambda path: path.write_text("\n<!DOCTYPE html><html>Sign in"), "is a web page saved under that name"),
    "pointer": ("x.safetensors", lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0"), "Git LFS pointer"),
    "ending": ("x.onnx", lambda path: path.write_bytes(b"\x08\x07"), "x.onnx is not read, as its name ends in none of .safetensors"),
    "folder": ("x.pth", lambda path: path.mkdir(), "is a folder"),
    "text": ("x.pth", lambda path: path.write_text("hello there"), "is not a checkpoint (it begins with b'hello there')"),
    "cut zip": ("x.pth", lambda path: path.write_bytes(saved(WEIGHTS, path)[:-40]), "x.pth is cut short"),
    "cut legacy": (
        "x.pth",
        lambda path: path.write_bytes(saved(WEIGHTS, path, _use_new_zipfile_serialization=False)[:-40]),
        "is cut short or damaged",
    ),
    "cut safetensors": ("x.safetensors", lambda path: path.write_bytes(tensors(path)[:-4]), "file not fully covered"),
    "cut header": ("x.safetensors", lambda path: path.write_bytes(tensors(path)[:30]), "invalid header length"),
    "bad header": ("x.safetensors", lambda path: path.write_bytes(b"\x04" + bytes(7) + b"{oh}"), "invalid JSON in header"),
    "code": ("x.pth", lambda path: torch.save({"args": argparse.Namespace(), **WEIGHTS}, path), "by running code of argparse.Namespace"),
    "module": ("x.pth", lambda path: torch.save(torch.nn.Linear(2, 2), path), "by running code of torch.nn.modules.linear.Linear"),
    "script": ("x.pt", script, "is a TorchScript program"),
    "archive": ("x.pth", archive, "is an archive of other files (readme.txt)"),
    "one tensor": ("x.pth", lambda path: torch.save(torch.ones(3), path), "holds one tensor of shape (3,)"),
    "list": ("x.pth", lambda path: torch.save([WEIGHTS], path), "holds a list where"),
    "no tensors": ("x.pth", lambda path: torch.save({"epoch": 3}, path), "holds no tensors, only epoch"),
    "nothing": ("x.safetensors", lambda path: save_file({}, path), "holds no tensors"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_checkpoint_is_named_in_one_sentence(fault, tmp_path):
    name, make, words = FAULTS[fault]
    make(tmp_path / name)
    with pytest.raises(ValueError) as caught:
        read_state(tmp_path / name)
    message = str(caught.value)
    assert words in message and message.startswith((name, str(tmp_path))) and "\n" not in message and len(message) < 300


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_file_gives_one_sentence_or_its_tensors(zipped, seed, tmp_path):
    path = tmp_path / "x.pth"
    whole = bytearray(saved(WEIGHTS, path, _use_new_zipfile_serialization=zipped))
    draw = torch.Generator().manual_seed(seed)
    for place in torch.randint(min(len(whole), 900), (12,), generator=draw).tolist():
        whole[place] ^= int(torch.randint(1, 256, (), generator=draw))
    path.write_bytes(whole)
    try:
        assert all(isinstance(value, torch.Tensor) for value in read_state(path).values())
    except ValueError as error:
        assert str(error).startswith("x.pth ") and "\n" not in str(error)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pth does not exist"):
        read_state(tmp_path / "absent.pth")
