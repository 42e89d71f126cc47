"""Products of matrices are PyTorch's, whoever makes them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fvr import products
from fvr.products import Linear, Pointwise, linear, sandwich


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture(params=[True, False], ids=["oneDNN", "PyTorch's own"], autouse=True)
def onednn(request, monkeypatch) -> None:
    if not request.param:
        monkeypatch.setattr(products, "_has_onednn", lambda: False)


@pytest.mark.parametrize("bias", [None, drawn(24)])
def test_linear_is_that_of_pytorch_in_any_layout(bias):
    x, weight = drawn(5, 40, 7).mT, drawn(40, 24).mT
    with torch.inference_mode():
        torch.testing.assert_close(linear(x, weight, bias), F.linear(x, weight, bias))


def test_gradients_flow():
    x, layer = drawn(6, 40).requires_grad_(), Linear(40, 24)
    layer(x).square().sum().backward()
    assert x.grad is not None and layer.weight.grad is not None and bool(x.grad.any() and layer.weight.grad.any())


def test_both_sides_are_multiplied():
    x, rows, cols = drawn(2, 3, 16, 20), drawn(8, 16), drawn(10, 20)
    with torch.inference_mode():
        torch.testing.assert_close(sandwich(x, rows, cols), rows @ x @ cols.mT)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_pointwise_convolution_is_a_convolution(layout):
    x, ours, theirs = drawn(2, 16, 9, 11).contiguous(memory_format=layout), Pointwise(16, 8), nn.Conv2d(16, 8, 1)
    theirs.load_state_dict(ours.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x))


def test_half_precision_and_autocast_are_left_to_pytorch():
    x, weight = drawn(4, 40).bfloat16(), drawn(24, 40)
    with torch.inference_mode():
        assert linear(x, weight.bfloat16()).dtype == torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16):
            assert linear(x.float(), weight).dtype == torch.bfloat16
