"""A perceptual distance that needs no downloads: distance in early features of a frozen network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..training.losses import FeatureDistance

MIN_CHANNELS = 8
EARLY = 3
"""Features are taken from the first 1 / EARLY of a network's convolutions."""
MAX_MAPS = 3


class _AllMapsFound(Exception):
    """Raised to end a forward pass after the last map."""


class EarlyFeatures(FeatureDistance):
    """Distance in the outputs of early convolutions of a frozen copy of a network.

    Args:
        network: any; it is copied.
        call: runs such a network on (B, 3, S, S) in [-1, 1], with gradients.
        side: S.

    Raises:
        ValueError: if it has no usable convolutions.
    """

    def __init__(self, network: nn.Module, call: Callable[[nn.Module, Tensor], Any], side: int) -> None:
        super().__init__()
        self.call = call
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        order: list[nn.Module] = []
        hooks = [
            part.register_forward_hook(lambda module, inputs, output: order.append(module))
            for part in self.network.modules()
            if isinstance(part, nn.Conv2d)
        ]
        device = next(self.network.parameters()).device
        with torch.no_grad():
            call(self.network, torch.zeros(1, 3, side, side, device=device))
        for hook in hooks:
            hook.remove()
        wide = [part for part in dict.fromkeys(order) if isinstance(part, nn.Conv2d) and part.out_channels >= MIN_CHANNELS]
        early = wide[: max(1, -(-len(wide) // EARLY))]
        if not early:
            raise ValueError(f"{type(network).__name__} has no features to compare pictures in; choose lpips or off as the perceptual distance")
        number = min(MAX_MAPS, len(early))
        self.hooked = [early[round(i * (len(early) - 1) / max(1, number - 1))] for i in range(number)]

    def maps(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            maps.append(output.float().clone())  # cloned: later layers may work in place
            if len(maps) == len(self.hooked):
                raise _AllMapsFound

        hooks = [part.register_forward_hook(keep) for part in self.hooked]
        try:
            self.call(self.network, x)
        except _AllMapsFound:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return maps
