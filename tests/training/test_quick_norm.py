"""The quick group normalisation is PyTorch's, gradients included."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fvr.models.flair.norm import ClipNorm
from fvr.models.flair.window import Window
from fvr.training.quick_norm import QuickClipNorm, QuickGroupNorm, quicken


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_values_and_gradients_are_those_of_pytorch(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    slow = nn.GroupNorm(4, 16, eps=1e-6)
    nn.init.normal_(slow.weight)
    nn.init.normal_(slow.bias)
    quick = quicken(copy.deepcopy(nn.Sequential(slow)))[0]
    assert type(quick) is QuickGroupNorm
    x = (torch.randn(3, 16, 6, 5) * 3 + 2).to(memory_format=torch.channels_last)
    pull = torch.randn_like(x)
    found = []
    for norm in (slow.double(), quick.to(dtype)):
        inputs = x.to(next(norm.parameters()).dtype).detach().requires_grad_()
        output = norm(inputs)
        output.backward(pull.to(output.dtype))
        found.append([value.double() for value in (output.detach(), inputs.grad, norm.weight.grad, norm.bias.grad)])
    for exact, ours in zip(*found, strict=True):
        assert (exact - ours).norm() < tolerance * exact.norm()


def test_weights_keep_their_names() -> None:
    network = nn.Sequential(nn.Conv2d(3, 32, 1), nn.GroupNorm(32, 32))
    names = list(network.state_dict())
    assert list(quicken(network).state_dict()) == names


def test_a_clip_norm_on_single_frames_is_quick_and_the_same() -> None:
    torch.manual_seed(0)
    slow = ClipNorm(4, 16)
    nn.init.normal_(slow.wrapped_module.weight)
    nn.init.normal_(slow.wrapped_module.bias)
    quick = quicken(nn.Sequential(copy.deepcopy(slow)))[0]
    assert type(quick) is QuickClipNorm
    x = (torch.randn(3, 16, 6, 5) * 3 + 2).to(memory_format=torch.channels_last)
    film = (torch.randn(3, 16), torch.randn(3, 16))
    window = Window(1, torch.zeros(3, 8), False, {}, 1.0)
    found = []
    for norm in (slow, quick):
        inputs = x.clone().requires_grad_()
        output = norm.read(inputs, window, film)(slice(None))
        output.square().sum().backward()
        found.append((output.detach(), inputs.grad, norm.wrapped_module.weight.grad))
    for exact, ours in zip(*found, strict=True):
        assert (exact - ours).norm() < 1e-4 * exact.norm()
    clip = Window(3, torch.zeros(3, 8), True, {}, 1.0)
    assert torch.equal(quick.read(x, clip)(slice(None)), slow.read(x, clip)(slice(None)))
