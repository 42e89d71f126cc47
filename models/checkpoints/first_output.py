"""Checks the first output of each layer: damaged weights may all be finite and still produce NaN or Inf."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class FirstOutput:
    """A forward hook that checks a layer's first output and then removes itself. Raises ValueError if that output is not finite."""

    def __init__(self, network: str, layer: str) -> None:
        self.network, self.layer = network, layer

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        for key, hook in list(module._forward_hooks.items()):
            if hook is self:
                del module._forward_hooks[key]
        found = output if isinstance(output, Tensor) else next((part for part in output if isinstance(part, Tensor)), None) if output else None
        if found is None or found.device.type == "meta" or not found.is_floating_point():
            return
        with torch.no_grad():  # or activation checkpointing would miss, the second time, what this look had saved
            if bool(torch.isfinite(found).all()):
                return
        half = found.dtype in (torch.float16, torch.bfloat16)
        remedy = "choose precision float32, or get the file again" if half else "get the file again"
        raise ValueError(
            f"{self.network} is damaged: on its first picture its layer {self.layer or type(module).__name__} gives NaN or Inf; {remedy}"
        )


def check_first_output(network: nn.Module, name: str) -> None:
    """Registers a check of each innermost layer of a network for its first run; `name` is the file's name in errors."""
    for layer, module in network.named_modules():
        if next(module.children(), None) is None:
            module.register_forward_hook(FirstOutput(name, layer))
