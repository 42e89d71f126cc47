"""Training schedules: steps, batch size and learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Plan:
    """The schedule of a stage.

    Attributes:
        steps: of the optimiser.
        batch: faces (or clips) per forward pass.
        accumulate: forward passes per step.
        rate: Adam's learning rate.
        final_rate: where its cosine ends; equal to `rate` for a constant one.
        milestones: steps at which the rate is halved instead, with `final_rate` equal to `rate`.
        warmup: steps over which the rate rises from 0.
        ema: decay of the averaged weights, which are what is validated and kept; 0 keeps the last weights instead.
        decay: of the weights (AdamW's, apart from the gradient).
        betas: Adam's.
        clip: largest norm of the gradient; 0 for no limit.
    """

    steps: int
    batch: int
    rate: float
    final_rate: float
    accumulate: int = 1
    milestones: tuple[int, ...] = ()
    warmup: int = 0
    ema: float = 0.995
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 0.0
    decay: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.accumulate < 1:
            raise ValueError(f"a plan has at least 1 step, 1 face a batch and 1 batch a step, got {self.steps}, {self.batch} and {self.accumulate}")
        if not (self.rate > 0 and 0 <= self.final_rate <= self.rate and 0 <= self.ema < 1 and self.clip >= 0):
            raise ValueError(f"a plan's rates are positive, its ema is from 0 up to 1 and its clip is not negative, got {self}")

    def with_batch(self, batch: int) -> Plan:
        """The plan with `batch` faces per forward pass, and gradients accumulated over as many passes as make up its own batch."""
        return replace(self, batch=batch, accumulate=max(1, self.batch * self.accumulate // batch))

    def rate_at(self, step: int) -> float:
        """The learning rate of step 0, 1, ..."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        cosine = self.final_rate + (self.rate - self.final_rate) * (1 + math.cos(math.pi * min(1.0, step / self.steps))) / 2
        return rise * cosine * 0.5 ** sum(step >= milestone for milestone in self.milestones)
