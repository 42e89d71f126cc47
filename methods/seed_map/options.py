"""The parameters of seed-space MAP restoration: what the paper states, and what it leaves open."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from typing_extensions import Self

from ...physics.base import Degradation

RESIDUAL_INIT_FRAMEWISE, RESIDUAL_INIT_TEMPORAL = 0.1, 3.0
"""Where residuals begin when none is asked for: for operators that leave frames apart, and for those that mix them; see `residual_init`."""

OPTIONAL = {"residual_init": (1e-4, 10.0, "by the operator"), "warp_start": (0.0, 1.0, "when the flow settles")}
"""Least, most, and what happens without a value, of the parameters that may be None."""


def check_optional(name: str, value: float | None, unset: str = "None") -> None:
    """Raises ValueError for a value of one of `OPTIONAL` that is out of its range; `unset` is what the caller writes where it gives none."""
    low, high, otherwise = OPTIONAL[name]
    if value is not None:
        _within(name, value, low, high, f" (or {unset}: {otherwise})")


def _within(name: str, value: float, low: float, high: float, other: str = "") -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must lie between {low:g} and {high:g}{other}, got {value:g}")


@dataclass(frozen=True)
class SeedMapOptions:
    """Parameters of Algorithm 1 (Wang et al., AAAI 2026). "Paper" marks stated values, "ours" those the paper leaves open.

    The ranges behind "tried" are those of benchmarks/seed_map.py.

    Attributes:
        iterations: E, epochs. Ours: 500; tried 200 to 1000.
        steps: T, reverse DDIM steps. Paper: 4, and 2 to 10 in Table 1.
        residual_rate: learning rate of the residuals. Paper: 0.001 (Table 8).
        radius: C of ||A_n B_n|| <= C sqrt(dim r_n), so the largest RMS of a residual. Paper: 1.0 (Table 8).
        seed_rate: learning rate of the shared seed. Ours: 0.01 with Adam, as DMPlug, the paper's ancestor; tried 0.003 to 0.03.
        rate_floor: both learning rates fall along a half cosine to this share of their start. Ours: 0.05, so that the last iterations
            settle; 1 keeps them constant, as the paper seems to; tried 0.01 to 1.
        rank: k, the rank of A_n B_n in each channel, or 0: the generator's own. Paper: much less than 512. Ours: 32 for Stable Diffusion, 16.8 MB
            a frame at 512 px; tried 16 and 32. The channels give 128 k rows to draw 3 x 512 with: at k = 16 these are so few more that
            Adam crawls (temporal deblurring of the benchmark explained to 1.4 grey levels after 500 iterations, at k = 32 to 0.9 and 4 dB
            nearer the truth). A pixel prior has 3 channels in their place and takes all there is: at 128 px, k = 32 stayed below the blurred
            clip (28.0 dB against 28.6) where 128 came to 36.3; at 512 px that is 6.3 MB a frame.
        residual_init: standard deviation of A_n before the first step; B_n begins at 0, so that all frames begin equal. More moves the frames
            faster at the same learning rate, which acts as the rate of Table 8 does: where it is too high, residuals explain the
            observation before the seed has, and what the observation does not show (the finer scales of a small frame, missing
            pixels) stays that of an arbitrary face. Ours, where None: 0.1, and 3 for operators that mix frames, which hide little but show it
            faintly. Tried 0.03 to 17.
        loss: l, the mean of squares ("mse") or of absolute values ("l1"), in the [-1, 1] range. Ours: mse.
        warp_weight: factor on L_warp, itself the mean over pairs of frames; 0 leaves the warping out. Ours: 0.3; tried 0.1 to 3.
        warp_start: E_T as a share of the iterations, or None: when the flow settles, at the latest at `LATEST_START`. Paper: when it settles.
        warp_every: P, iterations between estimates of the flow. Ours: 20; tried 10 to 25.
        flow_decay: beta of eq. 10, in [0, 1). Ours: 0.9; tried 0.5 to 0.95.
        guided: whether a pixel prior that was trained with damaged faces beside the noisy ones is shown the input (guide.py). Ours: yes; the
            paper's latent priors have a prompt in its place.
        start: where a guided R begins, as a share of the noise schedule: at the input, noised that far. The steps are spread over that share from
            its clean end (DDIM's leading spacing), so the first lies near start (1 - 1 / steps): 0.3 of 1000 levels begins at level 151, 226 or
            271 with 2, 4 or 10 steps. Ours: 0.3; tried 0.05 to 1. Small networks draw badly from far away: at 0.1, 0.3, 0.5 and 0.75 the
            embedded prior's first drawing of a face upscaled by 4 is about 27, 25.5, 24 and 20 dB near the truth. 1 begins at noise alone, as
            the paper's latent priors do.
        noise_prior: one seed for all frames plus residuals (eq. 12); without it a seed of its own for each frame (eq. 5), the paper's "base".

    Raises:
        ValueError: naming the parameter, its range and what was given.
    """

    iterations: int = 500
    steps: int = 4
    residual_rate: float = 1e-3
    radius: float = 1.0
    seed_rate: float = 1e-2
    rate_floor: float = 0.05
    rank: int = 0
    residual_init: float | None = None
    loss: Literal["mse", "l1"] = "mse"
    warp_weight: float = 0.3
    warp_start: float | None = None
    warp_every: int = 20
    flow_decay: float = 0.9
    noise_prior: bool = True
    guided: bool = True
    start: float = 0.3

    def __post_init__(self) -> None:
        _within("iterations", self.iterations, 1, 100_000)
        _within("steps", self.steps, 2, 10)
        _within("residual_rate", self.residual_rate, 0, 1)
        _within("radius", self.radius, 1e-3, 1e3)
        _within("seed_rate", self.seed_rate, 0, 1)
        _within("rate_floor", self.rate_floor, 0, 1)
        _within("rank", self.rank, 0, 512, " (0: by the generator)")
        if self.loss not in ("mse", "l1"):
            raise ValueError(f"loss must be mse or l1, got {self.loss!r}")
        _within("warp_weight", self.warp_weight, 0, 1e3)
        _within("warp_every", self.warp_every, 1, 10_000)
        _within("flow_decay", self.flow_decay, 0, 0.999)
        _within("start", self.start, 0.01, 1)
        for name in OPTIONAL:
            check_optional(name, getattr(self, name))

    def settled(self, operator: Degradation) -> Self:
        """The same, with a value for what depends on the operator."""
        return (
            self
            if self.residual_init is not None
            else replace(self, residual_init=RESIDUAL_INIT_TEMPORAL if operator.reach() else RESIDUAL_INIT_FRAMEWISE)
        )
