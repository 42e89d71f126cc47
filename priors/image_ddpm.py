"""Image diffusion networks as priors, which predict the noise of each frame independently."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..diffusion.schedule import Schedule, eps_to_x0, linear_schedule
from ..models.checkpoints.load import channels_last
from ..models.device import Placement, in_batches, on, out_of_memory
from ..models.difface_unet import DifFaceUNet
from .base import Prior

DEFAULT_WORKING_BYTES = 1 << 30
"""Bytes of working memory counted for a frame of 512 x 512 where a network does not say."""


class ImagePrior(Prior):
    """x_0 = (x_t - sqrt(1 - alpha_bar_t) eps(x_t, t)) / sqrt(alpha_bar_t), clamped to [-1, 1]. Differentiable in x_t and the condition.

    Args:
        network: (x (N, 3 or 6, H, W), t (N,)) -> (N, 3 or more, H, W), the noise first; in eval mode.
        schedule: its training schedule; None is the linear one of 1000 steps, 1e-4 to 2e-2, of DifFace and guided diffusion.
        place: where it runs; None leaves it where it is. Frames are moved there, and the estimate back.
        native_size: see Prior.
        conditional: whether the condition follows the noisy frame along the channels. If so, no condition means zeros, as where it was
            dropped in training; if not, a condition is ignored.
        batch: frames per call, halved when memory runs out.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule | None = None,
        *,
        place: Placement | None = None,
        native_size: int | None = None,
        conditional: bool = False,
        batch: int = 1,
    ) -> None:
        self.network: Any = network
        self.schedule = schedule or linear_schedule()
        self.place = place or on(network, next(network.parameters()).device)
        self.native_size = native_size
        self.conditional = conditional
        self.batch = batch
        config: Any = getattr(network, "config", None)
        self.multiple = getattr(config, "multiple", 1)
        self.learns_variance = getattr(config, "outputs", 3) == 6

    def predict_x0(self, x_t: Tensor, t: int, condition: Tensor | None = None) -> Tensor:
        alpha_bar = self.schedule.alpha_bar(t)
        return self._each(x_t, t, condition, lambda x, out: eps_to_x0(x[:, :3], out[:, :3], alpha_bar).clamp(-1, 1))

    def posterior(self, x_t: Tensor, t: int) -> tuple[Tensor, Tensor | None]:
        if not self.learns_variance:
            return super().posterior(x_t, t)
        out = self._each(x_t, t, None, lambda x, out: out, variance=True)
        return eps_to_x0(x_t, out[:, :3], self.schedule.alpha_bar(t)).clamp(-1, 1), (out[:, 3:] + 1) / 2

    def _each(self, x_t: Tensor, t: int, condition: Tensor | None, make: Callable[[Tensor, Tensor], Tensor], **wanted: bool) -> Tensor:
        """What `make` makes of frames on the network's device and the network's answer to them, where x_t is."""
        step = self.schedule.timesteps[t]
        seen = torch.cat([x_t, torch.zeros_like(x_t) if condition is None else condition], 1) if self.conditional else x_t

        def run(x: Tensor) -> Tensor:
            place = self.place(self.working_bytes(len(x), x.shape[-2], x.shape[-1]))
            x = x.to(place).contiguous(memory_format=torch.channels_last)
            return make(x, self.network(x, torch.full((len(x),), step, device=place), **wanted)).to(x_t)

        return in_batches(run, seen, len(seen))

    def working_bytes(self, frames: int, height: int, width: int) -> int:
        own = getattr(self.network, "working_bytes", None)
        return frames * DEFAULT_WORKING_BYTES * height * width // 512**2 if own is None else own(frames, height, width)


def is_image_prior(names: Collection[str]) -> bool:
    """Whether tensor names are those of a network that `prior_from_state` builds."""
    wanted = ("time_embed.0.weight", "input_blocks.0.0.weight", "input_blocks.1.0.emb_layers.1.weight", "middle_block.1.qkv.weight", "out.2.weight")
    return all(name in names for name in wanted) and not any("wrapped_module" in name for name in names)


def prior_from_state(state: Mapping[str, Tensor]) -> ImagePrior:
    """The prior in a flat state dict: DifFace's network or one of its class in other sizes, in float32, ready to run on the CPU.

    Raises:
        ValueError: if the weights are not such a network, saying what differs.
    """
    if not is_image_prior(state):
        raise ValueError(f"these {len(state)} tensors are no diffusion network of DifFace's kind; choose iddpm_ffhq512_ema500000.pth or one like it")
    if len(state["input_blocks.1.0.emb_layers.1.weight"]) != 2 * len(state["input_blocks.1.0.in_layers.2.weight"]):
        raise ValueError("this diffusion network only adds its time embedding, where DifFace's also scales by it; it is not supported")
    try:
        network = DifFaceUNet.of(state)
    except (KeyError, RuntimeError, ValueError, IndexError) as error:
        if out_of_memory(error):
            raise
        what = str(error).splitlines()[min(1, str(error).count("\n"))].strip()
        raise ValueError(f"this diffusion network is built otherwise than DifFace's ({what}); it is not supported") from error
    channels_last(network.requires_grad_(False))
    config = network.config
    return ImagePrior(network, native_size=config.side, conditional=config.inputs == 6)
