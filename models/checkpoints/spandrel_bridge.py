"""Face restorers loaded by spandrel (which ComfyUI ships): GFPGAN, SwinIR for faces, and others that map a face to one of the same size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..tuning import Answer, Use

SIDE = 512
"""Height and width of the faces that a restorer must take."""
PURPOSES = ("FaceSR", "Restoration")
_TYPICAL = ("stylegan_decoder.", "layers.0.residual_group.")
"""Names of GFPGAN's and SwinIR's tensors, to say what is missing where spandrel is not installed."""


class Bridge(nn.Module):
    """A network of spandrel's: (B, 3, S, S) in [-1, 1] to the same.

    GFPGAN is called as its authors do, in [-1, 1] (spandrel's own call leaves that out) and with the noise stored in the file, so that the same
    face gives the same pixels. SwinIR takes any batch in [0, 1]. All others go through spandrel's own call, frame by frame, without gradients.
    """

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.label: str = descriptor.architecture.name
        self.architecture: str = descriptor.architecture.id
        self.network: nn.Module = descriptor.model.eval()
        self._call = descriptor

    @property
    def published(self) -> nn.Module:
        """The network under the names that its files have."""
        return self.network

    def answer(self, source: Tensor, use: Use, *, draw: bool = True) -> Answer:
        """With gradients where they are asked for: spandrel's own call is made under inference mode, so what it calls is called."""
        if not torch.is_grad_enabled() or self.architecture in ("GFPGAN", "SwinIR"):
            return Answer(self(source))
        frames = ((source.contiguous() + 1) / 2).split(1)
        return Answer(torch.cat([self._call._call_fn(self.network, frame) for frame in frames]) * 2 - 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous()  # spandrel's networks view their features as other shapes, which channels_last does not allow
        if self.architecture == "GFPGAN":
            return self.network(x, return_rgb=False, randomize_noise=False)[0]
        unit = (x + 1) / 2
        if self.architecture == "SwinIR":
            return self.network(unit) * 2 - 1
        return torch.cat([self._call(frame) for frame in unit.split(1)]) * 2 - 1


def load_by_spandrel(state: Mapping[str, Tensor]) -> Bridge | str | None:
    """spandrel's network for a state dict; the name of what it is instead, if it restores no faces; None if spandrel does not know it either.

    Raises:
        ModuleNotFoundError: for a network that needs spandrel, where that is not installed.
        RuntimeError: if tensors are missing, unexpected or of other shapes.
    """
    try:
        from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError  # type: ignore
    except ImportError:
        if any(name.startswith(_TYPICAL) for name in state):
            raise ModuleNotFoundError("the package spandrel is not installed (pip install spandrel)") from None
        return None
    try:
        found = ModelLoader(next(iter(state.values())).device).load_from_state_dict(dict(state))
    except UnsupportedModelError:
        return None
    sizes = f"{found.scale}x, {found.input_channels} to {found.output_channels} channels"
    same = found.scale == 1 and found.input_channels == found.output_channels == 3 and found.size_requirements.check(SIDE, SIDE)
    if not isinstance(found, ImageModelDescriptor) or found.purpose not in PURPOSES or not same:
        return f"a {found.architecture.name} network for {found.purpose} ({sizes})"
    return Bridge(found)
