"""Overlapping windows over a stream of frames, and how neighbouring windows are blended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

Sample = Callable[[Tensor, int, Tensor | None], Tensor]
"""(frames (n, ...), index of the first, results of the frames shared with the previous window or None) -> n results."""


@dataclass
class WindowStream:
    """Cuts a stream into windows [k s, k s + window), s = window - overlap, whatever the chunks it comes in.

    The last window may be shorter. Shared frames are returned once, as the later window has them. At most window - 1 frames are held back.
    """

    window: int
    overlap: int
    sample: Sample
    _waiting: list[Tensor] = field(default_factory=list)
    _shared: Tensor | None = None
    _first: int = 0

    def push(self, frames: Tensor) -> list[Tensor]:
        """Takes frames; returns the results of the windows that they complete."""
        self._waiting.extend(frames.unbind(0))
        ready = []
        while len(self._waiting) >= self.window:
            ready.append(self._run(self.window, last=False))
        return ready

    def close(self) -> list[Tensor]:
        """Samples the frames that no full window has seen, and returns all results that were held back."""
        known = 0 if self._shared is None else len(self._shared)
        if len(self._waiting) > known:
            return [self._run(len(self._waiting), last=True)]
        owed, self._shared, self._waiting = self._shared, None, []
        return [] if owed is None else [owed]

    def _run(self, length: int, last: bool) -> Tensor:
        results = self.sample(torch.stack(self._waiting[:length]), self._first, self._shared)
        done = length if last else length - self.overlap
        self._shared = results[done:] if done < length else None
        del self._waiting[:done]
        self._first += done
        return results[:done]


def blend_overlap(x0: Tensor, shared: Tensor | None, mode: str) -> Tensor:
    """Ties the first frames of a window to those of the window before it.

    Frame i of m shared ones becomes (1 - r) shared + r x0, with r = (i + 1) / (m + 1) for "blend" and r = 0 for "impose" (the official code).
    It is applied to the estimate of every step, so that a temporal prior propagates it to the frames that follow.
    """
    if shared is None:
        return x0
    m = len(shared)
    share = torch.arange(1, m + 1, device=x0.device, dtype=x0.dtype) / (m + 1) if mode == "blend" else x0.new_zeros(m)
    head = shared.to(x0).lerp(x0[:m], share.view(-1, *[1] * (x0.ndim - 1)))
    return torch.cat([head, x0[m:]])
