"""Makes weights that a host created under inference mode usable for gradients.

ComfyUI runs every prompt under torch.inference_mode(), so the weights from a loader node are inference tensors, which autograd refuses to save for a
backward pass. Here they are replaced by ordinary tensors over the same memory for a while.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def plain_tensors(*modules: nn.Module, dtype: torch.dtype | None = None) -> Iterator[None]:
    """Inside, no parameter or buffer of `modules` is an inference tensor, and no parameter requires a gradient.

    Inference tensors are replaced by ordinary ones over the same memory, so nothing is copied; the originals are restored at the
    end, also after an error. The module objects are shared with the host: no other thread may use them meanwhile.

    Args:
        dtype: to which floating-point weights are converted in copies; None keeps theirs.

    Raises:
        ValueError: if a weight is quantised or otherwise not differentiable.
    """
    swapped: list[tuple[dict[str, Any], str, Tensor]] = []
    frozen: list[Tensor] = []
    try:
        with torch.inference_mode(False), torch.no_grad():
            for owner in {id(part): part for module in modules for part in module.modules()}.values():
                tables: list[dict[str, Any]] = [owner._parameters, owner._buffers]
                for table in tables:
                    for name, tensor in list(table.items()):
                        if tensor is None:
                            continue
                        fresh = _plain(tensor, dtype, type(owner).__name__)
                        if fresh is not tensor:
                            swapped.append((table, name, tensor))
                            table[name] = nn.Parameter(fresh, requires_grad=False) if table is owner._parameters else fresh
                        elif tensor.requires_grad:
                            frozen.append(tensor)
                            tensor.requires_grad_(False)
        yield
    finally:
        for table, name, tensor in swapped:
            table[name] = tensor
        for tensor in frozen:
            tensor.requires_grad_(True)


def _plain(tensor: Tensor, dtype: torch.dtype | None, owner: str) -> Tensor:
    """`tensor` if it suits, else an ordinary one over its memory or, in another dtype, a copy."""
    if type(tensor) not in (Tensor, nn.Parameter) or (tensor.is_floating_point() and tensor.element_size() < 2):
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ValueError(
            f"gradients cannot pass through quantised weights ({owner} holds {kind} as {type(tensor).__name__}); "
            "load the checkpoint with weight_dtype default, or take an fp16 or bf16 file"
        )
    wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    if wanted != tensor.dtype:
        return tensor.detach().to(wanted)
    if not tensor.is_inference():
        return tensor
    seen = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return seen.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())


def modules_of(holder: object) -> list[nn.Module]:
    """The networks that an object holds as attributes, or the object itself if it is one."""
    if isinstance(holder, nn.Module):
        return [holder]
    return [value for value in vars(holder).values() if isinstance(value, nn.Module)]
