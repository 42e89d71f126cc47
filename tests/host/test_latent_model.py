"""Gradients through a MODEL and a VAE inside ComfyUI, and everything as before afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.comfyui_process import in_comfyui, needs_comfyui

from fvr.host.plain_tensors import modules_of, plain_tensors

PROGRAM = (Path(__file__).parent / "latent_model_program.py").read_text(encoding="utf-8")

EXPECTED = {
    "made of inference tensors": True,
    "modes inside": [False, True, True],
    "none inside": True,
    "gradient": [True, True],
    "levels": [0.9983, 0.6722, 0.275, 0.0557],
    "modes after": [True, False],
    "same tensors after": True,
    "the tail is the decoder's": True,
    "same image after": True,
    "blocks after": [],
    "same gradient without the kernel": True,
    "kernel is back": True,
    "odd size": [[1, 4, 8, 7], [32, 64, 56], True],
    "v": [True, True],
    "sdxl": [True, True],
    "bf16": [True, True],
    "bf16 is near": True,
    "interrupted": "InterruptProcessingException",
    "interrupted late": 60,
    "same after interruption": [True, True],
}
REFUSED = {
    "flow": "is a flow-matching model; choose another checkpoint",
    "latents": "works on 4 latent channels and this VAE on 16",
    "two entries": "one entry, got 2",
    "control": "got one with control",
}


@pytest.fixture(scope="module")
def said() -> dict:
    return in_comfyui(PROGRAM)


@needs_comfyui
@pytest.mark.parametrize("what", EXPECTED)
def test_models_of_comfyui_give_gradients_and_stay_as_they_are(what, said):
    assert said[what] == EXPECTED[what]


@needs_comfyui
def test_four_steps_are_those_that_comfyui_samples(said):
    assert said["steps are ComfyUI's"] < 1e-5


@needs_comfyui
@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_done_is_refused_in_a_sentence(what, said):
    assert REFUSED[what] in said["refused"][what]


def made_for_inference() -> torch.nn.Module:
    with torch.inference_mode():
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    return network.eval()


def test_inference_weights_take_part_in_gradients_for_a_while_over_the_same_memory():
    network = made_for_inference()
    tensors = {name: (id(tensor), tensor.data_ptr()) for name, tensor in network.state_dict(keep_vars=True).items()}
    x = torch.randn(1, 3, 8, 8, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"[Ii]nference"):
        network(x).sum().backward()
    with pytest.raises(ZeroDivisionError), plain_tensors(network):
        seen = network.state_dict(keep_vars=True)
        assert [tensor.data_ptr() for tensor in seen.values()] == [pointer for _, pointer in tensors.values()]
        network(x).square().sum().backward()
        assert x.grad is not None and x.grad.abs().sum() > 0 and all(parameter.grad is None for parameter in network.parameters())
        raise ZeroDivisionError
    assert {name: (id(tensor), tensor.data_ptr()) for name, tensor in network.state_dict(keep_vars=True).items()} == tensors
    assert all(tensor.is_inference() for tensor in network.state_dict(keep_vars=True).values())


def test_weights_that_ask_for_gradients_rest_meanwhile():
    network = torch.nn.Linear(2, 2)
    with plain_tensors(network, dtype=torch.float64):
        assert network.weight.dtype == torch.float64 and not network.weight.requires_grad
    assert network.weight.dtype == torch.float32 and network.weight.requires_grad


def test_quantised_weights_are_refused():
    network = torch.nn.Linear(2, 2)
    network.weight = torch.nn.Parameter(network.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)
    with pytest.raises(ValueError, match=r"Linear holds float8_e4m3fn.*load the checkpoint"), plain_tensors(network):
        pass


def test_networks_are_found_in_what_holds_them():
    network = torch.nn.Linear(2, 2)

    class Holder:
        def __init__(self):
            self.network, self.other = network, 3

    assert modules_of(network) == [network] == modules_of(Holder())
