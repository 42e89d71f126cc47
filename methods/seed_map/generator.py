"""D o R: from the seed space of a diffusion model to frames, split where the residuals go in.

R is the whole reverse process seen as one function (eq. 6): deterministic DDIM in a few steps. D = D1 o D2, D1 the decoder's last
convolution (eq. 12); a pixel-space model has no decoder, so D2 and D1 are the identity there.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ...diffusion.steps import ddim_step
from ...models.device import CheckInterrupt, no_check
from ...priors.base import Prior

Estimate = Callable[[Tensor, int], Tensor]
"""(x_t, i) -> E[x_0 | x_t] at the i-th of the levels, 0 the cleanest; x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps."""
VJP = Callable[[Tensor], Tensor]
"""The vector-Jacobian product of D2 o R: maps a gradient with respect to h to one with respect to z. May be called once."""

HEADROOM = 2.0**-8
"""Factor on the scale of half-precision gradients after an overflow."""


def leading_times(schedule_length: int, steps: int) -> list[int]:
    """The `steps` times of DDIM's "leading" spacing with offset 1, cleanest first: 1, 251, 501, 751 for 4 of 1000.

    The last, where R begins, lies a step below the end of the schedule.

    Raises:
        ValueError: if the schedule is shorter than the steps.
    """
    if schedule_length <= steps:
        raise ValueError(
            f"{steps} DDIM steps do not fit the {schedule_length} levels of the noise schedule that are used; lower steps, or raise start"
        )
    return [1 + i * (schedule_length // steps) for i in range(steps)]


def reverse(z: Tensor, estimate: Estimate, alpha_bars: Sequence[float], *, clip: bool = False, check_interrupt: CheckInterrupt = no_check) -> Tensor:
    """R(z), eq. 6: DDIM with eta 0 from x_T = z; every step is checkpointed, so that at most one network's graph is held.

    Args:
        z: the seed, any shape.
        alpha_bars: alpha_bar of each level, cleanest first; after the first of them comes the clean frame, alpha_bar 1.
        clip: whether estimates are clamped to [-1, 1] (pixels, not latents).
    """

    def step(x: Tensor, i: int) -> Tensor:
        check_interrupt()
        x0 = estimate(x, i)
        return ddim_step(x, x0.clamp(-1, 1) if clip else x0, alpha_bars[i], alpha_bars[i - 1] if i else 1.0)

    for i in range(len(alpha_bars) - 1, -1, -1):
        z = checkpointed(step, z, i)
    return z


def checkpointed(work: Callable[..., Tensor], *inputs: object) -> Tensor:
    """`work(*inputs)` with gradient checkpointing."""
    return checkpoint(work, *inputs, use_reentrant=False, preserve_rng_state=False)


class SeedGenerator(ABC):
    """A generative model as this method sees it.

    Attributes:
        seed_shape: (1, c, h, w) of z, standard normal.
        feature_shape: (C, H, W) of h, the place of the residuals.
        size: (H, W) of the frames, cropped from the top left of what h decodes to.
        device: where z, h and the frames live, all float32.
        rank: default rank of the residuals.
    """

    rank: int = 32
    seed_shape: tuple[int, int, int, int]
    feature_shape: tuple[int, int, int]
    size: tuple[int, int]
    device: torch.device

    @abstractmethod
    def features(self, z: Tensor, frame: int | None = None) -> tuple[Tensor, VJP]:
        """h = D2(R(z)), (1, C, H, W), detached, and its VJP; of one frame, or (None) for all frames."""

    @abstractmethod
    def tail(self, h: Tensor) -> Tensor:
        """D1(h): frames (n, 3, H, W) around [-1, 1] of features (n, C, H, W)."""

    def rank_for(self, asked: int) -> int:
        """The rank of the residuals: `asked`, or 0 for the generator's own; limited to their sides."""
        return min(asked or self.rank, *self.feature_shape[1:])

    def overflowed(self) -> None:  # noqa: B027
        """Called after an infinite gradient; generators in half precision reduce their gradient scale."""


class PixelGenerator(SeedGenerator):
    """A pixel-space prior: x' = R(z) + r, with estimates clamped to [-1, 1] and eps computed from the clamped ones.

    The prior is asked for one frame at a time, so a video network acts on clips of one frame.

    Args:
        prior: its frames are (n, 3, H, W).
        size: (H, W) of the frames.
        guides: (N, 3, H, W) in [-1, 1], what the damaged frames show, for a prior that was trained with such a condition: as a prompt is to a
            latent model, it is part of R. A seed for all frames is guided by the middle frame, which, unlike the mean, is a real picture.
            None generates faces from noise alone, which small networks do badly.
        start: with guides, the share of the noise schedule that R uses, which begins at the last of its `leading_times`, about
            start (1 - 1 / steps): x_T = sqrt(alpha_bar_T) guide + sqrt(1 - alpha_bar_T) z. At 1, and without guides, x_T = z.

    Raises:
        ValueError: if the prior was trained for another size.
    """

    def __init__(
        self,
        prior: Prior,
        size: tuple[int, int],
        *,
        steps: int = 4,
        guides: Tensor | None = None,
        start: float = 1.0,
        device: torch.device | str = "cpu",
        check_interrupt: CheckInterrupt = no_check,
    ) -> None:
        if prior.native_size is not None and (prior.native_size, prior.native_size) != tuple(size):
            raise ValueError(
                f"this prior works on {prior.native_size} x {prior.native_size} frames, but the restored frames would be "
                f"{size[1]} x {size[0]} (width x height); resize the input or the degradation's factor"
            )
        padded = padded_size(prior, size)
        self.prior, self.size, self.device, self._check_interrupt = prior, size, torch.device(device), check_interrupt
        self.seed_shape = (1, 3, padded[0], padded[1])
        self.feature_shape = (3, padded[0], padded[1])
        self.rank = min(padded)
        self._from_guide = guides is not None and start < 1
        self._times = leading_times(round(len(prior.schedule) * start) if self._from_guide else len(prior.schedule), steps)
        self._guides: Tensor | None = None
        if guides is not None:
            more = (0, padded[1] - size[1], 0, padded[0] - size[0])
            self._guides = F.pad(guides.to(self.device, torch.float32), more, mode="replicate")

    def features(self, z: Tensor, frame: int | None = None) -> tuple[Tensor, VJP]:
        alpha_bars = [self.prior.schedule.alpha_bar(t) for t in self._times]
        leaf = z.detach().requires_grad_()
        condition = None
        if self._guides is not None:
            n = len(self._guides) // 2 if frame is None else frame
            condition = self._guides[n : n + 1]

        def estimate(x_t: Tensor, i: int) -> Tensor:
            return self.prior.predict_x0(x_t, self.prior.schedule.timesteps[self._times[i]], condition)

        noisy: Tensor = leaf
        if condition is not None and self._from_guide:
            noisy = alpha_bars[-1] ** 0.5 * condition + (1 - alpha_bars[-1]) ** 0.5 * leaf
        x = reverse(noisy, estimate, alpha_bars, clip=True, check_interrupt=self._check_interrupt)
        return x.detach(), lambda grad: torch.autograd.grad(x, leaf, grad)[0]

    def tail(self, h: Tensor) -> Tensor:
        return h[..., : self.size[0], : self.size[1]]


def padded_size(prior: Prior, size: tuple[int, int]) -> tuple[int, int]:
    """(H, W) at least as large as `size` whose sides the prior's network can halve as often as it needs, at every scale."""
    height, width = size
    while True:
        step = prior.multiple * prior.scale_at(height, width)
        if height % step == 0 and width % step == 0:
            return height, width
        height, width = -(-height // step) * step, -(-width // step) * step


class LatentGenerator(SeedGenerator):
    """A latent diffusion model with its decoder: x'_n = D1(D2(R(z)) + r_n).

    Gradients are scaled to about 1 by a power of two on their way (loss scaling): those of a mean over a clip are too small for float16.

    Args:
        estimate: the latent network.
        alpha_bars: the levels of R, cleanest first.
        decode: D2, from a latent (1, c, h, w) float32 to the input of the last convolution (1, C, H, W) float32.
        weight, bias: the last convolution, (3, C, kh, kw) and (3,).
        seed_shape: (1, c, h, w) of the latent.
        size: (H, W) of the frames, at most that of h.
    """

    def __init__(
        self,
        estimate: Estimate,
        alpha_bars: Sequence[float],
        decode: Callable[[Tensor], Tensor],
        weight: Tensor,
        bias: Tensor | None,
        *,
        seed_shape: tuple[int, int, int, int],
        feature_shape: tuple[int, int, int],
        size: tuple[int, int],
        check_interrupt: CheckInterrupt = no_check,
    ) -> None:
        self.estimate, self.alpha_bars, self.decode, self._check_interrupt = estimate, list(alpha_bars), decode, check_interrupt
        self.weight = weight.detach().float()
        self.bias = None if bias is None else bias.detach().float()
        self.seed_shape, self.feature_shape, self.size = seed_shape, feature_shape, size
        self.device = self.weight.device
        self._scale = 1.0

    def features(self, z: Tensor, frame: int | None = None) -> tuple[Tensor, VJP]:
        seed = z.detach().requires_grad_()
        z0 = reverse(seed, self.estimate, self.alpha_bars, check_interrupt=self._check_interrupt)
        latent = z0.detach().requires_grad_()  # detached, so that the decoder's gradient can be rescaled for the network
        h = self.decode(latent)

        def vjp(grad: Tensor) -> Tensor:
            return self._backward(z0, seed, self._backward(h, latent, grad))

        return h.detach(), vjp

    def tail(self, h: Tensor) -> Tensor:
        padding = (self.weight.shape[-2] // 2, self.weight.shape[-1] // 2)
        return F.conv2d(h, self.weight, self.bias, padding=padding)[..., : self.size[0], : self.size[1]]

    def overflowed(self) -> None:
        self._scale *= HEADROOM

    def _backward(self, output: Tensor, source: Tensor, grad: Tensor) -> Tensor:
        largest = float(grad.abs().max())
        if not math.isfinite(largest) or largest == 0:
            return torch.zeros_like(source) if largest == 0 else torch.full_like(source, math.inf)
        scale = self._scale * 2.0 ** -math.floor(math.log2(largest))
        return torch.autograd.grad(output, source, grad * scale)[0] / scale
