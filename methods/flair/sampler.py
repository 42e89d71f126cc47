"""FLAIR: conditional diffusion with analytic data consistency (Zou et al., WACV 2025, Algorithm 1), over any prior.

Where the paper misprints, the released code is followed: line 6 with the sign and the root of eq. 3, line 10 with t - 1 under the root.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from ...diffusion.rng import seeded_noise
from ...diffusion.schedule import add_noise
from ...diffusion.solvers import Solver, make_solver, spaced
from ...faces.types import CROP, FaceTrack
from ...models.device import CheckInterrupt, no_check
from ...physics.base import Degradation
from ...physics.estimation import contradiction
from ...physics.identity import Identity
from ...priors.base import Prior
from ...priors.flair_video import face_mask
from ..base import Capability, Restorer, Session, WarmUp, joined, refuse_masks
from ..estimating import ESTIMATION_FRAMES, EstimatingSession
from .averaging import AveragedSession
from .enhancement import Enhancement, Mask
from .observation import TrackObservation, observation_model
from .options import FlairOptions, enhancement_weights, gammas, idle_consistency
from .windows import WindowStream, blend_overlap


@dataclass(frozen=True)
class FlairStep:
    """x_{t-1} and the clean estimate it was made from, both (N, 3, H, W) in [-1, 1] range."""

    x_prev: Tensor
    x0: Tensor


@dataclass(frozen=True)
class Progress:
    """The progress after a sampling step.

    Attributes:
        step, steps: the number of the step in its window, from 1, and how many steps there are.
        frames: frames that no earlier window contained; for every step they add up to all frames of the clip.
        preview: the clean estimate of the window's last frame, (3, 512, 512) in [0, 1] on the sampler's device.
    """

    step: int
    steps: int
    frames: int
    preview: Tensor


OnStep = Callable[[Progress], None]
ROUNDING = (2 / 255) ** 2 / 12
"""Variance of rounding to 8 bits, in the range [-1, 1]: the least noise of footage. An inverted blur without damping multiplies it by thousands."""
LEAST_ESTIMATE_VARIANCE = 0.02**2
"""Least variance assumed for the error of an estimate when it is weighed against that rounding; 0.02**2 to 0.1**2 were tried."""
CLEANED = 0.1 / 255
"""Standard deviation assumed for the pre-cleaned crops where the damage is unknown; it is small, so that the prior cannot contradict them."""
WARM_UP_WINDOWS = 2
"""Windows after which a session that began in the middle of a clip agrees with the whole clip, at a PSNR of at least 50 dB."""
START = 0
"""Key of the noise that sampling begins with. It does not depend on the number of steps, and is free: the last step, number 0, draws no noise."""


def data_consistency(x0: Tensor, y: Tensor, operator: Degradation, *, gamma: float = 1.0, damping: float = 0.0) -> Tensor:
    """x0 - gamma A^T (A A^T + damping I)^-1 (A x0 - y), clamped to [-1, 1]: eq. 9 and 10; with `damping` 0 the last factors are A+.

    With damping = sigma_y^2 / r^2 and gamma 1 this is the posterior mean of x ~ N(x0, r^2 I) given y (PiGDM, Song et al. 2023, eq. 7;
    DiffPIR, Zhu et al. 2023, eq. 13). A composition with JPEG runs through the same line, A x read as D(E(A x)) and A+ as that of its
    linear part: A+ D(E(A x0)) - A+ y.

    Args:
        x0: (N, 3, H, W) in [-1, 1]; the operator sees it in [0, 1], the range JPEG and masks are defined in.
        y: (N, 3, h, w) in [0, 1].
    """
    if x0.device.type == "cpu" and len(x0) > 1 and not operator.mixes_frames:  # frame by frame all passes stay in the cache
        frames = zip(x0.split(1), y.split(1), strict=True)
        return torch.cat([data_consistency(x, seen, operator, gamma=gamma, damping=damping) for x, seen in frames])
    error = operator.forward((x0 + 1) / 2) - y
    return (x0 - 2 * gamma * operator.pinv(error, size=(x0.shape[-2], x0.shape[-1]), damping=damping)).clamp(-1, 1)


def flair_step(
    x_t: Tensor,
    x0: Tensor,
    y: Tensor | None,
    operator: Degradation | None,
    level: tuple[float, float],
    noise: Tensor,
    *,
    gamma: float,
    rho: float,
    damping: float = 0.0,
    enhance: Callable[[Tensor], Tensor] | None = None,
    solver: Solver | None = None,
) -> FlairStep:
    """One reverse step of FLAIR (Algorithm 1) from the prior's estimate x0 (eq. 3).

    Args:
        x_t, x0, noise: (N, 3, H, W) in the network's range.
        y: the observation, (N, 3, h, w) in [0, 1]; not used with `operator` None.
        level: alpha_bar_t and alpha_bar_{t-1}, the latter 1 on the last step.
        gamma, rho: gamma_t in [0, 1] and rho_t in [0, 1]; at gamma 0 the observation is not used.
        damping: see data_consistency.
        enhance: maps the data-consistent estimate to the enhanced one, blended by w_t.
        solver: takes the step from there; None is FLAIR's lines 9 and 10, eps that agrees with the new x0 and a share rho of new noise.
    """
    x0 = x0.clamp(-1, 1)
    if operator is not None and y is not None and gamma > 0:
        x0 = data_consistency(x0, y, operator, gamma=gamma, damping=damping)  # line 7
    if enhance is not None:
        x0 = enhance(x0)  # line 8, eq. 13: faces only, blended by w_t
    return FlairStep((solver or make_solver("ddpm", rho)).step(x_t, x0, *level, noise=noise), x0)


class FlairRestorer(Restorer):
    """FLAIR over any prior, for footage whose degradation is known or guessed.

    Args:
        prior: the diffusion prior.
        degradation: what happened to the frames. None has it estimated for each clip; where no estimate can be trusted, data consistency holds
            the result to the pre-cleaned crops, or is off without a pre-cleaner.
        options: Algorithm 1's parameters.
        enhancer: any restorer of 512 crops, used for line 8; with a `precleaner` it treats its input as cleaned.
        mask: where the enhancer acts, if options.where is "face"; None is face_mask(). A parser runs as often as options.mask_every says.
        precleaner: cleans the crops, without looking ahead, for the condition that sampling starts from; None uses the crops themselves.
        device: where the sampling runs; crops come in and go out on the CPU.
        on_step: called after every step of every window.
    """

    name = "flair"
    supports: frozenset[Capability] = frozenset({"steps"})

    def __init__(
        self,
        prior: Prior,
        degradation: Degradation | None = None,
        options: FlairOptions | None = None,
        enhancer: Restorer | None = None,
        *,
        mask: Mask | None = None,
        precleaner: Restorer | None = None,
        device: torch.device | str = "cpu",
        on_step: OnStep | None = None,
    ) -> None:
        self.prior = prior
        self.degradation = degradation
        self.options = options or FlairOptions()
        self.enhancer = enhancer if enhancer is None or precleaner is None else enhancer.after_cleaning()
        self.mask = torch.ones(CROP, CROP) if self.options.where == "crop" else face_mask() if mask is None else mask
        self.precleaner = precleaner
        self.device = torch.device(device)
        self.on_step = on_step
        self.schedule = spaced(prior.schedule, self.options.steps, self.options.start, self.options.resolved_spacing)
        self.reach = 0 if degradation is None else degradation.reach()
        self.estimates = degradation is None and self.options.data_consistency
        self.look_ahead = max(self.window, ESTIMATION_FRAMES if self.estimates else 1) - 1

    @property
    def window(self) -> int:
        """Frames sampled together: more under blur along time, where the observation at a window's ends depends on frames beyond it."""
        return self.options.window + 2 * self.reach

    @property
    def overlap(self) -> int:
        """Frames that windows share where frames interact."""
        return max(self.options.overlap, 2 * self.reach)

    @property
    def units(self) -> int:  # type: ignore[override]
        return self.options.steps * self.options.samples

    def reporting(self, on_step: OnStep) -> FlairRestorer:
        """The same restorer with another `on_step`."""
        other = copy(self)
        other.on_step = on_step
        return other

    def with_degradation(self, degradation: Degradation | None) -> FlairRestorer:
        """The same restorer for footage of that degradation; None is for footage whose degradation could not be estimated."""
        other = copy(self)
        other.degradation, other.estimates = degradation, False
        other.reach = 0 if degradation is None else degradation.reach()
        other.look_ahead = other.window - 1
        return other

    def open(self, track: FaceTrack | None = None, *, seed: int = 0, check_interrupt: CheckInterrupt = no_check) -> Session:
        """Starts one person's clip; see Restorer.open. Without a track, crops may also be the raw observation, such as 128 x 128 for x4."""
        if self.estimates:
            return EstimatingSession(
                self.name, lambda found: self.with_degradation(found.operator if found.trusted else None), track, seed, check_interrupt
            )
        return self.resume(track, 0, seed=seed, check_interrupt=check_interrupt)

    def resume(self, track: FaceTrack | None, first: int, *, seed: int = 0, check_interrupt: CheckInterrupt = no_check) -> Session:
        samples = [FlairSession(self, track, seed, check_interrupt, sample, first) for sample in range(self.options.samples)]
        return samples[0] if len(samples) == 1 else AveragedSession(samples)

    @property
    def frames_interact(self) -> bool:
        """Whether a frame's result depends on the other frames of its window; if not, windows need not overlap."""
        blurred = self.degradation is not None and "time" in self.degradation.axes
        return self.prior.temporal or blurred or (self.enhancer is not None and "single_frames" not in self.enhancer.supports)

    @property
    def warm_up(self) -> WarmUp:  # type: ignore[override]
        """Windows begin where the whole track's do, after `WARM_UP_WINDOWS` others if frames interact. An estimate needs the first frames."""
        if self.estimates:
            return Restorer.warm_up
        stride = self.window - (self.overlap if self.frames_interact else 0)
        own = WarmUp(before=WARM_UP_WINDOWS * stride if self.frames_interact else 0, every=stride, exact=not self.frames_interact)
        return own if self.precleaner is None else own.over(self.precleaner.warm_up)


class FlairSession(Session):
    """One person's clip under FLAIR, or one sample of it, window by window."""

    def __init__(
        self, restorer: FlairRestorer, track: FaceTrack | None, seed: int, check_interrupt: CheckInterrupt, sample: int = 0, first: int = 0
    ) -> None:
        self.restorer = restorer
        self.track = track
        self.check_interrupt = check_interrupt
        self.observe: TrackObservation = observation_model(restorer.degradation, track)
        self.sample = sample
        place = (0, 0) if track is None else (track.person, track.start)
        self._key = (seed, *place) if sample == 0 else (seed, *place, -sample)
        self._previous_estimates: dict[int, Tensor] = {}  # of the window before: step -> estimates of its last frames, (overlap, 3, 512, 512) float16
        self._precleaner = None if restorer.precleaner is None else restorer.precleaner.open(track, seed=seed, check_interrupt=check_interrupt)
        self._cleaned: deque[Tensor] = deque()  # of the frames that wait
        self._cleaned_from = first
        self._looked = False
        idle = idle_consistency(restorer.options, restorer.schedule, self.observe.noise * 255) if restorer.degradation is not None else ""
        self.note = f"warning: {idle}" if idle else ""
        overlap = restorer.overlap if restorer.frames_interact else 0
        self._stream = WindowStream(restorer.window, overlap, self._sample, _first=first)

    def push(self, crops: Tensor, masks: Tensor | None = None) -> Tensor:
        refuse_masks(self.restorer.name, masks)
        self.observe.check(crops)
        if not self._looked and self.restorer.degradation is not None and tuple(crops.shape[-2:]) == (CROP, CROP):
            wrong = contradiction(crops[:ESTIMATION_FRAMES], self.observe.operator)
            if wrong:
                self.note = f"warning: {wrong}; check the description, or leave it out to have the damage estimated"
        self._looked = True
        if self._precleaner is not None:
            self._cleaned.extend(self._precleaner.push(crops))
        return joined(self._stream.push(crops))

    def close(self) -> Tensor:
        return joined(self._stream.close())

    @torch.inference_mode()
    def _sample(self, crops: Tensor, first: int, shared: Tensor | None) -> Tensor:
        """One window: crops (n, 3, H, W) from frame `first` of the clip; `shared` are final results in [0, 1]."""
        restorer, options, schedule = self.restorer, self.restorer.options, self.restorer.schedule
        y, condition = (part.to(restorer.device) for part in self.observe(crops, restorer.prior.upsampling))
        if self._precleaner is not None:
            condition = self._cleaned_condition(first, len(crops)).to(restorer.device)
        operator = self.observe.operator.at_frames(first, len(crops)) if options.data_consistency else None
        noise = self.observe.noise
        if restorer.degradation is None:  # the damage is unknown: pre-cleaned crops, if there are any, serve as the observation
            y, noise = (condition + 1) / 2, CLEANED
            operator = Identity() if operator is not None and self._precleaner is not None else None
        grey = noise * 255 if options.noise_level is None else options.noise_level
        gamma, weights = gammas(options, schedule, grey), enhancement_weights(options, len(schedule))
        shared_results = None if shared is None else shared.to(restorer.device) * 2 - 1
        enhancement = self._enhancement(first, shared_results)
        solver = make_solver(options.solver, options.rho)
        last = len(schedule) - 1
        x_t = add_noise(condition, self._noise(condition, first, START), schedule.alpha_bar(last))
        for t in range(last, -1, -1):
            x0 = self._estimate(x_t, schedule.timesteps[t], condition)

            tie = shared_results if shared_results is None or t == 0 else self._previous_estimates.get(t, shared_results)

            def refine(estimate: Tensor, weight: float = weights[t], tie: Tensor | None = tie) -> Tensor:
                better = estimate if enhancement is None else enhancement(estimate, weight)
                return blend_overlap(better, tie, options.overlap_mode)

            step = flair_step(
                x_t,
                x0,
                y,
                operator,
                (schedule.alpha_bar(t), schedule.alpha_bar(t - 1)),
                self._noise(condition, first, t) if t and solver.draws else x_t,
                gamma=gamma[t],
                rho=options.rho,
                damping=self._damping(grey, schedule.sigma(t)),
                enhance=refine,
                solver=solver,
            )
            x_t = step.x_prev
            if options.overlap_mode == "blend" and self._stream.overlap and t:
                # never the result itself, so half precision will do: 0.06 grey levels at most
                self._previous_estimates[t] = step.x0[-self._stream.overlap :].half().cpu()
            if options.self_condition:
                condition = step.x0
            self.check_interrupt()
            if restorer.on_step is not None:
                fresh = len(crops) - (0 if shared_results is None else len(shared_results))
                done = (last + 1) * self.sample + last + 1 - t
                restorer.on_step(Progress(done, restorer.units, fresh, ((step.x0[-1] + 1) / 2).clamp(0, 1)))
        return ((x_t.clamp(-1, 1) + 1) / 2).cpu()

    def _cleaned_condition(self, first: int, count: int) -> Tensor:
        """The pre-cleaned condition (count, 3, 512, 512) in [-1, 1] of frames from `first` on; earlier frames are dropped."""
        for _ in range(first - self._cleaned_from):
            self._cleaned.popleft()
        self._cleaned_from = first
        return torch.stack(list(self._cleaned)[:count]) * 2 - 1

    def _estimate(self, x_t: Tensor, timestep: int, condition: Tensor) -> Tensor:
        """E[x_0 | x_t, c] with guidance (eq. 14): lambda conditional + (1 - lambda) unconditional; in batches unless the prior is temporal."""
        prior, strength = self.restorer.prior, self.restorer.options.guidance
        guided = strength not in (0, 1) and prior.conditional
        size = len(x_t) if prior.temporal else prior.batch
        pieces = []
        for start in range(0, len(x_t), size):
            # a window in one piece remains the same tensor object at every step: priors cache what they compute of the condition by identity
            x, c = (x_t, condition) if size >= len(x_t) else (x_t[start : start + size], condition[start : start + size])
            x0 = prior.predict_x0(x, timestep, c if strength else None)
            if guided:
                x0 = prior.predict_x0(x, timestep, None).lerp(x0, strength)
            pieces.append(x0)
            self.check_interrupt()
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _enhancement(self, first: int, shared_results: Tensor | None) -> Enhancement | None:
        """Line 8 for a window, or None without an enhancer."""
        restorer, options = self.restorer, self.restorer.options
        if restorer.enhancer is None:
            return None
        known = 0 if shared_results is None or options.overlap_mode == "blend" else len(shared_results)
        return Enhancement(
            restorer.enhancer, restorer.mask, options.mask_every == "step", known, self.track, self._key[0] + first, self.check_interrupt
        )

    def _damping(self, grey: float, sigma: float) -> float:
        """sigma_y^2 / r_t^2 with r_t^2 = sigma_t^2 / (1 + sigma_t^2) (PiGDM), times `trust`; in the [-1, 1] range. At least that of rounding."""
        options = self.restorer.options
        if options.consistency == "pinv":
            return 0.0
        return max(
            options.trust * (2 * grey / 255) ** 2 * (1 + sigma**2) / sigma**2, ROUNDING / LEAST_ESTIMATE_VARIANCE / self.observe.operator.factor**2
        )

    def _noise(self, like: Tensor, first: int, step: int) -> Tensor:
        """Noise of one step: for each frame by its number in the clip, or the same for all frames."""
        shape, scale = like.shape[1:], self.restorer.options.temperature
        if not scale:
            return torch.zeros_like(like)
        if self.restorer.options.shared_noise:
            return seeded_noise(shape, *self._key, step).to(like).mul_(scale).expand_as(like)
        return torch.stack([seeded_noise(shape, *self._key, step, first + i) for i in range(len(like))]).to(like).mul_(scale)
