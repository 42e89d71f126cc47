"""Time and memory of an optimisation, estimated from one forward and backward pass."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from ...diffusion.rng import seeded_noise
from ...models.device import CheckInterrupt, no_check
from ...motion.flow import FlowSource
from .generator import SeedGenerator
from .low_rank import LowRank
from .options import RESIDUAL_INIT_FRAMEWISE, SeedMapOptions

SLOW = 5.0
"""A first pass faster than this many seconds is timed again, as it may include one-off work."""


@dataclass(frozen=True)
class Cost:
    """Seconds for all iterations, and bytes at the peak; `measured` says whether a device counted the networks' share."""

    seconds: float
    bytes: int
    measured: bool

    def __str__(self) -> str:
        size = f"{self.bytes / 2**30:.1f} GB" if self.bytes >= 2**30 else f"{self.bytes / 2**20:.0f} MB"
        duration = f"{self.seconds / 60:.1f} minutes" if self.seconds >= 90 else f"{self.seconds:.0f} seconds"
        return f"about {duration} and {size} {'of VRAM' if self.measured else 'of memory beside the networks'}"


FRAME_VALUES, FLOW_VALUES = 26, 18
"""float32 values per pixel and frame at the peak, measured: frames, their gradient, the observation and the data term, for operators that mix all
frames (others need two thirds); and flows in both directions, their average, mask and term."""


def clip_bytes(generator: SeedGenerator, frames: int, options: SeedMapOptions) -> int:
    """Bytes that grow with the clip: residuals, or seeds where each frame has one, with gradients and Adam's two moments; frames; flows."""
    channels, height, width = generator.feature_shape
    free = channels * generator.rank_for(options.rank) * (height + width) if options.noise_prior else math.prod(generator.seed_shape)
    pixels = generator.size[0] * generator.size[1]
    return 4 * frames * (4 * free + pixels * (FRAME_VALUES + (FLOW_VALUES if options.warp_weight > 0 else 0)))


def estimate(
    generator: SeedGenerator, frames: int, options: SeedMapOptions, flow: FlowSource | None = None, check_interrupt: CheckInterrupt = no_check
) -> Cost:
    """Times R, D2 and one frame's tail, forward and backward, and the flow of one pair, and extrapolates to a clip of `frames`."""
    with torch.inference_mode(False), torch.enable_grad():
        device = generator.device
        cuda = device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(device)
        network, tail = _passes(generator, options, check_interrupt)
        if network < SLOW:
            network, tail = _passes(generator, options, check_interrupt)
        iteration = network + frames * tail if options.noise_prior else frames * (1.5 * network + tail)
        if flow is not None and options.warp_weight > 0 and frames > 1:
            _pair(generator, flow)  # the first call of a flow source may compile or load something
            iteration += 2 * (frames - 1) * _pair(generator, flow) / options.warp_every
        peak = torch.cuda.max_memory_allocated(device) if cuda else 0
        return Cost(options.iterations * iteration, peak + clip_bytes(generator, frames, options), cuda)


def _passes(generator: SeedGenerator, options: SeedMapOptions, check_interrupt: CheckInterrupt) -> tuple[float, float]:
    """Seconds of D2 o R, forward and backward, and of one frame's tail, forward twice and backward once, as in an iteration."""
    check_interrupt()
    z = seeded_noise(generator.seed_shape, 0).to(generator.device)
    begun = _now(generator.device)
    h, vjp = generator.features(z)
    vjp(torch.ones_like(h))
    middle = _now(generator.device)
    check_interrupt()
    residual = LowRank.start(generator.feature_shape, generator.rank_for(options.rank), RESIDUAL_INIT_FRAMEWISE, generator.device, 0)
    with torch.no_grad():
        generator.tail(h + residual.dense())
    frame = generator.tail(h.requires_grad_() + residual.dense())
    torch.autograd.grad(frame.sum(), (h, residual.a, residual.b))
    return middle - begun, _now(generator.device) - middle


def _pair(generator: SeedGenerator, flow: FlowSource) -> float:
    frames = seeded_noise((1, 3, *generator.size), 0).clamp(-1, 1).to(generator.device)
    begun = _now(generator.device)
    with torch.no_grad():
        flow.flow(flow.features(frames), flow.features(frames.roll(3, -1)))
    return _now(generator.device) - begun


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
