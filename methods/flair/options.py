"""FLAIR's parameters (Zou et al., WACV 2025), what their values mean, and the published settings.

Where the paper and the official code interpret a number differently, both interpretations are here. The presets named after the paper's tasks follow
the paper, those that end in -demo follow the code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from ...diffusion.schedule import Schedule
from ...diffusion.solvers import SolverName, Spacing
from ...options import Options, parameter


@dataclass(frozen=True)
class FlairOptions(Options):
    """Parameters of Algorithm 1; the defaults suit the weight-free prior.

    Attributes:
        steps: K, the number of reverse steps.
        temperature: scale of all noise that is drawn; 1 samples, as published; towards 0 the steps approach the most likely frame
            instead (at 0 with rho 1 they are plug-and-play half-quadratic splitting, DPIR, Zhang et al. 2021).
        self_condition: whether, after the first step, the last estimate replaces the enlarged observation as the prior's condition
            (Chen et al. 2023); for priors that follow their condition closely, such as the one without weights. Trained FLAIR networks need it off.
        zeta_reading: gamma_t = 1 - r_t with r_t = zeta s^2 alpha_bar_t / (1 - alpha_bar_t) in both. "code": s is in grey levels (demos: zeta 1), and
            gamma is 0.009 where r_t >= 1 and 1 - 1e-6 where r_t <= 0.1. "paper": s is in units of [0, 1] (Table 11: zeta 1000, sigma 0.05), and
            gamma is clipped to [0, 1]. The paper prints alpha_bar_{t-1} in the denominator: that ratio is about 1 at every step, so its own zeta
            and sigma would keep gamma at 0.
        noise_level: s, standard deviation of the observation's noise in grey levels of 0..255; None takes the degradation's own. Damped
            consistency allows for the rounding of 8 bits in any case.
        w_reading: "enhancement" (the paper's eq. 13): w is the weight of the enhanced face; "data" (the code): w weighs the data-consistent
            frame at t = tau, the enhanced one gets 1 - w.
        data_consistency: whether the observation corrects each estimate (line 7; eq. 9 and 10).
        consistency: "pinv": along A+ as published; "damped": along A^T (A A^T + damping)^-1, for noisy observations.
        window: frames sampled together; under blur along time, more by twice the number of frames that the blur reaches to either side.
        overlap_mode: "blend": at every step, shared frames fade from the old window's estimate at that step to the new one's, so that a still
            scene has no seam; this keeps 1.5 MiB per step and shared frame. "impose" (the code): they keep the old window's result throughout.
        guidance: lambda of eq. 14; 1 is the conditional estimate alone, as the paper samples video.
        solver: how a step is taken from the corrected estimate: "ddpm": FLAIR's own, a share rho of the noise drawn anew; "ddim": its
            eta is rho; "dpm++2m": second order, deterministic, rho has no part. The last two are for 10 to 25 steps.
        spacing: where the steps lie: "uniform": evenly over the training schedule, as published; "log-snr": evenly in the log of the
            signal-to-noise ratio; "auto": what suits the solver, see `resolved_spacing`.
        samples: how many samples of the clip are averaged, each from different noise (FLAIR-SA, Table 2); time and memory grow with it.
        mask_every: how often a face parser runs: once per "window", on the first enhanced frames, or at every "step" (the code).
    """

    steps: int = parameter(10, 2, 1000, advice="Sampling steps K; time grows in proportion.")
    start: float = parameter(
        0.15, 1e-3, 1, advice="Where sampling begins, as a share of the noise schedule; 1 is pure noise.", step=0.001, advanced=True
    )
    rho: float = parameter(1.0, 0, 1, advice="Share of the noise that each step draws anew: 0 is deterministic.", step=0.001, advanced=True)
    temperature: float = parameter(
        0.1, 0, 1, advice="Strength of the noise that is drawn; 0 gives the most likely picture, 1 a sample.", step=0.001, advanced=True
    )
    self_condition: bool = parameter(True, advice="Each step takes the last estimate as its condition; for the prior without weights.", advanced=True)
    zeta: float = parameter(
        -1.0,
        0,
        1e6,
        advice="How much noise in the input weakens data consistency; -1 never.",
        also=-1,
        note=" (or -1 for gamma = 1)",
        step=0.001,
        advanced=True,
    )
    zeta_reading: Literal["code", "paper"] = parameter(
        "code", advice="How zeta is read: code has the noise in levels of 0 to 255, paper in units of 0 to 1.", advanced=True
    )
    noise_level: float | None = parameter(
        None, 0, 255, advice="Noise of the input in levels of 0 to 255; -1 takes the degradation's own.", unset=-1.0, step=0.001, advanced=True
    )
    w: float = parameter(0.85, 0, 1, advice="Weight in the enhancement stage, read as w_reading says.", step=0.001, advanced=True)
    w_reading: Literal["data", "enhancement"] = parameter(
        "data", advice="data: w weighs the frame against the enhancer (code); enhancement: w weighs the enhancer (paper).", advanced=True
    )
    tau: int = parameter(2, 0, 1000, advice="The enhancer rests in the last tau steps.", advanced=True)
    data_consistency: bool = parameter(True, advice="Pulls every step towards frames that, damaged again, give the input.")
    consistency: Literal["damped", "pinv"] = parameter(
        "damped", advice="damped allows for noise in the input; pinv is the published, exact form.", advanced=True
    )
    trust: float = parameter(6.0, 1e-3, 1e3, advice="With damped: more follows the prior, less the input.", step=0.001, advanced=True)
    enhance: bool = parameter(True, advice="Blends in the wired enhancer inside the face; no effect without one.")
    where: Literal["face", "crop"] = parameter("face", advice="Where the enhancer acts: in the face only, or in all of the crop.", advanced=True)
    window: int = parameter(10, 1, 100, advice="Frames sampled together.", advanced=True)
    overlap: int = parameter(3, 0, 99, advice="Frames that a window shares with the one before it; less than window.", advanced=True)
    overlap_mode: Literal["blend", "impose"] = parameter(
        "blend", advice="blend slides from one window to the next; impose keeps the earlier one's frames (code).", advanced=True
    )
    guidance: float = parameter(1.0, 0, 20, advice="Classifier-free guidance; 1 is none.", step=0.001, advanced=True)
    shared_noise: bool = parameter(True, advice="All frames get the same noise, so that a still scene stays still.", advanced=True)
    solver: SolverName = parameter(
        "ddpm",
        advice="How steps are taken: ddpm as published; ddim (rho is its eta) and dpm++2m (deterministic) need only 10 to 25 steps.",
        advanced=True,
    )
    spacing: Spacing = parameter("auto", advice="Where the steps lie on the noise schedule; auto suits the solver.", advanced=True)
    mask_every: Literal["window", "step"] = parameter(
        "window",
        advice="With parsing_parsenet.pth in a model folder: how often it finds the face to enhance; the code does at every step.",
        advanced=True,
    )
    samples: int = parameter(1, 1, 100, advice="Samples that are averaged: nearer to the truth, less sharp; time grows with it.", advanced=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.overlap >= self.window:
            raise ValueError(f"overlap must lie between 0 and {self.window - 1}, got {self.overlap}; lower it, or raise window, which must be longer")

    @property
    def resolved_spacing(self) -> Spacing:
        """`spacing`, resolved: "auto" is "log-snr" for dpm++2m, whose order counts on it, and "uniform" for the others."""
        if self.spacing != "auto":
            return self.spacing
        return "log-snr" if self.solver == "dpm++2m" else "uniform"


def gammas(options: FlairOptions, schedule: Schedule, noise_level: float) -> list[float]:
    """gamma_t for every step of a respaced `schedule`; `noise_level` in grey levels of 0..255 unless the options name their own."""
    if options.zeta == -1:
        return [1.0] * len(schedule)
    grey = noise_level if options.noise_level is None else options.noise_level
    paper = options.zeta_reading == "paper"
    strength = options.zeta * (grey / 255 if paper else grey) ** 2
    fades = [strength * schedule.alpha_bar(t) / (1 - schedule.alpha_bar(t)) for t in range(len(schedule))]
    if paper:
        return [1 - min(fade, 1.0) for fade in fades]
    return [1 - (0.991 if fade >= 1 else 1e-6 if fade <= 0.1 else fade) for fade in fades]


IDLE = 0.01
"""A gamma below this corrects nothing that can be seen: 1 % of the distance to the observation."""


def idle_consistency(options: FlairOptions, schedule: Schedule, noise_level: float) -> str:
    """One sentence if data consistency is asked for but gamma is about 0 at every step, else nothing."""
    if not options.data_consistency or max(gammas(options, schedule, noise_level)) >= IDLE:
        return ""
    grey = noise_level if options.noise_level is None else options.noise_level
    return (
        f"data consistency does nothing: zeta {options.zeta:g} ({options.zeta_reading}) at noise of {grey:g} grey levels keeps gamma at about 0 "
        f"in all {len(schedule)} steps; lower zeta or noise_level, or use -1 for gamma = 1"
    )


def enhancement_weights(options: FlairOptions, steps: int) -> list[float]:
    """w_t, the weight of the enhanced face at each of `steps` steps: 0 for t < tau, then falling from 1 - w (or w) at t = tau.

    "data": (1 - w) (e^-u - e^-1) / (1 - e^-1), u from 0 at t = tau to 1 at t = K - 1; "enhancement": w e^(-(t - tau) / (K - tau)).
    """
    later = steps - options.tau
    if not options.enhance or later <= 0:
        return [0.0] * steps
    if options.w_reading == "enhancement":
        curve = [options.w * math.exp(-i / later) for i in range(later)]
    elif later == 1:
        curve = [1 - options.w]
    else:
        fall = [math.exp(-i / (later - 1)) for i in range(later)]
        curve = [(1 - options.w) * (value - fall[-1]) / (1 - fall[-1]) for value in fall]
    return [0.0] * options.tau + curve


PUBLISHED = FlairOptions(
    start=1.0, temperature=1.0, self_condition=False, consistency="pinv", zeta=-1.0, tau=5, overlap_mode="impose", shared_noise=False
)
"""What all published settings share, interpreted as the code does."""
PAPER = replace(PUBLISHED, zeta_reading="paper", w_reading="enhancement")
"""The same for the rows of Table 11, interpreted as the paper does.

w is the enhancer's weight according to eq. 13, to A.4 ("the final strength of the enhancement module") and to Fig. 6 (more w, better LPIPS). Table 2
agrees: adding CodeFormer changes x16 (w 0.7) by -0.66 dB and -0.028 LPIPS, and motion blur (w 0.1), where CodeFormer alone is 3.4 dB worse, by +0.02
dB and -0.004. The code gives the enhancer the weight 1 - w instead, 0.3 and 0.9; the presets of its demos keep that.
"""

PRESETS: dict[str, FlairOptions] = {
    "default": FlairOptions(),
    "embedded": FlairOptions(steps=2, start=0.05, spacing="trailing", trust=2.5, overlap=2, w=1.0, w_reading="enhancement", tau=1, where="crop"),
    "x4": replace(PAPER, steps=25, rho=0.85, w=0.85),
    "x8": replace(PAPER, steps=25, rho=0.85, w=0.85),
    "x16": replace(PAPER, steps=100, rho=0.85, w=0.7),
    "gaussian": replace(PAPER, steps=100, rho=0.25, w=0.75, zeta=1000),
    "motion": replace(PAPER, steps=65, rho=0.35, w=0.1, zeta=1000),
    "jpeg": replace(PAPER, steps=40, rho=0.5, w=0.5, zeta=1000),
    "x8-demo": replace(PUBLISHED, steps=100, rho=0.85, w=0.85),
    "x16-demo": replace(PUBLISHED, steps=100, rho=0.85, w=0.7),
    "gaussian-demo": replace(PUBLISHED, steps=100, rho=0.25, w=0.75, zeta=1.0, noise_level=2.55),
    "jpeg-demo": replace(PUBLISHED, steps=100, rho=0.5, w=0.5, zeta=1.0, noise_level=12.75),
}
"""Parameter sets by name: Table 11 of the paper (x4, which it leaves out, is set as x8), the demos of its code, the default for the prior without
weights, and the set for the embedded prior with the embedded codebook as its enhancer."""
