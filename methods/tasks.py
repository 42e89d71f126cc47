"""The three tasks of code networks: restoration, colourisation (the luminance is known) and inpainting (pixels outside holes are known)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..colour import luma
from ..faces.types import CROP
from ..options import Options, parameter
from .base import resized

Mode = Literal["restore", "colourise", "inpaint"]
WHITE = 254.5 / 255
"""Without a mask, pixels at least this bright in every channel count as missing: 255 in 8 bits, as in the official tools."""


@dataclass(frozen=True)
class Task:
    """Prepares crops for a network and finishes its output, for one of three tasks.

    Attributes:
        mode: "restore" changes nothing; "colourise" shows the network grey crops; "inpaint" shows it white holes and puts
            the known pixels back exactly.
        keep_luminance: whether colourised crops keep the input's luminance.
        filled: whether the network sees holes filled from their surroundings (`pull_push_fill`) instead of white.

    Raises:
        ValueError: for an unknown mode, or luminance kept in another mode than "colourise".
    """

    mode: Mode = "restore"
    keep_luminance: bool = False
    filled: bool = False

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, got {self.mode!r}")
        if self.keep_luminance and self.mode != "colourise":
            raise ValueError(f"keep_luminance belongs to the mode 'colourise', got the mode {self.mode!r}; switch it off or choose 'colourise'")

    @property
    def repaints(self) -> bool:
        """Whether whole faces are synthesised; colours, and what fills a hole, paint over nothing."""
        return self.mode == "restore"

    def check(self, crops: Tensor, masks: Tensor | None) -> None:
        """Raises ValueError if crops are not (n, 3, H, W), or masks not (n, 1, H, W) or not for inpainting."""
        if crops.ndim != 4 or crops.shape[1] != 3:
            raise ValueError(f"crops must be RGB, (n, 3, H, W), got {tuple(crops.shape)}; repeat grey crops three times")
        if masks is None:
            return
        if self.mode != "inpaint":
            raise ValueError(f"masks say which pixels to inpaint, but the mode is {self.mode!r}; choose the mode 'inpaint' or leave the masks out")
        wanted = (len(crops), 1, *crops.shape[-2:])
        if masks.shape != wanted:
            raise ValueError(f"masks for crops {tuple(crops.shape)} must be {wanted}, got {tuple(masks.shape)}; resize or repeat them")

    def prepare(self, crops: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """What the network sees, and what `finish` needs.

        Args:
            crops: (n, 3, H, W) in [0, 1].
            masks: (n, 1, H, W), 1 where a pixel is missing, 0 where it is known, in between where it is partly missing; None takes white pixels.

        Returns:
            The network's input (n, 3, H, W); and on the CPU the luminance (n, 1, 512, 512) where it is kept, the mask and the known pixels
            (n, 4, 512, 512) for inpainting, else None.
        """
        if self.mode == "colourise":
            grey = luma(crops)
            return grey.expand_as(crops), resized(grey, CROP, "bilinear").cpu() if self.keep_luminance else None
        if self.mode == "inpaint":
            missing = white_pixels(crops) if masks is None else masks.to(crops).clamp(0, 1)
            known = torch.cat([missing, crops * (1 - missing)], 1)
            shown = pull_push_fill(crops, missing) if self.filled else torch.where(missing > 0, 1.0, crops)
            return shown, resized(known, CROP, "bilinear").cpu()
        return crops, None

    def finish(self, restored: Tensor, kept: Tensor | None) -> Tensor:
        """The restored crops (n, 3, 512, 512) in [0, 1] with what was known put back."""
        if kept is None:
            return restored
        if self.mode == "colourise":
            return with_luminance(restored, kept)
        missing, known = kept[:, :1], kept[:, 1:]
        return torch.where(missing > 0, known + missing * restored, known)


@dataclass(frozen=True)
class TaskOptions(Options):
    """Parameters of a method that has a checkpoint for each task."""

    mode: Mode = parameter("restore", advice="What the checkpoint was trained for: inpaint fills what is pure white and keeps the rest exactly.")
    keep_luminance: bool = parameter(False, advice="Colourised frames keep the input's luminance; colourise only.")

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.task

    @property
    def task(self) -> Task:
        return Task(self.mode, self.keep_luminance)


def pull_push_fill(crops: Tensor, missing: Tensor) -> Tensor:
    """`crops` (n, 3, H, W) whose holes, where `missing` (n, 1, H, W) is not 0, are filled smoothly from their surroundings.

    Pull-push (Gortler et al., 1996): known pixels are averaged into coarser and coarser pictures until no hole is left; then each picture's holes
    are filled from the next coarser one, bilinearly. Crops without a known pixel become mid-grey.
    """
    weight = (missing <= 0).to(crops.dtype)
    total, levels = crops * weight, []
    while bool((weight == 0).any()) and weight.shape[-1] > 1:
        levels.append((total, weight))
        total, weight = (F.avg_pool2d(part, 2, ceil_mode=True) for part in (total, weight))
    filled = torch.where(weight > 0, total / weight.clamp_min(1e-12), 0.5)
    for total, weight in reversed(levels):
        coarse = F.interpolate(filled, total.shape[-2:], mode="bilinear", align_corners=False)
        filled = torch.where(weight > 0, total / weight.clamp_min(1e-12), coarse)
    return filled


def white_pixels(crops: Tensor) -> Tensor:
    """(n, 1, H, W), 1 where all channels of (n, 3, H, W) are white, else 0."""
    return (crops >= WHITE).all(1, keepdim=True).to(crops.dtype)


def with_luminance(images: Tensor, wanted: Tensor) -> Tensor:
    """`images` (n, 3, H, W) with Y' replaced by `wanted` (n, 1, H, W), both in [0, 1].

    Cb and Cr are kept where the result lies inside the RGB cube. Elsewhere they are scaled down until it does: same hue, less saturation, and Y'
    exact up to rounding.
    """
    chroma = images - luma(images)
    room = torch.where(chroma > 0, 1 - wanted, wanted) / chroma.abs().clamp_min(1e-12)
    return (wanted + room.amin(1, keepdim=True).clamp_max(1) * chroma).clamp(0, 1)
