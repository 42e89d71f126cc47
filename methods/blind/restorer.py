"""Blind restoration at the crop's full resolution, frame after frame: what was restored before, moved by flow, helps with what comes next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...faces.types import CROP, FaceTrack
from ...models.blind import BlindRestorers, recurrent_inputs
from ...models.device import CheckInterrupt, no_check
from ...motion.dis import DisFlow, GreyFrames
from ...motion.warp import warp
from ...options import Options, parameter
from ...video.overlap import read_ahead
from ..base import NetworkRestorer, Session, WarmUp, check_square, refuse_masks, resized
from .agreement import CELL, FACE, FACE_CELLS, Agreement, kept, mirrored, unmirrored
from .chroma_noise import without_chroma_noise
from .window_means import around, averaged

WORKING = 400 << 20
"""Bytes of working memory for one crop: about twelve maps of 64 channels at a quarter of its side, and what is warped at all of it."""

SMALL = 2.0
"""Crop pixels per pixel of the frame from which on a face is small: of no more than 256 pixels with what is around it. What is made of one counts
as the frame's pixels show it, by its means over them: the network draws what they lack, and pasted that would be sharper than the frame ever was,
which took up to 1.4 dB of hardly damaged faces of 100 pixels. Larger faces gain as much by it as they lose."""
CHANGED = 2 / 255
"""A place has changed since the frame before, moved to this one, where means over 8 x 8 pixels differ by more than two levels (RMS over 3 x 3
of them), in noise by 20^1/2 times that more. One to four levels do alike."""
FEW, MANY = 0.01, 0.5
"""Of the face's cells; fewer that have changed are not worth another look, and with more the frame begins anew, as the first of a clip."""
SETTLED = 8
"""Frames after which what is carried no longer tells where in the clip it began: 64 dB and more between part and whole, whose second looks may fall
on other frames, of 47 to 51 in the first."""
EVERY = 4
"""Frames for which one second look serves where looks are not noisy. One for each took a quarter longer over all kinds of damage and gained 0.01 to
0.02 dB."""
AGREED, AGREEMENT = 4 / 255, 7
"""Two frames agree where their difference is of this deviation, noise that is left and not motion that the flow missed, in a window of this side in
pixels of the crop."""
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
    twice: bool = parameter(True, advice="Each noisy frame is looked at twice, not each fourth only: less noise, a quarter more time.", advanced=True)
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
        seen = () if track is None else (max(track.scale, 1.0), track.output_scale)
        return BlindSession(self, check_interrupt, *seen)


@dataclass(frozen=True)
class Seen:
    """A frame of a clip before the network, on the CPU.

    Attributes:
        crop, quiet: (1, 3, 512, 512) in [0, 1], as it came and as the network sees it.
        grey: the crop, as the search for motion sees it.
        flows: into the frame before, and that one's into this where it is asked for, (1, 2, 512, 512); None without a frame before.
        unchanged: see `unchanged`; None where all is.
    """

    crop: Tensor
    quiet: Tensor
    grey: GreyFrames
    flows: tuple[Tensor, Tensor | None] | None
    unchanged: Tensor | None

    @property
    def begins(self) -> bool:
        """Whether so much has changed that the frame before is of no use."""
        return self.unchanged is not None and bool(self.unchanged[FACE].mean() < 1 - MANY)


@dataclass(frozen=True)
class Frame:
    """A frame of a clip and what became of it.

    Attributes:
        seen: before the network.
        crop: x_t, (1, 3, 512, 512) in [0, 1], as the network sees it.
        restored: y_t, of the crop's shape.
        share: (1, 1, 512, 512), of the correction that was made.
        tolerance: of that size, the squared difference in which another frame agrees.
    """

    seen: Seen
    crop: Tensor
    restored: Tensor
    share: Tensor
    tolerance: Tensor


class BlindSession(Session):
    """One person's clip; it holds the last crop and what became of it.

    Args:
        enlarged: crop pixels per pixel of the frame, from 1 on.
        output_scale: how many times as large the frames are that the restored crops are meant for.
    """

    def __init__(self, restorer: BlindRestorer, check_interrupt: CheckInterrupt, enlarged: float = 1.0, output_scale: int = 1) -> None:
        self.restorer = restorer
        self.check_interrupt = check_interrupt
        self.scale, self.enlarged = enlarged, torch.tensor([enlarged])
        self.pixel = enlarged / output_scale if enlarged >= SMALL else 1.0
        self._past: Frame | None = None
        self._device: torch.device | None = None
        self._drawn: dict[str, Tensor] | None = None
        self._agreement: Agreement
        self._shares: Tensor
        self._share: Tensor
        self._noisy = False
        self._served = 0

    @torch.inference_mode()
    def push(self, crops: Tensor, masks: Tensor | None = None) -> Tensor:
        refuse_masks(self.restorer.name, masks)
        check_square(crops)
        with closing(read_ahead(self._seen_in_turn(crops))) as frames:
            return delivered(ready for seen in frames for ready in self._next(seen))

    def close(self) -> Tensor:
        last, self._past = self._past, None
        return delivered([last.restored] if last is not None and self.restorer.look_ahead else [])

    def _seen_in_turn(self, crops: Tensor) -> Iterator[Seen]:
        """What needs no network, frame after frame, on the CPU and in a thread beside it."""
        past = None if self._past is None else self._past.seen
        for crop in crops.split(1):
            here = resized(crop.float(), CROP, "bicubic").clamp(0, 1)
            grey, quiet = seen_by_flow(here), without_chroma_noise(here, self.scale)
            flows = same = None
            if past is not None:
                flows = flow_between(grey, past.grey), flow_between(past.grey, grey) if self.restorer.look_ahead else None
                same = unchanged(quiet, past.quiet, flows[0])
            seen = Seen(here, quiet, grey, flows, same)
            yield seen
            past = seen if self.restorer.options.carry else None

    def _next(self, seen: Seen) -> Iterator[Tensor]:
        """Takes a crop and gives the restored ones that need no other."""
        self.check_interrupt()
        device, past = self.restorer.place(WORKING), self._past
        now = seen.crop.to(device)
        quiet = now if seen.quiet is seen.crop else seen.quiet.to(device)
        if device != self._device:
            self._device, self.enlarged = device, self.enlarged.to(device)
            self._drawn = self.restorer.network.weights_at(detail) if (detail := self.restorer.options.detail) else None
        frame = self._restored(now, quiet, seen, None if seen.begins else past)
        _, forth = seen.flows or (None, None)
        if past is not None and forth is not None:
            after = warp(frame.restored, forth.to(device), "bicubic")
            yield steadied(past.restored, after, past.share, past.tolerance).clamp(0, 1)
        self._past = frame if self.restorer.options.carry else None
        if not self.restorer.look_ahead:
            yield frame.restored

    def _restored(self, now: Tensor, quiet: Tensor, source: Seen, past: Frame | None) -> Frame:
        """x_t, and what the network sees of it, with what is known of the frame before it."""
        earlier = (None, None, None) if past is None or source.flows is None else (past.crop, past.restored, source.flows[0].to(now.device))
        images, seen = recurrent_inputs(quiet, *earlier)
        same = None if past is None or source.unchanged is None else source.unchanged.to(seen)
        faithful = self.restorer.network.weights_at(0.0)  # asked for anew: a host may have exchanged them
        twice = self._looks_twice(past is None)
        if twice or self._drawn is None:
            correction = self._look(images, seen, same, faithful) - now
        if twice:
            again = unmirrored(self._look(mirrored(images), mirrored(seen), None if same is None else mirrored(same), faithful)) - now
            mean = (correction + again) / 2
            agreement = Agreement.of(mean, correction - mean, carried=(seen if same is None else seen * same).mean())
            self._agreement = agreement if past is None else self._agreement.then(agreement)
            self._shares = self._agreement.shares(self.scale)
            self._share = self._agreement.share(self._shares)
            correction = mean
        if self._drawn is not None:  # differs from look to look by its nature, so it goes where the faithful looks agree
            correction = self._look(images, seen, same, self._drawn) - now
        share = self._share
        correction = kept(correction, self._shares)
        result = now + correction
        tolerance = AGREED**2 + LEFT**2 * around(correction.square().mean(1, keepdim=True), AROUND_LEFT)
        _, restored, flow = earlier
        if restored is not None and flow is not None:
            result = steadied(result, warp(restored, flow, "bicubic"), share * seen, tolerance)
        return Frame(source, quiet, result.clamp(0, 1), share, tolerance)

    def _looks_twice(self, first: bool) -> bool:
        """Whether a frame is looked at twice: the first of a clip and each `EVERY` frames on, and those between them where looks are noisy."""
        due = first or self._served == EVERY
        if due:
            self._served, self._noisy = 0, False
        elif self._served == 1:
            self._noisy = self.restorer.options.twice and bool(self._agreement.noisy)  # once, for it waits for the device
        self._served += 1
        return due or self._noisy

    def _look(self, images: Tensor, seen: Tensor, same: Tensor | None, weights: dict[str, Tensor]) -> Tensor:
        """y_t, by what was restored before where that shows the `same` and without it elsewhere."""
        network, enlarged = self.restorer.network, self.enlarged
        result = network(images, seen, weights, enlarged)
        if same is not None:
            alone = network(*recurrent_inputs(images[:, :3], None, None, None), weights, enlarged)
            result = torch.lerp(alone, result, same)
        return averaged(result, self.pixel)


def delivered(crops: Iterable[Tensor]) -> Tensor:
    """Restored crops in one batch (n, 3, 512, 512) float32 on the CPU, which waits for them once."""
    ready = list(crops)
    return torch.cat(ready).float().cpu() if ready else torch.empty(0, 3, CROP, CROP)


def steadied(restored: Tensor, before: Tensor, share: Tensor, tolerance: Tensor | float) -> Tensor:
    """Restored crops (n, 3, H, W), averaged with others, moved to them, where both show the same.

    The others count as share (n, 1, H, W) times exp(-d^2 / tolerance), with the RMS difference d around each place; share is that of the
    correction that was made, so that what is left as it was stays so.
    """
    difference = around((before - restored).square().mean(1, keepdim=True), AGREEMENT)
    weight = share * torch.exp(-difference / tolerance)
    return torch.lerp(restored, before, weight / (1 + weight))


def unchanged(crop: Tensor, before: Tensor, flow: Tensor) -> Tensor | None:
    """How far a crop (1, 3, H, W) shows what the one before does, moved along its flow (1, 2, H, W) into it, (1, 1, H, W) in [0, 1]; see `CHANGED`.

    Optical flow fails where a mouth opens within one frame or the light changes; what was restored before would be carried to a wrong place.

    Returns:
        None where all but `FEW` of the face's cells are as they were.
    """
    moved = warp(F.avg_pool2d(before, 2), F.avg_pool2d(flow, 2) / 2)
    difference = F.avg_pool2d(F.avg_pool2d(crop, 2) - moved, CELL // 2)
    noise = (difference - around(difference, 3)).square().mean(1)[FACE_CELLS].median()  # from cell to cell, as other light is not
    same = (around(difference.square().mean(1, keepdim=True), 3) <= CHANGED**2 + 20 * noise).to(crop)
    return resized(same, crop.shape[-1], "bilinear") if 1 - same[FACE_CELLS].mean() > FEW else None


def seen_by_flow(crops: Tensor) -> GreyFrames:
    """Crops (B, 3, H, W) in [0, 1] as `flow_between` wants them: at half the size, where noise is less."""
    return DisFlow().features(F.avg_pool2d(crops, 2) * 2 - 1)


def flow_between(current: GreyFrames, other: GreyFrames) -> Tensor:
    """The flow (B, 2, H, W) of crops into others, in pixels of them."""
    return 2 * F.interpolate(DisFlow().flow(current, other), scale_factor=2.0, mode="bilinear", align_corners=False)


def flow_into(current: Tensor, before: Tensor) -> Tensor:
    """The flow (B, 2, H, W) of crops (B, 3, H, W) in [0, 1] into those before, in pixels."""
    return flow_between(seen_by_flow(current), seen_by_flow(before))
