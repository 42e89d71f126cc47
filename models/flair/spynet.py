"""SPyNet, the small optical-flow network (Ranjan and Black, CVPR 2017) that FLAIR's recurrence is guided by, and warping along a flow."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 6
"""Sizes of the pyramid, halved from one to the next."""


def warped(x: Tensor, flow: Tensor, padding: Literal["zeros", "border"] = "zeros") -> Tensor:
    """x (B, C, h, w) looked up at each place plus `flow` (B, 2, h, w), x before y, bilinearly and in float32; in the dtype of x.

    In half precision the places alone would be off by up to a quarter of a pixel at a width of 512.
    """
    height, width = x.shape[-2:]
    across = torch.arange(width, dtype=torch.float32, device=x.device) + flow[:, 0].float()
    down = torch.arange(height, dtype=torch.float32, device=x.device)[:, None] + flow[:, 1].float()
    places = torch.stack([across * (2 / max(width - 1, 1)) - 1, down * (2 / max(height - 1, 1)) - 1], 3)
    if padding == "border":  # the same by hand, as Apple's MPS has only "zeros"
        places = places.clamp(-1, 1)
    return F.grid_sample(x.float(), places, "bilinear", "zeros", align_corners=True).to(x.dtype, memory_format=torch.channels_last)


def spynet_of(network: nn.Module) -> SPyNet | None:
    """The flow network inside a network, which all its layers share; None if it has none."""
    return next((module for module in network.modules() if isinstance(module, SPyNet)), None)


class SPyNet(nn.Module):
    """Flow from coarse to fine: at each of six sizes a few convolutions correct the doubled flow of the size below.

    Frozen: it was trained on its own, and no loss of FLAIR's reaches it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.basic_module = nn.ModuleList(_Correction() for _ in range(LEVELS))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.requires_grad_(False)

    def forward(self, here: Tensor, there: Tensor) -> Tensor:
        """Flow (N, 2, H, W) from the frames `here` to the frames `there`, (N, 3, H, W) float32 in [0, 1], in pixels, x before y."""
        height, width = here.shape[-2:]
        full = tuple(-(-side // 32) * 32 for side in (height, width))
        pyramid = [tuple(self._prepared(frames, full) for frames in (here, there))]
        for _ in range(LEVELS - 1):
            pyramid.append(tuple(F.avg_pool2d(frames, 2) for frames in pyramid[-1]))
        flow = here.new_zeros(len(here), 2, full[0] // 32, full[1] // 32)
        for level, (correct, (near, far)) in enumerate(zip(self.basic_module, reversed(pyramid), strict=True)):
            if level:
                flow = 2 * F.interpolate(flow, scale_factor=2.0, mode="bilinear", align_corners=True)
            flow = flow + correct(torch.cat([near, warped(far, flow, "border"), flow], 1))
        if full != (height, width):
            ratio = flow.new_tensor([width / full[1], height / full[0]]).view(1, 2, 1, 1)
            flow = F.interpolate(flow, (height, width), mode="bilinear", align_corners=False) * ratio
        return flow

    def _prepared(self, frames: Tensor, full: tuple[int, ...]) -> Tensor:
        if tuple(frames.shape[-2:]) != full:
            frames = F.interpolate(frames, full, mode="bilinear", align_corners=False)
        return (frames - self.mean) / self.std


class _Correction(nn.Module):
    """(N, 8, h, w): one frame, the other brought to it, and the flow so far; to the flow's correction (N, 2, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (8, 32, 64, 32, 16, 2)
        self.basic_module = nn.ModuleList(nn.ModuleDict({"conv": nn.Conv2d(width_in, width, 7, padding=3)}) for width_in, width in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for number, layer in enumerate(self.basic_module):
            x = layer["conv"](x if number == 0 else F.relu(x))  # type: ignore[index]
        return x
