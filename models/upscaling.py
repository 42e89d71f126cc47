"""Networks that enlarge whole pictures, such as Real-ESRGAN, tile by tile: what spandrel loads, and ComfyUI's UPSCALE_MODEL, which is the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoints.origin import record_origin, weights_digest
from .checkpoints.state_dict import read_state, unread
from .device import CheckInterrupt, Placement, no_check, on, out_of_memory

TILE = 512
"""Side of a tile, in pixels of the small picture; halved when memory runs out."""
MIN_TILE = 64
OVERLAP = 32
"""Pixels in which neighbouring tiles slide into each other."""
WORKING_BYTES_PER_PIXEL = 4608
"""Bytes of working memory per pixel of a tile and unit of the factor: about ComfyUI's own estimate."""


@dataclass(frozen=True, eq=False)
class Upscaler:
    """A network that makes pictures `scale` times as large.

    Attributes:
        call: (1, 3, h, w) in [0, 1] on the network's device to (1, 3, scale h, scale w).
        network: what `call` runs.
        architecture: its name, for people.
    """

    call: Any
    network: nn.Module
    scale: int
    architecture: str
    place: Placement
    check_interrupt: CheckInterrupt = no_check

    @classmethod
    def of(cls, descriptor: Any, *, name: str, place: Placement | None = None, check_interrupt: CheckInterrupt = no_check) -> Upscaler:
        """From spandrel's model descriptor. name: the file's name in errors. Raises ValueError for a network that does not enlarge RGB pictures."""
        scale, channels = getattr(descriptor, "scale", 1), (getattr(descriptor, "input_channels", 0), getattr(descriptor, "output_channels", 0))
        if not scale > 1 or channels != (3, 3) or not callable(descriptor):
            raise ValueError(
                f"{name} holds a {descriptor.architecture.name} network of {scale}x, {channels[0]} to {channels[1]} channels, which does not enlarge "
                "frames; choose an upscale model of 2x, 3x or 4x, such as RealESRGAN_x2plus.pth"
            )
        network = descriptor.model.eval().requires_grad_(False)
        place = on(network, next(network.parameters()).device) if place is None else place
        return cls(descriptor, network, int(scale), descriptor.architecture.name, place, check_interrupt)

    @cached_property
    def name(self) -> str:
        """Architecture, factor, and the first digits of the SHA-256 over its weights: the same wherever the same weights are."""
        return f"{self.architecture} {self.scale}x {weights_digest(self.network)[:12]}"

    def __call__(self, picture: Tensor) -> Tensor:
        """(3, H, W) in [0, 1] to (3, scale H, scale W) float32 in [0, 1], where the picture is.

        Raises:
            torch.OutOfMemoryError: if not even a tile of MIN_TILE fits.
        """
        tile = TILE
        while True:
            try:
                return self.in_tiles(picture.float(), tile)
            except RuntimeError as error:  # OutOfMemoryError is one
                if tile <= MIN_TILE or not out_of_memory(error):
                    raise
                tile //= 2

    def in_tiles(self, picture: Tensor, tile: int) -> Tensor:
        """As a call, with tiles of that side; where they overlap, one fades into the next."""
        height, width = picture.shape[-2:]
        total = picture.new_zeros(3, height * self.scale, width * self.scale)
        weight = picture.new_zeros(total.shape[1:])
        for y in spans(height, tile):
            for x in spans(width, tile):
                self.check_interrupt()
                with torch.inference_mode():
                    device = self.place(WORKING_BYTES_PER_PIXEL * self.scale * (y.stop - y.start) * (x.stop - x.start))
                    large = self.call(picture[None, :, y, x].to(device))[0].to(picture)
                fade = ramp(y, height, self.scale)[:, None] * ramp(x, width, self.scale)
                there = slice(y.start * self.scale, y.stop * self.scale), slice(x.start * self.scale, x.stop * self.scale)
                total[:, there[0], there[1]] += large * fade.to(picture)
                weight[there] += fade.to(picture)
        return (total / weight).clamp_(0, 1)


def spans(length: int, tile: int) -> Iterator[slice]:
    """Slices of `tile` pixels that cover an axis and overlap by at least OVERLAP, all of one length unless the axis is shorter."""
    last = max(length - tile, 0)
    for start in range(0, last + tile - OVERLAP, tile - OVERLAP):
        begin = min(start, last)
        yield slice(begin, min(begin + tile, length))
        if begin == last:
            return


def ramp(span: slice, length: int, scale: int) -> Tensor:
    """Weights (scale * n,) of a tile's pixels along an axis: 1; at ends inside the picture 0 for a quarter of the overlap, where a network misses
    what lies beyond, then rising over half of it.
    """
    place = (torch.arange((span.stop - span.start) * scale, dtype=torch.float32) + 0.5) / scale
    rising = ((place - OVERLAP / 4) / (OVERLAP / 2)).clamp(0, 1)
    weight = torch.ones_like(place)
    if span.start > 0:
        weight = weight.minimum(rising)
    if span.stop < length:
        weight = weight.minimum(rising.flip(0))
    return weight


def load_upscaler(path: Path, *, device: torch.device, check_interrupt: CheckInterrupt = no_check) -> Upscaler:
    """The upscale model in a checkpoint file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for another kind of network, or a damaged file.
        ModuleNotFoundError: without spandrel.
    """
    try:
        from spandrel import ModelLoader, UnsupportedModelError  # type: ignore
    except ImportError:
        raise ModuleNotFoundError(f"{path.name} is an upscale model, which the package spandrel loads (pip install spandrel)") from None
    state = dict(read_state(path))
    try:
        with torch.inference_mode(False):
            found = ModelLoader("cpu").load_from_state_dict(state)
    except UnsupportedModelError:
        raise ValueError(f"{path.name} is no upscale model that spandrel knows; choose one such as RealESRGAN_x2plus.pth") from None
    except (RuntimeError, KeyError) as error:
        raise unread(path.name, error, "looks like an upscale model, but its tensors do not fit together; download it again") from error
    made = Upscaler.of(found, name=path.name, place=on(found.model, device), check_interrupt=check_interrupt)
    record_origin(made.network, path)
    return made
