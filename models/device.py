"""Where a network runs, and how many frames it takes at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn

CheckInterrupt = Callable[[], None]
"""Called between units of work that take no more than a second or two; raises when the user has asked to stop."""


def no_check() -> None:
    """A check_interrupt that never stops anything."""


class Placement(Protocol):
    """Moves a network to the device it runs on, with room for `working` more bytes, and returns that device.

    A session calls it before every unit of work, since another network may have displaced this one in between.
    """

    def __call__(self, working: int, /) -> torch.device: ...


Placed = Callable[[nn.Module], Placement]
"""From a network to its placement: `on` one device, or by a host that manages memory."""


def on(network: nn.Module, device: torch.device | str) -> Placement:
    """The placement without a host: the network moves to `device` once and stays there."""
    place = torch.device(device)

    def placed(working: int) -> torch.device:
        devices = (part.device for part in chain(network.parameters(), network.buffers()))
        if not all(found.type == place.type and place.index in (None, found.index) for found in devices):  # cheaper than `to`, every frame
            with torch.inference_mode(False):  # or parameters that move would be lost to training
                network.to(place)
        return place

    return placed


def in_batches(work: Callable[[Tensor], Tensor], frames: Tensor, size: int, check_interrupt: CheckInterrupt = no_check) -> Tensor:
    """`work` over `frames` in batches of at most `size`, halved and tried again whenever memory runs out."""
    return torch.cat(list(batches(work, frames, size, check_interrupt)))


def batches(work: Callable[[Tensor], Tensor], frames: Tensor, size: int, check_interrupt: CheckInterrupt = no_check) -> Iterator[Tensor]:
    """As `in_batches`, one batch's result at a time. Raises torch.OutOfMemoryError if not even one frame fits."""
    start = 0
    while start < len(frames):
        check_interrupt()
        try:
            done = work(frames[start : start + size])
        except RuntimeError as error:  # OutOfMemoryError is one
            if size == 1 or not out_of_memory(error):
                raise
            size = max(1, size // 2)
            continue
        start += size
        yield done


def fast_in_bfloat16(device: torch.device | str) -> bool:
    """Whether a device has units for convolutions in bfloat16: NVIDIA's from Ampere on, and CPUs with AMX or AVX512_BF16."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    capabilities: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)  # which PyTorch has only of late
    return any(capabilities().get(unit) for unit in ("amx_bf16", "avx512_bf16"))


OUT_OF_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")
"""Messages of accelerators, of PyTorch's CPU allocator on Linux and on Windows, and of Linux where a file cannot be mapped."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that a device, or this machine, ran out of memory."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(text in str(error).lower() for text in OUT_OF_MEMORY_TEXTS)
