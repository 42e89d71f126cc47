"""The quick group normalisation is PyTorch's, gradients included."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fvr.training.quick_norm import QuickGroupNorm, quicken


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
