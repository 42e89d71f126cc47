"""Gradient checkpointing for any network: activations inside a block are recomputed in the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_blocks(network: nn.Module) -> int:
    """Makes the blocks of every list or table of blocks checkpointed, the outermost ones where lists are nested; parameters stay as they are.

    A block's class is exchanged for one that does so, which copies of the network keep (a replaced `forward` would call the original's).

    Returns:
        How many blocks there are.
    """
    found = 0
    for module in list(network.children()):
        if isinstance(module, (nn.ModuleList, nn.ModuleDict, nn.Sequential)):
            for block in module.children():
                if next(block.children(), None) is not None and next(block.parameters(), None) is not None:
                    block.__class__ = _checkpointed(type(block))
                    found += 1
        else:
            found += checkpoint_blocks(module)
    return found


_checkpointed_classes: dict[type, type] = {}


def _checkpointed(kind: type) -> type:
    """A subclass that checkpoints its forward pass when gradients are wanted."""
    if kind in _checkpointed_classes or kind in _checkpointed_classes.values():
        return _checkpointed_classes.get(kind, kind)

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not (torch.is_grad_enabled() and self.training):
            return kind.forward(self, *args, **kwargs)  # type: ignore[attr-defined]
        return checkpoint(lambda *a, **k: kind.forward(self, *a, **k), *args, use_reentrant=False, **kwargs)  # type: ignore[attr-defined]

    _checkpointed_classes[kind] = type(f"Checkpointed{kind.__name__}", (kind,), {"forward": forward})
    return _checkpointed_classes[kind]
