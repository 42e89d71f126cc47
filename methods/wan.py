"""One-step restoration by a video diffusion network, as VividFace (Zhang et al.) publishes it for Wan 2.1 1.3B."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ..faces.types import CROP, FaceTrack
from ..models.device import CheckInterrupt, no_check
from ..options import Options, parameter
from .base import Restorer, Session, WarmUp, check_square, joined, refuse_masks, resized
from .flair.windows import WindowStream, blend_overlap

TIMESTEP = 400
"""Of 1000: the timestep at which the network is evaluated, as if the damage were the noise of that step."""
TEMPORAL_STRIDE = 4
"""Frames per latent frame. The first latent frame stands for one frame only, so the VAE takes 4 n + 1 frames."""


class OneStepModel(Protocol):
    """A latent video network with its VAE."""

    @property
    def weights(self) -> str:
        """Identifies its weights, so that a resumed job can check them."""

    def encode(self, frames: Tensor) -> Tensor:
        """(4 n + 1, 3, H, W) in [0, 1] to normalised latents (1, C, n + 1, h, w)."""

    def velocity(self, latents: Tensor, timestep: float) -> Tensor:
        """The flow-matching network's velocity, noise minus clean latents, at a timestep of 0 to 1000 under the empty prompt."""

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents (1, C, n + 1, h, w) to (4 n + 1, 3, H, W) in [0, 1]."""


@dataclass(frozen=True)
class WanOptions(Options):
    """Parameters of the one-step restorer.

    Attributes:
        window: frames that the network sees at once.
        overlap: frames that neighbouring windows share and blend over.

    Raises:
        ValueError: naming the parameter, its range and what was given.
    """

    window: int = parameter(
        21, 5, 121, unit="frames", step=4, advice="Frames restored at once, 4 n + 1; more are steadier and need more memory, which grows with them."
    )
    overlap: int = parameter(4, 0, 60, unit="frames", advice="Frames that windows share, over which one fades into the next.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window % TEMPORAL_STRIDE != 1:
            near = max(5, (self.window - 1) // TEMPORAL_STRIDE * TEMPORAL_STRIDE + 1)
            raise ValueError(f"window is 4 n + 1 frames, as Wan's VAE takes them, got {self.window}; take {near} or {near + TEMPORAL_STRIDE}")
        if self.overlap > self.window // 2:
            raise ValueError(f"overlap is at most half of the window of {self.window} frames, got {self.overlap}")


class WanRestorer(Restorer):
    """z = encode(y), x = decode(z - v(z, 400)): the predicted velocity is subtracted from the latents of the damaged clip.

    No noise is drawn, so the seed has no effect. Windows overlap and are blended; the last one is padded by repeating its last frame.
    """

    name = "wan"

    def __init__(self, model: OneStepModel, options: WanOptions | None = None) -> None:
        self.model, self.options = model, options or WanOptions()
        self.fingerprint = model.weights

    @property
    def look_ahead(self) -> int:  # type: ignore[override]
        return self.options.window - 1

    @property
    def warm_up(self) -> WarmUp:  # type: ignore[override]
        """Windows begin where the whole track's do, and one before is needed for its end."""
        step = self.options.window - self.options.overlap
        return WarmUp(before=self.options.overlap, every=step)

    def open(self, track: FaceTrack | None = None, *, seed: int = 0, check_interrupt: CheckInterrupt = no_check) -> Session:
        return WanSession(self.model, self.options, check_interrupt)

    def configured(self, **changes: Any) -> WanRestorer:
        """The same model with other parameters."""
        return WanRestorer(self.model, replace(self.options, **changes))


class WanSession(Session):
    """A person's clip through overlapping windows."""

    def __init__(self, model: OneStepModel, options: WanOptions, check_interrupt: CheckInterrupt) -> None:
        self.model, self.check_interrupt = model, check_interrupt
        self.windows = WindowStream(options.window, options.overlap, self.restored)

    def push(self, crops: Tensor, masks: Tensor | None = None) -> Tensor:
        refuse_masks("wan", masks)
        check_square(crops)
        return joined(self.windows.push(resized(crops.float(), CROP, "bilinear")))

    def close(self) -> Tensor:
        return joined(self.windows.close())

    def restored(self, frames: Tensor, first: int, shared: Tensor | None) -> Tensor:
        """A window (n, 3, S, S) restored, blended with the frames that it shares with the window before."""
        filled = torch.cat([frames, frames[-1:].expand((1 - len(frames)) % TEMPORAL_STRIDE, -1, -1, -1)])
        return blend_overlap(one_step(self.model, filled, self.check_interrupt)[: len(frames)], shared, "blend")


def one_step(model: OneStepModel, frames: Tensor, check_interrupt: Callable[[], None] = no_check) -> Tensor:
    """decode(z - v(z, TIMESTEP)) of z = encode(frames), for 4 n + 1 frames (N, 3, H, W) in [0, 1]; float32 on the CPU."""
    check_interrupt()
    latents = model.encode(frames)
    check_interrupt()
    latents = latents - model.velocity(latents, TIMESTEP)
    check_interrupt()
    return model.decode(latents).float().clamp(0, 1).cpu()
