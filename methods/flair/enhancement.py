"""FLAIR's enhancement (Algorithm 1, line 8): a restorer's faces, blended into the estimates of one window where a mask says.

With a parser the mask is the one that pasting uses (faces/compositing/parsing.py); the official code excludes earrings and blurs more widely.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ...faces.compositing.parsing import Parser
from ...faces.types import FaceTrack
from ...models.device import CheckInterrupt
from ..base import Restorer, restore_frames

Mask = Tensor | Parser
"""(512, 512) in [0, 1]; or a face parser: crops (n, 3, 512, 512) in [0, 1] on the CPU -> (n, 512, 512) or (n, 1, 512, 512) in [0, 1]."""

UNCHANGED_TOLERANCE = 3 / 255
"""Difference up to which a pixel in [0, 1] counts as unchanged. Over ten operators and two clips the embedded codebook changes its most changed pixel
by 10 to 27 levels where it gains (0.05 to 0.3 dB), and by at most 2.5 where it does not (0.01 dB either way)."""


@dataclass
class Enhancement:
    """x0 -> (1 - w m) x0 + w m G(x0), eq. 13, for the frames of one window.

    Attributes:
        enhancer: G, any restorer of 512 crops. If it sees one frame at a time and hardly changes the first one of the window, it is not run on
            the others: small networks leave faces alone that show more than their codes can.
        mask: m. A parser finds the masks of the crops, see `each_step`.
        each_step: whether a parser runs again at each step, as in the official code, or once, on the first G(x0).
        known: frames at the beginning of the window that will be overwritten; if G sees one frame at a time, it is not run on them.
        track, seed, check_interrupt: see Restorer.open.
    """

    enhancer: Restorer
    mask: Mask
    each_step: bool
    known: int
    track: FaceTrack | None
    seed: int
    check_interrupt: CheckInterrupt
    _found: Tensor | None = field(default=None, init=False)

    def __call__(self, x0: Tensor, weight: float) -> Tensor:
        """x0 (n, 3, 512, 512) in [-1, 1]; G is not called where the weight is 0."""
        skipped = self.known if "single_frames" in self.enhancer.supports else 0
        if weight == 0 or skipped == len(x0):
            return x0
        tail = x0[skipped:]
        given = ((tail + 1) / 2).cpu()
        crops = self._restored(given)
        if crops is given:
            return x0
        mask = self._mask(crops).to(x0)
        better = (crops.to(x0) * 2).sub_(1).sub_(tail).mul_(weight * mask).add_(tail).clamp_(-1, 1)
        return better if not skipped else torch.cat([x0[:skipped], better])

    def _restored(self, crops: Tensor) -> Tensor:
        """G of crops. If G sees single frames and hardly changes the first one, `crops` itself is returned."""
        asked = partial(restore_frames, self.enhancer, track=self.track, seed=self.seed, check_interrupt=self.check_interrupt)
        if "single_frames" not in self.enhancer.supports:
            return asked(crops)
        first = asked(crops[:1])
        if bool(((first - crops[:1]).abs() < UNCHANGED_TOLERANCE).all()):
            return crops
        return torch.cat([first, asked(crops[1:])]) if len(crops) > 1 else first

    def _mask(self, crops: Tensor) -> Tensor:
        if isinstance(self.mask, Tensor):
            return self.mask
        if self._found is None or self.each_step:
            found = self.mask(crops)
            self._found = found if found.ndim == 4 else found[:, None]
        return self._found
