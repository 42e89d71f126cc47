"""l(Y, A(X')): the data term, its gradient, and how well each frame is explained."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...physics.base import Degradation
from ...physics.compose import chain_of
from ...physics.inpaint import Inpaint, RandomInpaint

PIECE = 8
"""Frames whose data term is computed together where frames do not mix."""


def differentiable(operator: Degradation, x: Tensor) -> Tensor:
    """A x, with the identity for the derivative of what rounds or recodes (JPEG, H.264, sensor processing): the straight-through gradient.

    Linear operators in the chain keep their exact derivative.
    """
    for part in reversed(chain_of(operator)):
        x = part.forward(x) if part.linear else x + (part.forward(x.detach()) - x.detach())
    return x


class Observation:
    """Y and A.

    Args:
        y: (N, 3, h, w) in [0, 1]. Pixels that the outermost operator hides (inpainting) are set to 0, whatever they hold.
        operator: A, from clean frames in [0, 1].
        loss: "mse" or "l1", of values in the [-1, 1] range.
    """

    def __init__(self, y: Tensor, operator: Degradation, loss: str = "mse") -> None:
        self.operator, self.loss = operator, loss
        for part in chain_of(operator):
            if not isinstance(part, Inpaint | RandomInpaint):
                break
            y = part.forward(y)
        self.y = y
        mixes = "time" in operator.axes or not operator.linear
        self._piece = len(y) if mixes else PIECE

    def value_and_gradient(self, frames: Tensor) -> tuple[float, Tensor]:
        """l(Y, A(X')) and its gradient on frames (N, 3, H, W) in [-1, 1]."""
        value, gradients = 0.0, []
        for x, y in zip(frames.split(self._piece), self.y.split(self._piece), strict=True):
            leaf = x.detach().requires_grad_()
            error = 2 * (differentiable(self.operator, (leaf + 1) / 2) - y)
            term = (error.square() if self.loss == "mse" else error.abs()).sum() / self.y.numel()
            gradients.append(torch.autograd.grad(term, leaf)[0])
            value += float(term.detach())
        return value, torch.cat(gradients)

    @torch.no_grad()
    def residuals(self, frames: Tensor) -> Tensor:
        """(N,) RMS of A(X') - Y per frame, in units of [0, 1], for frames in [-1, 1]."""
        pieces = zip(frames.split(self._piece), self.y.split(self._piece), strict=True)
        return torch.cat([(self.operator.forward((x + 1) / 2) - y).square().mean((1, 2, 3)).sqrt() for x, y in pieces]).cpu()

    @torch.no_grad()
    def contrast(self) -> Tensor:
        """(N,) standard deviation of the observed frames."""
        return self.y.flatten(1).std(1).cpu()


UNEXPLAINED = 0.06
"""A frame counts as unexplained when its residual exceeds this share of its contrast, or `OUTLIER` times the clip's median,"""
OUTLIER = 3.0
FAINT = 2.0 / 255
"""and in either case this much,"""
NOISE_MARGIN = 1.5
"""and this multiple of the noise that the operator models. A face of 128 pixels that is sharp and said to be blurred by 1.5 pixels leaves
0.07 of its contrast however long one tries, by 3 pixels 0.14; described rightly, 500 iterations leave 0.015 to 0.025."""
FALLING = 0.5
"""Share of the data loss that the second half of the iterations takes away where more of them would help."""


def unexplained(residuals: Sequence[float], contrast: Sequence[float], noise: float) -> list[int]:
    """The frames whose observation the restored clip does not explain: a wrong operator, a shot cut, or too few iterations."""
    if not residuals:
        return []
    middle = sorted(residuals)[len(residuals) // 2]
    return [
        n
        for n, (residual, spread) in enumerate(zip(residuals, contrast, strict=True))
        if not math.isfinite(residual)
        or (residual > max(NOISE_MARGIN * noise, FAINT) and (residual > UNEXPLAINED * spread or residual > OUTLIER * middle))
    ]


def still_falling(losses: Sequence[float]) -> bool:
    """Whether the data loss was still coming down, so that more iterations explain more; a wrong operator holds it up early."""
    return len(losses) > 1 and losses[-1] < (1 - FALLING) * losses[len(losses) // 2]
