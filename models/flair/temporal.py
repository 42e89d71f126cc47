"""Temporal layers between those of an image network: how they are switched and gated, and which parameters are theirs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .convolution import numbered, zero_initialised
from .spynet import spynet_of
from .window import Window


class Temporal(nn.Module):
    """A temporal layer: f(x), or x where the window's temporal layers rest."""

    temporal = True

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.wrapped_module = layer

    def forward(self, x: Tensor, window: Window) -> Tensor:
        return self.wrapped_module(x, window) if window.temporal else x


class Gated(Temporal):
    """(1 - s) x + s f(x) with s = sigmoid(linear(silu(e))) for each channel, e the noise level's embedding; s starts as 1/2."""

    def __init__(self, layer: nn.Module, width: int, embedding: int) -> None:
        super().__init__(layer)
        self.emb_layers = numbered({1: zero_initialised(nn.Linear(embedding, width))})

    def forward(self, x: Tensor, window: Window) -> Tensor:
        if not window.temporal:
            return x
        gate = torch.sigmoid(self.emb_layers["1"](nn.functional.silu(window.embedding)))
        return x.lerp(self.wrapped_module(x, window), gate[..., None, None].to(x.dtype))


class Parameters(NamedTuple):
    """Names of a network's parameters, each once, as named_parameters() gives them.

    Attributes:
        spatial: of the image network; trained first, then frozen.
        temporal: of the layers that make it a video network.
        flow: SPyNet's, never trained.
    """

    spatial: tuple[str, ...]
    temporal: tuple[str, ...]
    flow: tuple[str, ...]


def split_parameters(network: nn.Module) -> Parameters:
    """Tells a video UNet's parameters apart by the modules they belong to."""
    modules = list(network.modules())
    spynet = spynet_of(network)
    flow = set() if spynet is None else {id(p) for p in spynet.parameters()}
    temporal = {id(p) for module in modules if getattr(module, "temporal", False) for p in module.parameters()} - flow
    names: tuple[list[str], list[str], list[str]] = [], [], []
    for name, parameter in network.named_parameters():
        names[2 if id(parameter) in flow else 1 if id(parameter) in temporal else 0].append(name)
    return Parameters(*(tuple(part) for part in names))
