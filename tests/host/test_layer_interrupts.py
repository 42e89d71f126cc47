"""A network's pass can be stopped in its middle, forwards and backwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fvr.host.layer_interrupts import interruptible_layers


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(5)))


class Count:
    """A check_interrupt that stops at the `stop`-th call."""

    def __init__(self, stop: int = 0) -> None:
        self.calls, self.stop = 0, stop

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == self.stop:
            raise KeyboardInterrupt


def test_every_layer_is_heard_there_and_back():
    net, heard = network(), Count()
    x = torch.randn(2, 8, requires_grad=True)
    with interruptible_layers(net, check_interrupt=heard):
        y = net(x)
        assert heard.calls == 10
        y.sum().backward()
    assert heard.calls == 20
    net(x).sum().backward()
    assert heard.calls == 20


@pytest.mark.parametrize("stop", [3, 13, 17])
def test_what_a_check_raises_ends_the_pass_and_leaves_nothing_behind(stop):
    net, heard = network(), Count(stop)
    x = torch.randn(2, 8, requires_grad=True)
    with pytest.raises(KeyboardInterrupt), interruptible_layers(net, check_interrupt=heard):
        checkpoint(net, x, use_reentrant=False).sum().backward()
    assert heard.calls == stop
    net(x).sum().backward()
    assert heard.calls == stop and x.grad is not None


def test_gradients_stay_the_same():
    net = network()
    x = torch.randn(2, 8, requires_grad=True)
    (plain,) = torch.autograd.grad(net(x).square().sum(), x)
    with interruptible_layers(net, check_interrupt=lambda: None):
        (heard,) = torch.autograd.grad(net(x).square().sum(), x)
    assert torch.equal(plain, heard)
