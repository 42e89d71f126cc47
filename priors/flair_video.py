"""FLAIR's video networks as diffusion priors: conversion of the sampler's state and the observation to network inputs, and of eps to x_0.

A network sees the frames of a window together. What depends on the observation alone (the flow between its frames, the annealing weights at
each size) is computed once and used in all steps of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..diffusion.schedule import bicubic_schedule, eps_to_x0, linear_schedule
from ..models.device import Placement, on
from .base import Prior

if TYPE_CHECKING:
    from ..models.flair.unet import VideoUNet
    from ..models.flair.window import Flows

Result = TypeVar("Result")

BACKGROUND = {"x4": 0.93, "x8": 0.93, "x16": 0.98, "gaussian": 1.0, "motion": 1.0, "jpeg": 1.0}
"""Annealing weight of propagated features outside the face (inside it is 1), by task. The code gives none for x4; x8's is taken."""
PIXELS = 512 * 512
"""Pixels (frames x height x width) per convolution call; the result is the same up to rounding."""
REPEATS = (16, 8, 4, 2)
"""Factors by which a condition may have been enlarged by repeating pixels."""


def face_mask(side: int = 512) -> Tensor:
    """(side, side) soft ellipse over the face of the 512 template: 1 inside, 0 at the border of the crop.

    The template's eyes lie at 0.47 and its mouth at 0.72 of the height; brow to chin is the ellipse with centre (0.5, 0.55), radii 0.34, 0.40.
    """
    at = (torch.arange(side, dtype=torch.float32) + 0.5) / side
    radius = (((at[None] - 0.5) / 0.34) ** 2 + ((at[:, None] - 0.55) / 0.40) ** 2).sqrt()
    return ((1.05 - radius) / 0.2).clamp(0, 1)


class _LastResult(Generic[Result]):
    """The last result of a function of a condition."""

    def __init__(self) -> None:
        self._last: tuple[Tensor, Result] | None = None

    def of(self, condition: Tensor, function: Callable[[Tensor], Result]) -> Result:
        """function(condition), cached for the last condition; computed without gradients."""
        last = self._last
        if last is None or last[0].device != condition.device or not torch.equal(last[0], condition):
            with torch.inference_mode(False), torch.no_grad():
                condition = condition.clone()
                last = self._last = condition, function(condition)
        return last[1]


class FlairPrior(Prior):
    """E[x_0 | x_t, c] by one of FLAIR's two networks, from the noise it predicts (eq. 3).

    The bicubic network (x8, x16) takes sqrt(alpha_bar_t), the other the timestep. Learned variances are not computed. Without a condition the
    estimate is that of the image network, frame by frame, with c = 0, as it was trained with the condition dropped (eq. 14); temporal
    layers, which were trained with a condition only, are off.

    Args:
        network: in eval mode.
        background: see Prior; None is 0.93 (x8) for the bicubic network and 1 for the other. x16 was published with 0.98, and weights do not
            tell the two apart: see BACKGROUND.
        place: where the network runs; None leaves it where it is.

    Attributes:
        parser: finds the face in the condition, once per window as in the published code; None is face_mask().
        upsampling: see Prior; "bicubic" is without antialiasing.
    """

    temporal = True

    def __init__(self, network: VideoUNet, *, background: float | None = None, place: Placement | None = None) -> None:
        bicubic = network.takes_noise_level
        self.network, self.multiple = network, network.multiple
        self.schedule = bicubic_schedule() if bicubic else linear_schedule()
        self.native_size = network.config.side
        self.upsampling = "bicubic" if bicubic else "area"
        self.background = BACKGROUND["x8" if bicubic else "gaussian"] if background is None else background
        self.parser: Callable[[Tensor], Tensor] | None = None
        self.place = on(network, next(network.parameters()).device) if place is None else place
        self._flows: _LastResult[Flows] = _LastResult()
        self._parsed: _LastResult[Tensor] = _LastResult()

    def masked(self, parser: Callable[[Tensor], Tensor]) -> FlairPrior:
        if self.background == 1:
            return self
        other = copy(self)
        other.parser, other._flows, other._parsed = parser, copy(self._flows), _LastResult()
        return other

    def predict_x0(self, x_t: Tensor, t: int, condition: Tensor | None = None) -> Tensor:
        """See Prior; frames (N, 3, H, W) are one window, with H and W multiples of the network's `multiple`.

        Raises:
            ValueError: if the frames do not fit the network.
        """
        eps = self.predict_eps(x_t, t, condition)
        return eps_to_x0(x_t, eps, self.schedule.alpha_bar(t))

    def predict_eps(self, x_t: Tensor, t: int, condition: Tensor | None = None) -> Tensor:
        """The network's estimate of the noise in x_t, float32, on the device of x_t."""
        return self._eps(x_t, self.level(t), condition)

    def denoise(self, noisy: Tensor, sigma: float, condition: Tensor | None = None) -> Tensor:
        """E[x | noisy, c] for noisy = x + sigma n, at any sigma > 0; for the bicubic network, whose noise level is continuous.

        Raises:
            ValueError: for the other network, which takes the levels of its schedule only.
        """
        if not self.network.takes_noise_level:
            raise ValueError("FLAIR's network for blur and JPEG is told a step of its schedule, not a noise level; use predict_x0")
        signal = (1 + sigma**2) ** -0.5
        return noisy - sigma * self._eps(noisy * signal, signal, condition)

    def _eps(self, x_t: Tensor, noise_level: float, condition: Tensor | None) -> Tensor:
        height, width = x_t.shape[-2:]
        device = self.place(self.working_bytes(len(x_t), height, width))
        level = torch.tensor(noise_level, device=device)
        x = x_t.to(device, torch.float32)
        if condition is None:
            eps = self.network(x, torch.zeros_like(x), level, frames=1, temporal=False, pixels=PIXELS)
            return eps.to(x_t.device)
        c = condition.to(device, torch.float32)
        flows = self._flows.of(c, lambda c: self.network.flows(c if self.upsampling == "bicubic" else smoothed(c))) if len(c) > 1 else {}
        return self.network(x, c, level, flows=flows, weights=self._weights(c), pixels=PIXELS).to(x_t.device)

    def working_bytes(self, frames: int, height: int, width: int) -> int:
        return self.network.working_bytes(frames, height, width)

    def level(self, t: int) -> float:
        """The network's noise-level input at step t: sqrt(alpha_bar_t), or the timestep."""
        return self.schedule.alpha_bar(t) ** 0.5 if self.network.takes_noise_level else float(self.schedule.timesteps[t])

    def _weights(self, condition: Tensor) -> Tensor | float:
        """w_n of eq. 17: 1 inside the face, `background` outside."""
        if self.background == 1:
            return 1.0
        if self.parser is None:
            mask = face_mask(condition.shape[-2])
        else:
            parser = self.parser
            mask = self._parsed.of(condition, lambda c: parser(((c + 1) / 2).clamp(0, 1).cpu()))
        mask = mask.to(condition).reshape(-1, 1, *mask.shape[-2:])
        return self.background + (1 - self.background) * F.interpolate(mask, condition.shape[-2:], mode="nearest")


def smoothed(condition: Tensor) -> Tensor:
    """The frames from which the blur network's flow is estimated: the observation enlarged by bicubic interpolation, clamped to [-1, 1].

    The condition is the observation enlarged by repeating pixels, from which the observation is recovered. A condition without such blocks is
    returned as it is.
    """
    height, width = condition.shape[-2:]
    for factor in REPEATS:
        if height % factor or width % factor:
            continue
        small = condition[..., ::factor, ::factor]
        blocks = condition.unflatten(-1, (-1, factor)).unflatten(-3, (-1, factor))
        if bool((blocks == small[..., :, None, :, None]).all()):
            return F.interpolate(small, (height, width), mode="bicubic", align_corners=False).clamp(-1, 1)
    return condition


def is_flair(names: Mapping[str, Any]) -> bool:
    """Whether parameter names are those of one of FLAIR's video networks."""
    return "downs.0.wrapped_module.weight" in names or "input_blocks.0.0.wrapped_module.weight" in names


def flair_prior_from(state: Mapping[str, Tensor], task: str | None = None, *, config: Any = None, dtype: torch.dtype = torch.float32) -> FlairPrior:
    """The prior that a flat state dict holds, its parameters without gradients and its convolutions in channels_last.

    Args:
        task: "x4", "x8", "x16", "gaussian", "motion" or "jpeg", for what the weights do not say; None is "x8" for the bicubic network.
        config: the network's sizes, for networks that differ from the published in what weights do not show.
        dtype: of its convolutions; see VideoUNet.halved.

    Raises:
        ValueError: if the weights are not FLAIR's, or `task` is not one of this network's.
    """
    if not is_flair(state):
        raise ValueError(f"these weights are not one of FLAIR's video networks (their first parameter is {next(iter(state), 'missing')!r})")
    bicubic = "downs.0.wrapped_module.weight" in state
    tasks = ("x8", "x16", "x4") if bicubic else ("gaussian", "motion", "jpeg")
    if task is not None and task not in tasks:
        raise ValueError(f"these weights are FLAIR's network for {' and '.join(tasks)}, not for {task!r}; choose one of those tasks or other weights")
    from ..models.flair.bicubic import BicubicUNet
    from ..models.flair.blur import BlurUNet

    network = (BicubicUNet if bicubic else BlurUNet).of(state, config).halved(dtype)
    network.requires_grad_(False).to(memory_format=torch.channels_last)
    return FlairPrior(network, background=BACKGROUND[task or tasks[0]])
