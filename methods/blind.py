"""Blind restoration at the crop's full resolution, frame after frame: what was restored before, moved by flow, helps with what comes next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..faces.types import CROP, FaceTrack
from ..models.blind import BlindRestorers, clip_inputs
from ..models.device import CheckInterrupt, no_check
from ..motion.dis import DisFlow, GreyFrames
from ..motion.warp import warp
from ..options import Options, parameter
from .base import NetworkRestorer, Session, WarmUp, check_square, refuse_masks, resized
from .window_means import around

WORKING = 400 << 20
"""Bytes of working memory for one crop: about twelve maps of 64 channels at a quarter of its side, and what is warped at all of it."""

LEAST = 1.8 / 255
"""The least correction worth making, as a deviation, of a crop as large as the face in its frame; tried 0 to 2.5 levels on clean and on damaged
clips. Of enlarged crops it is more, by the root of their scale: what is right or wrong there is as wide as the enlarging."""
SETTLED = 8
"""Frames after which what is carried no longer tells where in the clip it began: 75 dB and more between part and whole, of 39 to 54 in the first."""
CLEAN, STANDS_OUT = 1.26 / 255, 8
"""The deviation that a correction of a clean face has at most, of a crop as large as the face in its frame and growing with the enlarging, and how
fast less is asked beyond it. Tried on twelve clean, eleven soft and 25 damaged windows of held-out people: with it 0.92 and 0.74 dB are gained of
1.02 and 0.79, without it 0.78 and 0.61, clean ones alike."""
NEIGHBOURHOOD = 15
"""Side of the window in which a correction's energy is averaged, in pixels of the crop,"""
AGREED, AGREEMENT = 4 / 255, 7
"""and that in which two frames agree whose difference is this deviation: noise that is left, not motion that the flow missed."""
LEFT, AROUND_LEFT = 0.5, 31
"""Where much was corrected more noise is left: so much of the correction's own deviation, in a window of this side. 0.5 gains 0.27 dB in low
light over 0, and no other damage loses more than 0.01; 0.8 and 1.2 gain 0.05 more there, and detail agrees less."""


@dataclass(frozen=True)
class BlindOptions(Options):
    """Parameters of the blind restorer."""

    detail: float = parameter(
        0.0,
        0,
        1,
        advice="0 keeps to what the footage supports; towards 1 more skin and hair are drawn that are only likely. 0.5 looks sharper.",
        step=0.05,
    )
    carry: bool = parameter(True, advice="What was restored before helps with the next frame. Off: frame by frame.")
    ahead: bool = parameter(True, advice="The next frame helps too: less noise and flicker, a tenth more time.", advanced=True)


class BlindRestorer(NetworkRestorer):
    """The package's own restorer of faces whose damage nobody described.

    Args:
        network, options, place: as NetworkRestorer.
    """

    name = "blind"
    options_type = BlindOptions
    network: BlindRestorers
    options: BlindOptions

    @property
    def look_ahead(self) -> int:  # type: ignore[override]
        return int(self.options.carry and self.options.ahead)

    @property
    def own_warm_up(self) -> WarmUp:
        return WarmUp(before=SETTLED, exact=False) if self.options.carry else WarmUp()

    def open(self, track: FaceTrack | None = None, *, seed: int = 0, check_interrupt: CheckInterrupt = no_check) -> Session:
        """See Restorer.open; nothing is random, so the seed does not matter.

        Raises:
            ValueError: for detail from weights that have no second set.
        """
        if self.options.detail and self.network.detailed is None:
            raise ValueError(f"these weights have no second set for detail, got detail {self.options.detail:g}; set it to 0")
        return BlindSession(self, check_interrupt, 1.0 if track is None else max(track.scale, 1.0))


@dataclass(frozen=True)
class Frame:
    """A crop x_t, (1, 3, 512, 512) in [0, 1], and what became of it.

    Attributes:
        grey: the crop, as the search for motion sees it.
        restored: y_t, of the crop's shape.
        share: (1, 1, 512, 512), of the correction that was made.
        tolerance: of that size, the squared difference in which another frame agrees.
    """

    crop: Tensor
    grey: GreyFrames
    restored: Tensor
    share: Tensor
    tolerance: Tensor


class BlindSession(Session):
    """One person's clip; it holds the last crop and what became of it. `enlarged`: crop pixels per pixel of the frame, from 1 on."""

    def __init__(self, restorer: BlindRestorer, check_interrupt: CheckInterrupt, enlarged: float) -> None:
        self.restorer = restorer
        self.check_interrupt = check_interrupt
        self.enlarged = torch.tensor([enlarged])
        self.least, self.clean = LEAST * enlarged**0.5, CLEAN * enlarged
        self._past: Frame | None = None
        self._device: torch.device | None = None
        self._weights: dict[str, Tensor] = {}

    @torch.inference_mode()
    def push(self, crops: Tensor, masks: Tensor | None = None) -> Tensor:
        refuse_masks(self.restorer.name, masks)
        check_square(crops)
        return delivered(ready for crop in crops.split(1) for ready in self._next(crop))

    def close(self) -> Tensor:
        last, self._past = self._past, None
        return delivered([last.restored] if last is not None and self.restorer.look_ahead else [])

    def _next(self, crop: Tensor) -> Iterator[Tensor]:
        """Takes a crop and gives the restored ones that need no other."""
        self.check_interrupt()
        device, past = self.restorer.place(WORKING), self._past
        here = resized(crop.float(), CROP, "bicubic").clamp(0, 1)
        grey = replace(seen_by_flow(here), device=device)  # seen before it goes there: asking for it back would wait for all that goes on there
        now = here.to(device)
        if device != self._device or not self.restorer.options.detail:  # the network's own are asked for anew: a host may have exchanged them
            self._device, self._weights = device, self.restorer.network.at(self.restorer.options.detail)
            self.enlarged = self.enlarged.to(device)
        frame = self._restored(now, grey, past)
        if past is not None and self.restorer.look_ahead:
            after = warp(frame.restored, flow_between(past.grey, grey), "bicubic")
            yield steadied(past.restored, after, past.share, past.tolerance).clamp(0, 1)
        self._past = frame if self.restorer.options.carry else None
        if not self.restorer.look_ahead:
            yield frame.restored

    def _restored(self, now: Tensor, grey: GreyFrames, past: Frame | None) -> Frame:
        """x_t with what is known of the frame before it."""
        before, restored, flow = (None, None, None) if past is None else (past.crop, past.restored, flow_between(grey, past.grey))
        images, seen = clip_inputs(now, before, restored, flow)
        correction = self.restorer.network(images, seen, self._weights, self.enlarged) - now
        share = worthwhile(correction, self.least, self.clean)
        result = now + share * correction
        tolerance = AGREED**2 + LEFT**2 * around((share * correction).square().mean(1, keepdim=True), AROUND_LEFT)
        if restored is not None and flow is not None:
            result = steadied(result, warp(restored, flow, "bicubic"), share * seen, tolerance)
        return Frame(now, grey, result.clamp(0, 1), share, tolerance)


def delivered(crops: Iterable[Tensor]) -> Tensor:
    """Restored crops in one batch (n, 3, 512, 512) float32 on the CPU, which waits for them once."""
    ready = list(crops)
    return torch.cat(ready).float().cpu() if ready else torch.empty(0, 3, CROP, CROP)


def worthwhile(correction: Tensor, least: float, clean: float) -> Tensor:
    """The share (n, 1, H, W) of a correction (n, 3, H, W) that stands out: its Wiener gain, max(e - m, 0) / e with its energy e around each place.

    A network is never quite the identity where nothing is wrong; what it would change there is smaller than m = least^2. Where the whole
    correction is larger than clean faces ever need, something is wrong, and small corrections belong to it: m falls with its `STANDS_OUT`th power.
    """
    energy = correction.square().mean(1, keepdim=True)
    whole = energy.mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-6)
    least_energy = least**2 * (clean / whole).clamp(max=1) ** STANDS_OUT
    local = around(energy, NEIGHBOURHOOD)
    return (local - least_energy).clamp_min(0) / local.clamp_min(1e-12)


def steadied(restored: Tensor, before: Tensor, share: Tensor, tolerance: Tensor | float) -> Tensor:
    """Restored crops (n, 3, H, W), averaged with others, moved to them, where both show the same.

    The others count as share (n, 1, H, W) times exp(-d^2 / tolerance), with the RMS difference d around each place; share is that of the
    correction that was made, so that what is left as it was stays so.
    """
    difference = around((before - restored).square().mean(1, keepdim=True), AGREEMENT)
    weight = share * torch.exp(-difference / tolerance)
    return torch.lerp(restored, before, weight / (1 + weight))


def seen_by_flow(crops: Tensor) -> GreyFrames:
    """Crops (B, 3, H, W) in [0, 1] as `flow_between` wants them: at half the size, where noise is less."""
    return DisFlow().features(F.avg_pool2d(crops, 2) * 2 - 1)


def flow_between(current: GreyFrames, other: GreyFrames) -> Tensor:
    """The flow (B, 2, H, W) of crops into others, in pixels of them."""
    return 2 * F.interpolate(DisFlow().flow(current, other), scale_factor=2.0, mode="bilinear", align_corners=False)


def flow_into(current: Tensor, before: Tensor) -> Tensor:
    """The flow (B, 2, H, W) of crops (B, 3, H, W) in [0, 1] into those before, in pixels."""
    return flow_between(seen_by_flow(current), seen_by_flow(before))
