"""Interruption between the layers of a network, in the forward and in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def interruptible_layers(*modules: nn.Module, check_interrupt: Callable[[], None]) -> Iterator[None]:
    """Inside, every leaf layer of `modules` calls `check_interrupt` after its forward pass, and when its gradient arrives.

    A pass of a large network takes many seconds on a CPU, and its backward pass is one call; whatever `check_interrupt` raises ends both.
    """

    def beat(module: nn.Module, inputs: Any, output: Any) -> None:
        check_interrupt()
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(_beat_back)

    def _beat_back(gradient: Tensor) -> None:
        check_interrupt()

    layers = {id(part): part for module in modules for part in module.modules() if next(part.children(), None) is None}
    hooks = [layer.register_forward_hook(beat) for layer in layers.values()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
