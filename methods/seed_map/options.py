"""The parameters of seed-space MAP restoration: what the paper states, and what it leaves open."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from typing_extensions import Self

from ...options import Options, parameter
from ...physics.base import Degradation

RESIDUAL_INIT_FRAMEWISE, RESIDUAL_INIT_TEMPORAL = 0.1, 3.0
"""Where residuals begin when none is asked for: for operators that leave frames apart, and for those that mix them; see `residual_init`."""


@dataclass(frozen=True)
class SeedMapOptions(Options):
    """Parameters of Algorithm 1 (Wang et al., AAAI 2026). "Paper" marks stated values, "ours" those the paper leaves open.

    The ranges behind "tried" are those of benchmarks/inverse_problems/seed_map.py.

    Attributes:
        iterations: E, epochs. Ours: 500; tried 200 to 1000.
        steps: T, reverse DDIM steps. Paper: 4, and 2 to 10 in Table 1.
        residual_rate: learning rate of the residuals. Paper: 0.001 (Table 8).
        radius: C of ||A_n B_n|| <= C sqrt(dim r_n), so the largest RMS of a residual. Paper: 1.0 (Table 8).
        seed_rate: learning rate of the shared seed. Ours: 0.01 with Adam, as DMPlug, the paper's ancestor; tried 0.003 to 0.03.
        rate_floor: both learning rates fall along a half cosine to this share of their start. Ours: 0.05, so that the last iterations
            settle; 1 keeps them constant, as the paper seems to; tried 0.01 to 1.
        rank: k, the rank of A_n B_n in each channel, or 0: the generator's own. Paper: much less than 512. Ours: 32 for Stable Diffusion, 16.8 MB
            a frame at 512 px (with 16 Adam crawls: the benchmark's temporal deblurring loses 4 dB); all there is for a pixel
            prior, which has 3 channels only: 6.3 MB a frame at 512 px (at 128 px, k = 32 came to 28.0 dB where 128 came to 36.3).
        residual_init: standard deviation of A_n before the first step; B_n begins at 0, so all frames begin equal. It acts as the rate of Table 8
            does: where it is too high, residuals explain the observation before the seed has, and what that does not show stays that of an
            arbitrary face. Ours, where None: 0.1, and 3 for operators that mix frames, which hide little but show it faintly. Tried 0.03 to 17.
        loss: l, the mean of squares ("mse") or of absolute values ("l1"), in the [-1, 1] range. Ours: mse.
        warp_weight: factor on L_warp, itself the mean over pairs of frames; 0 leaves the warping out. Ours: 0.3; tried 0.1 to 3.
        warp_start: E_T as a share of the iterations, or None: when the flow settles, at the latest at `LATEST_START`. Paper: when it settles.
        warp_every: P, iterations between estimates of the flow. Ours: 20; tried 10 to 25.
        flow_decay: beta of eq. 10. Ours: 0.9; tried 0.5 to 0.95.
        guided: whether a pixel prior that was trained with damaged faces beside the noisy ones is shown the input (conditioning.py). Ours: yes; the
            paper's latent priors have a prompt in its place.
        start: where a guided R begins, as a share of the noise schedule: at the input, noised to about start (1 - 1 / steps) by DDIM's leading
            spacing. Ours: 0.3; tried 0.05 to 1. Small networks draw badly from far away: at 0.1, 0.3, 0.5 and 0.75 the embedded prior's first
            drawing of a face upscaled by 4 is about 27, 25.5, 24 and 20 dB near the truth. 1 begins at noise alone, as the paper's priors do.
        noise_prior: one seed for all frames plus residuals (eq. 12); without it a seed of its own for each frame (eq. 5), the paper's "base".
    """

    iterations: int = parameter(500, 1, 100_000, advice="Steps of the optimisation; time grows in proportion.")
    steps: int = parameter(4, 2, 10, advice="Diffusion steps from the seed to the picture; the paper takes 4.")
    residual_rate: float = parameter(1e-3, 0, 1, advice="Learning rate of the frames' residuals; the paper takes 0.001.", step=0.0001, advanced=True)
    radius: float = parameter(1.0, 1e-3, 1e3, advice="How far a frame may leave the shared picture; the paper takes 1.", step=0.001)
    seed_rate: float = parameter(1e-2, 0, 1, advice="Learning rate of the shared seed.", step=0.0001, advanced=True)
    rate_floor: float = parameter(
        0.05, 0, 1, advice="Both learning rates fall to this share by the end; 1 keeps them constant.", step=0.01, advanced=True
    )
    rank: int = parameter(
        0,
        0,
        512,
        advice="Freedom of each frame beyond the shared seed; 32 takes 67 MB a frame with Stable Diffusion at 512, 16 half of that. 0 chooses: 32, "
        "or all there is for a prior on pixels.",
        note=" (0: by the generator)",
    )
    residual_init: float | None = parameter(
        None,
        1e-4,
        10,
        advice="How fast frames leave the shared picture: more follows the input sooner and flickers more where it shows nothing. "
        "-1 chooses by the degradation: 0.1, or 3 where it mixes frames.",
        unset=-1.0,
        note=" (or {unset}: by the operator)",
        step=0.0001,
        advanced=True,
    )
    loss: Literal["mse", "l1"] = parameter("mse", advice="How differences count: squared, or as they are.", advanced=True)
    warp_weight: float = parameter(0.3, 0, 1e3, advice="How strongly neighbouring frames must agree along their motion; 0 leaves it out.", step=0.01)
    warp_start: float | None = parameter(
        None,
        0,
        1,
        advice="When that begins, as a share of the iterations; -1 waits until the motion is steady.",
        unset=-1.0,
        note=" (or {unset}: when the flow settles)",
        step=0.01,
    )
    warp_every: int = parameter(20, 1, 10_000, advice="Iterations between two estimates of the motion.", advanced=True)
    flow_decay: float = parameter(0.9, 0, 0.999, advice="How much of the earlier motion is kept at each estimate.", step=0.01, advanced=True)
    noise_prior: bool = parameter(
        True, advice="One seed for all frames. Off gives each frame its own, which flickers and takes N times as long.", advanced=True
    )
    guided: bool = parameter(
        True,
        advice="Shows the input to a prior that was trained to look at damaged faces (the embedded one, FLAIR's). Off, it draws out of nothing.",
        advanced=True,
    )
    start: float = parameter(
        0.3,
        0.01,
        1,
        advice="With guided: how much noise the drawing begins with. Less stays near the input, 1 begins at noise alone.",
        step=0.01,
        advanced=True,
    )

    def resolved(self, operator: Degradation) -> Self:
        """The same, with a value for what depends on the operator."""
        if self.residual_init is not None:
            return self
        return replace(self, residual_init=RESIDUAL_INIT_TEMPORAL if operator.reach() else RESIDUAL_INIT_FRAMEWISE)
