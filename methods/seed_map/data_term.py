"""l(Y, A(X')): the data term, its gradient, and how well each frame is explained."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...physics.base import Degradation
from ...physics.compose import compose


def split_masks(operator: Degradation) -> tuple[Sequence[Degradation], Degradation]:
    """(masks, rest) of A: the masks at its end, the last one first, and the operator before them (the identity if there is none)."""
    chain = operator.chain
    count = next((n for n, part in enumerate(chain) if not part.hides), len(chain))
    return chain[:count], compose(chain[count:])


def known_pixels(operator: Degradation, y: Tensor) -> Tensor:
    """Which pixels of the observation y (N, 3, h, w) no mask of `split_masks` hides: (N, 1, h, w) bool."""
    known = torch.ones(1, 1, *y.shape[-2:], dtype=torch.bool, device=y.device)
    for mask in split_masks(operator)[0]:
        known = known & (mask.mask_for(y) > 0)
    return known.expand(len(y), 1, *y.shape[-2:])


CHUNK = 8
"""Frames whose data term is computed at once, for operators that do not mix frames."""


def differentiable(operator: Degradation, x: Tensor) -> Tensor:
    """A x, with the identity for the derivative of what rounds or recodes (JPEG, H.264, sensor processing): the straight-through gradient.

    Linear operators in the chain keep their exact derivative.
    """
    for part in reversed(operator.chain):
        x = part.forward(x) if part.linear else x + (part.forward(x.detach()) - x.detach())
    return x


class Observation:
    """Y and A.

    Args:
        y: (N, 3, h, w) in [0, 1]. Pixels that A hides (`known_pixels`) are set to 0, whatever they hold.
        operator: A, from clean frames in [0, 1].
        loss: "mse" or "l1", of values in the [-1, 1] range.

    Attributes:
        noise: standard deviation of the noise and coding losses that A models, in known pixels, in units of [0, 1].
    """

    def __init__(self, y: Tensor, operator: Degradation, loss: str = "mse") -> None:
        self.operator, self.loss = operator, loss
        self._known = known_pixels(operator, y)
        self.y = torch.where(self._known, y, 0)
        whole = "time" in operator.axes or not operator.linear  # a mask per frame wants all its frames at once
        self._chunk = len(y) if whole else CHUNK
        _, rest = split_masks(operator)  # the noise level of all of A is an average over hidden pixels too
        self.noise = math.hypot(rest.noise_level, rest.distortion)

    def value_and_gradient(self, frames: Tensor) -> tuple[float, Tensor]:
        """l(Y, A(X')), the mean over all values, hidden ones counting as explained, and its gradient on frames (N, 3, H, W) in [-1, 1]."""
        value, gradients = 0.0, []
        for x, y in zip(frames.split(self._chunk), self.y.split(self._chunk), strict=True):
            leaf = x.detach().requires_grad_()
            error = 2 * (differentiable(self.operator, (leaf + 1) / 2) - y)
            term = (error.square() if self.loss == "mse" else error.abs()).sum() / self.y.numel()
            gradients.append(torch.autograd.grad(term, leaf)[0])
            value += float(term.detach())
        return value, torch.cat(gradients)

    @torch.no_grad()
    def residuals(self, frames: Tensor) -> Tensor:
        """(N,) RMS of A(X') - Y over each frame's known pixels, 0 where there are none, in units of [0, 1], for frames in [-1, 1]."""
        found = []
        for x, y, known in zip(*(tensor.split(self._chunk) for tensor in (frames, self.y, self._known)), strict=True):
            squares = torch.where(known, (self.operator.forward((x + 1) / 2) - y).square(), 0).sum((1, 2, 3))
            found.append((squares / (y.shape[1] * known.sum((1, 2, 3))).clamp_min(1)).sqrt())
        return torch.cat(found).cpu()

    @torch.no_grad()
    def contrast(self) -> Tensor:
        """(N,) standard deviation of each observed frame over its known pixels, 0 where there are none."""
        frames = (y[:, known[0]] for y, known in zip(self.y, self._known, strict=True))
        return torch.stack([values.std(correction=0) if values.numel() else values.sum() for values in frames]).cpu()


UNEXPLAINED = 0.06
"""Residual of an unexplained frame, relative to its contrast. A sharp face of 128 pixels that is described as blurred by 1.5 pixels keeps 0.07, by 3
pixels 0.14; described correctly, 500 iterations leave 0.015 to 0.025."""
OUTLIER = 3.0
"""Residual of an unexplained frame, relative to the clip's median: either of the two is enough."""
FAINT = 2.0 / 255
NOISE_MARGIN = 1.5
"""A frame whose residual is at most FAINT, or NOISE_MARGIN times the noise that the operator models, is explained in any case."""
HALFWAY = 0.5
"""Standard deviations that the seed must have been able to travel before its loss is judged."""
FALLING = 0.5
"""Share of the data loss that the second half of that travel removes if more iterations would help. On a face of 128 pixels and textures of 32, 100
to 500 iterations, correct operators lost 0.58 or more there, wrong ones 0.17 to 0.52."""


def unexplained(residuals: Sequence[float], contrast: Sequence[float], noise: float) -> list[int]:
    """Indices of frames whose observation the restored clip does not explain: a wrong operator, a shot cut, or too few iterations."""
    if not residuals:
        return []
    middle = sorted(residuals)[len(residuals) // 2]
    return [
        n
        for n, (residual, spread) in enumerate(zip(residuals, contrast, strict=True))
        if not math.isfinite(residual)
        or (residual > max(NOISE_MARGIN * noise, FAINT) and (residual > UNEXPLAINED * spread or residual > OUTLIER * middle))
    ]


def unfinished(losses: Sequence[float], travel: Sequence[float]) -> bool:
    """Whether more iterations may help: the seed could not travel far yet, or the data loss was still falling.

    The loss is compared with that at half of the travel, not of the iterations, because the learning rate decays. Under a wrong operator the loss
    stops falling early.

    Args:
        losses: the data loss of each iteration.
        travel: before each, the sum of the seed's learning rates: about the distance that Adam covers, in standard deviations.
    """
    if not losses or travel[-1] < HALFWAY:
        return True
    middle = next(i for i, gone in enumerate(travel) if gone >= travel[-1] / 2)
    return losses[-1] < (1 - FALLING) * losses[middle]
