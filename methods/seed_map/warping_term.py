"""Progressive warping (eq. 9 and 10): each frame is pulled towards the next, warped by a flow that is estimated again as they improve."""

from __future__ import annotations

import torch
from torch import Tensor

from ...models.device import CheckInterrupt, no_check
from ...motion.flow import FlowSource
from ...motion.occlusion import visible
from ...motion.warp import warp

CHUNK = 4
"""Frame pairs per batch."""
STILL = 0.1
"""Mean change of the flow, in pixels, below which it has settled."""
STALLED = 0.9
"""It has settled, too, if its change is at least this share of the change before, twice in a row."""
EARLIEST_START, LATEST_START = 0.2, 0.75
"""Shares of the iterations between which the warping begins, as soon as the flow has settled (frames start equal, and their flow steady)."""


class ProgressiveWarping:
    """L_warp and the state of its flow.

    Args:
        source: finds the flow between two frames.
        decay: beta of eq. 10.
    """

    def __init__(self, source: FlowSource, decay: float, loss: str = "mse", check_interrupt: CheckInterrupt = no_check) -> None:
        self.source, self.decay, self.loss, self.check_interrupt = source, decay, loss, check_interrupt
        self.flow: Tensor | None = None
        self.visible: Tensor | None = None
        self.changes: list[float] = []
        self._last: Tensor | None = None
        self._averaged: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def look(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """f' of eq. 9 and the reverse flow: of each frame into the next and back, (N - 1, 2, H, W), for frames in [-1, 1]."""
        forward, backward = [], []
        for n in range(len(frames) - 1):
            self.check_interrupt()
            here, there = (self.source.features(frames[i : i + 1].clamp(-1, 1)) for i in (n, n + 1))
            forward.append(self.source.flow(here, there))
            backward.append(self.source.flow(there, here))
        found = torch.cat(forward), torch.cat(backward)
        if self._last is not None:
            self.changes.append(float((found[0] - self._last).square().sum(1).sqrt().mean()))
        self._last = found[0]
        return found

    @torch.no_grad()
    def refresh(self, fresh: tuple[Tensor, Tensor]) -> None:
        """Averages what `look` found over time: f <- beta f + (1 - beta) f', the first f being f' (eq. 10)."""
        old = self._averaged
        self._averaged = fresh if old is None else (old[0].lerp(fresh[0], 1 - self.decay), old[1].lerp(fresh[1], 1 - self.decay))
        self.flow = self._averaged[0]
        self.visible = visible(*self._averaged)

    @property
    def settled(self) -> bool:
        """Whether the flow has stopped changing from one estimate to the next."""
        if not self.changes:
            return False
        stalled = len(self.changes) > 2 and all(self.changes[-i] >= STALLED * self.changes[-i - 1] for i in (1, 2))
        return self.changes[-1] < STILL or stalled

    def value_and_gradient(self, frames: Tensor) -> tuple[float, Tensor]:
        """L_warp of eq. 9, as the mean over pairs, channels and pixels, and its gradient on frames (N, 3, H, W) in [-1, 1].

        Raises:
            RuntimeError: before the first `refresh`.
        """
        if self.flow is None or self.visible is None:
            raise RuntimeError("refresh() comes before value_and_gradient()")
        total, gradient = 0.0, torch.zeros_like(frames)
        pairs = len(frames) - 1
        for start in range(0, pairs, CHUNK):
            stop = min(start + CHUNK, pairs)
            leaf = frames[start : stop + 1].detach().requires_grad_()
            error = self.visible[start:stop] * (leaf[:-1] - warp(leaf[1:], self.flow[start:stop]))
            term = (error.square() if self.loss == "mse" else error.abs()).sum() / frames[:-1].numel()
            gradient[start : stop + 1] += torch.autograd.grad(term, leaf)[0]
            total += float(term.detach())
        return total, gradient
