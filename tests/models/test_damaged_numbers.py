"""Weights with NaN, Inf or absurd numbers are refused at load, and a network whose first output is not finite says so: never garbage, silently."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import pytest
import torch
from helpers.code_networks import small_codeformer
from helpers.flair_small import seeded
from helpers.small_keep import small_keep
from safetensors.torch import load_file, save_file

from fvr.methods.base import restore_frames
from fvr.methods.registry import restorer_from
from fvr.models.checkpoints.fill import fill
from fvr.models.checkpoints.load import load_network
from fvr.models.checkpoints.state_dict import read_state
from fvr.models.embedded import FOLDER, RESTORERS
from fvr.priors.load import prior_from_file

WEIGHTS = {"conv.weight": torch.arange(36.0).view(1, 4, 3, 3), "conv.bias": torch.tensor([0.5])}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf"), 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_one_number_that_none_can_be_is_refused_at_load(number, dtype, ending, tmp_path):
    state = {name: value.to(dtype, copy=True) for name, value in WEIGHTS.items()}
    state["conv.weight"][0, 1, 2, 0] = number
    path = tmp_path / f"x.{ending}"
    save_file(state, path) if ending == "safetensors" else torch.save(state, path)
    with pytest.raises(ValueError, match=rf"^x\.{ending} is damaged: conv\.weight hold"):
        read_state(path)


def test_masks_and_what_is_not_the_network_s_may_hold_infinity(tmp_path):
    state = {**WEIGHTS, "attn_mask": torch.full((2, 2), float("-inf"))}
    torch.save({"params_ema": state, "optimizer": {"best": torch.tensor(float("inf"))}}, tmp_path / "x.pth")
    assert read_state(tmp_path / "x.pth").keys() == state.keys()


@pytest.mark.parametrize("seed", range(5))
def test_forty_random_bytes_are_found(seed, tmp_path):
    """In float32, one random number in three has an exponent that no weight has."""
    path, draw = tmp_path / "x.safetensors", random.Random(seed)
    save_file(small_codeformer().state_dict(), path)
    data = bytearray(path.read_bytes())
    at = draw.randrange(len(data) // 2, len(data) - 40) & ~3
    data[at : at + 40] = draw.randbytes(40)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.safetensors is damaged"):
        load_network(path)


def spoilt(network, part):
    """Weights that are finite and small enough each, whose product is not."""
    state = {name: value.clone() for name, value in network.state_dict().items()}
    for name, value in state.items():
        if part in name and value.is_floating_point():
            value.fill_(9e11)
    return state


@pytest.mark.parametrize(("make", "part"), [(small_codeformer, "generator.blocks"), (small_codeformer, "ft_layers"), (small_keep, "encoder.blocks")])
def test_a_restorer_s_first_output_is_looked_at(make, part, tmp_path):
    torch.save(spoilt(make(), part), tmp_path / "x.pth")
    restorer = restorer_from(load_network(tmp_path / "x.pth"))
    with pytest.raises(ValueError, match=r"^x\.pth is damaged: on its first picture its layer .* gives NaN or Inf; get the file again$"):
        restore_frames(restorer, torch.rand(1, 3, 64, 64))


def test_a_sound_network_is_looked_at_once_and_its_copies_too(tmp_path):
    torch.save(small_codeformer().state_dict(), tmp_path / "x.pth")
    network = load_network(tmp_path / "x.pth").network
    other = copy.deepcopy(network)
    x = torch.rand(1, 3, network.config.side, network.config.side) * 2 - 1
    for one in (network, other):
        assert any(module._forward_hooks for module in one.modules())
        with torch.inference_mode():
            one(x)
        assert not any(module._forward_hooks for module in one.encoder.modules())


def test_a_prior_s_first_output_is_looked_at(tmp_path):
    torch.save(spoilt(seeded("bicubic"), "downs.1"), tmp_path / "x.pth")
    prior = prior_from_file(tmp_path / "x.pth")
    frames = torch.rand(2, 3, 32, 32)
    with pytest.raises(ValueError, match=r"^x\.pth is damaged: on its first picture"), torch.inference_mode():
        prior.predict_x0(frames, 10, frames)


def test_a_detector_s_or_parser_s_first_output_is_looked_at(tmp_path):
    network = torch.nn.Sequential(*[torch.nn.Conv2d(3, 3, 1) for _ in range(4)])
    torch.save({name: torch.full_like(value, 9e11) for name, value in network.state_dict().items()}, tmp_path / "x.pth")
    fill(network, tmp_path / "x.pth", "a parser", "leave it out")
    with pytest.raises(ValueError, match=r"x\.pth is damaged: on its first picture its layer 3 gives NaN or Inf"):
        network(torch.ones(1, 3, 4, 4))


@pytest.mark.parametrize("file", RESTORERS.values())
def test_what_comes_with_the_package_is_sound(file):
    assert all(bool(torch.isfinite(value).all()) for value in load_file(Path(FOLDER) / file).values())
