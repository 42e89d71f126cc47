"""Blind restoration at the crop's full resolution, recurrent over the frames: the previous output, warped along optical flow, is an input.

Around the network of models/blind stand, in order: chroma denoising; DIS optical flow and a photometric consistency mask, as of flow papers, that
keeps the previous frame out where it does not fit; a geometric self-ensemble, whose agreement gives Wiener gains for the correction; and a recursive
temporal filter over the outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...box_filter import box_filter, fractional_box_filter
from ...faces.types import CROP, FaceTrack
from ...models.blind import BlindRestorers, recurrent_inputs
from ...models.device import CheckInterrupt, no_check
from ...motion.dis import DisFlow, GreyFrames
from ...motion.warp import warp
from ...options import Options, parameter
from ...resampling import pooled
from ...video.overlap import read_ahead
from ..base import NetworkRestorer, Session, WarmUp, check_square, refuse_masks, resized
from .chroma_noise import denoise_chroma
from .self_ensemble import BLOCK, FACE_BLOCKS, FACE_PIXELS, EnsembleStatistics, apply_gains, augment, deaugment
from .unsharp import NO_SCALE, unsharp_amount, unsharp_mask

WORKING = 400 << 20
"""Bytes of working memory for one crop: about twelve maps of 64 channels at a quarter of its side, and what is warped at all of it."""

SMALL_FACE_SCALE = 2.0
"""Crop pixels per frame pixel from which on a face is small (at most 256 pixels with its surroundings). The output is then averaged over frame
pixels: the network adds detail finer than those, and pasted it would be sharper than the frame, which took up to 1.4 dB of hardly damaged faces of
100 pixels. Larger faces gain as much by it as they lose."""
CHANGE_THRESHOLD, NOISE_FACTOR = 2 / 255, 20
"""A block is inconsistent with the warped previous frame where the mean square difference of block means (8 x 8 pixels, smoothed over 3 x 3 blocks)
exceeds two levels squared plus 20 times the noise in it. One to four levels do alike."""
MIN_CHANGED, MAX_CHANGED = 0.01, 0.5
"""Shares of the face's blocks that are inconsistent: below the first the mask is not worth another prediction, above the second the state is reset,
as at the first frame of a clip."""
WARM_UP_FRAMES = 8
"""Frames after which the recurrent state no longer depends on where in the clip it began: 64 dB and more between a part and the whole, whose
self-ensembles may fall on other frames; 47 to 51 dB at a part's first frames."""
ENSEMBLE_INTERVAL = 4
"""Frames per self-ensemble where predictions are not noisy. One for each frame took a quarter longer over all kinds of damage and gained 0.01 to
0.02 dB."""
TEMPORAL_SIGMA, TEMPORAL_WINDOW = 4 / 255, 7
"""Range sigma of the temporal filter (a difference of this standard deviation is remaining noise, not motion that the flow missed) and side in crop
pixels of the window over which the difference is averaged."""
RESIDUAL_NOISE, RESIDUAL_WINDOW = 0.5, 31
"""Large corrections leave more noise: its standard deviation as a share of the correction's own, in a window of this side. 0.5 gains 0.27 dB in low
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
    """The package's own restorer for unknown damage.

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
        return WarmUp(before=WARM_UP_FRAMES, exact=False) if self.options.carry else WarmUp()

    def open(self, track: FaceTrack | None = None, *, seed: int = 0, check_interrupt: CheckInterrupt = no_check) -> Session:
        """See Restorer.open; nothing is random, so the seed does not matter.

        Raises:
            ValueError: for detail from weights that have no second set.
        """
        if self.options.detail and self.network.detailed is None:
            raise ValueError(f"these weights have no second set for detail, got detail {self.options.detail:g}; set it to 0")
        scales = () if track is None else (max(track.scale, 1.0), track.output_scale)
        return BlindSession(self, check_interrupt, *scales)


@dataclass(frozen=True)
class PreprocessedFrame:
    """A frame of a clip before the network, on the CPU.

    Attributes:
        crop: (1, 3, 512, 512) in [0, 1].
        denoised: the crop without chroma noise, the network's input x_t; the same tensor where there is none.
        features: of the crop, for optical flow.
        flows: into the previous frame, and from that into this one with look-ahead, (1, 2, 512, 512); None without a previous frame.
        consistency: see `consistency_mask`; None where all is consistent.
    """

    crop: Tensor
    denoised: Tensor
    features: GreyFrames
    flows: tuple[Tensor, Tensor | None] | None
    consistency: Tensor | None

    @property
    def resets(self) -> bool:
        """Whether too much has changed for the previous frame to be of use."""
        return self.consistency is not None and bool(self.consistency[FACE_PIXELS].mean() < 1 - MAX_CHANGED)


@dataclass(frozen=True)
class RestoredFrame:
    """The recurrent state: a frame and its output.

    Attributes:
        source: before the network.
        denoised: x_t, (1, 3, 512, 512) in [0, 1], on the network's device.
        restored: y_t, of that shape.
        gain: (1, 1, 512, 512) in [0, 1], mean gain of the correction.
        tolerance: of that size, variance of the temporal filter's range weight.
        unsharp: of that size, amount by which the output is sharpened once it is final; None for small faces.
    """

    source: PreprocessedFrame
    denoised: Tensor
    restored: Tensor
    gain: Tensor
    tolerance: Tensor
    unsharp: Tensor | None

    def sharpened(self, final: Tensor) -> Tensor:
        """The frame's final output."""
        return final.clamp(0, 1) if self.unsharp is None else unsharp_mask(final, self.unsharp)


class BlindSession(Session):
    """One person's clip. Holds the state of one frame.

    Args:
        scale: crop pixels per frame pixel, at least 1.
        output_scale: size of the frames that the output is pasted into, relative to the input's.
    """

    def __init__(self, restorer: BlindRestorer, check_interrupt: CheckInterrupt, scale: float = 1.0, output_scale: int = 1) -> None:
        self.restorer = restorer
        self.check_interrupt = check_interrupt
        self.scale, self.network_scale = scale, torch.tensor([scale])
        self.output_pixel = scale / output_scale if scale >= SMALL_FACE_SCALE else 1.0
        self._previous: RestoredFrame | None = None
        self._device: torch.device | None = None
        self._detail_weights: dict[str, Tensor] | None = None
        self._statistics: EnsembleStatistics
        self._gains: Tensor
        self._mean_gain: Tensor
        self._unsharp: Tensor | None = None
        self._noisy = False
        self._since_ensemble = 0

    @torch.inference_mode()
    def push(self, crops: Tensor, masks: Tensor | None = None) -> Tensor:
        refuse_masks(self.restorer.name, masks)
        check_square(crops)
        with closing(read_ahead(self._preprocess(crops))) as frames:
            return to_batch(ready for frame in frames for ready in self._step(frame))

    @torch.inference_mode()
    def close(self) -> Tensor:
        last, self._previous = self._previous, None
        return to_batch([last.sharpened(last.restored)] if last is not None and self.restorer.look_ahead else [])

    def _preprocess(self, crops: Tensor) -> Iterator[PreprocessedFrame]:
        """All that needs no network, frame by frame on the CPU, in a thread beside it."""
        previous = None if self._previous is None else self._previous.source
        for crop in crops.split(1):
            crop = resized(crop.float(), CROP, "bicubic").clamp(0, 1)
            features, denoised = flow_features(crop), denoise_chroma(crop, self.scale)
            flows = consistency = None
            if previous is not None:
                forward = flow_between(previous.features, features) if self.restorer.look_ahead else None
                flows = flow_between(features, previous.features), forward
                consistency = consistency_mask(denoised, previous.denoised, flows[0])
            frame = PreprocessedFrame(crop, denoised, features, flows, consistency)
            yield frame
            previous = frame if self.restorer.options.carry else None

    def _step(self, source: PreprocessedFrame) -> Iterator[Tensor]:
        """Takes a frame and yields the outputs that are final: with look-ahead the previous one, filtered with this one's."""
        self.check_interrupt()
        device, previous = self.restorer.place(WORKING), self._previous
        crop = source.crop.to(device)
        denoised = crop if source.denoised is source.crop else source.denoised.to(device)
        if device != self._device:
            self._device, self.network_scale = device, self.network_scale.to(device)
            self._detail_weights = self.restorer.network.weights_at(detail) if (detail := self.restorer.options.detail) else None
        frame = self._restore(crop, denoised, source, None if source.resets else previous)
        _, forward = source.flows or (None, None)
        if previous is not None and forward is not None:
            following = warp(frame.restored, forward.to(device), "bicubic")
            yield previous.sharpened(temporal_filter(previous.restored, following, previous.gain, previous.tolerance))
        self._previous = frame if self.restorer.options.carry else None
        if not self.restorer.look_ahead:
            yield frame.sharpened(frame.restored)

    def _restore(self, crop: Tensor, denoised: Tensor, source: PreprocessedFrame, previous: RestoredFrame | None) -> RestoredFrame:
        """y_t: the crop plus the correction, scaled by its gains, then filtered with the previous output."""
        flow = None if previous is None or source.flows is None else source.flows[0].to(crop.device)
        past = (None, None, None) if previous is None else (previous.denoised, previous.restored, flow)
        images, valid = recurrent_inputs(denoised, *past)
        consistency = None if previous is None or source.consistency is None else source.consistency.to(valid)
        faithful = self.restorer.network.weights_at(0.0)  # asked for anew: a host may have exchanged them
        ensemble = self._uses_ensemble(previous is None)
        if ensemble or self._detail_weights is None:
            correction = self._predict(images, valid, consistency, faithful) - crop
        if ensemble:
            augmented = self._predict(augment(images), augment(valid), None if consistency is None else augment(consistency), faithful)
            mean = (correction + (deaugment(augmented) - crop)) / 2
            recurrent = (valid if consistency is None else valid * consistency).mean()
            statistics = EnsembleStatistics.of(crop, mean, correction - mean, recurrent)
            self._statistics = statistics if previous is None else self._statistics.updated(statistics)
            self._gains = self._statistics.gains(self.scale)
            self._mean_gain = self._statistics.mean_gain(self._gains)
            correction = mean
        if self._detail_weights is not None:  # generated detail differs between predictions by nature: its gains are the faithful weights'
            correction = self._predict(images, valid, consistency, self._detail_weights) - crop
        gain = self._mean_gain
        correction = apply_gains(correction, self._gains)
        result = crop + correction
        if ensemble and self.scale < NO_SCALE:
            amount = gain[FACE_PIXELS].mean((2, 3), keepdim=True) * unsharp_amount(crop, result, self._statistics, self.scale)
            self._unsharp = amount if previous is None or self._unsharp is None else torch.lerp(self._unsharp, amount, 1 / self._statistics.frames)
        tolerance = TEMPORAL_SIGMA**2 + RESIDUAL_NOISE**2 * box_filter(correction.square().mean(1, keepdim=True), RESIDUAL_WINDOW)
        if previous is not None and flow is not None:
            result = temporal_filter(result, warp(previous.restored, flow, "bicubic"), gain * valid, tolerance)
        return RestoredFrame(source, denoised, result.clamp(0, 1), gain, tolerance, None if self._unsharp is None else gain * self._unsharp)

    def _uses_ensemble(self, first: bool) -> bool:
        """Whether a frame gets two predictions: the first after a reset, every `ENSEMBLE_INTERVAL`th, and those between if predictions are noisy."""
        due = first or self._since_ensemble == ENSEMBLE_INTERVAL
        if due:
            self._since_ensemble, self._noisy = 0, False
        elif self._since_ensemble == 1:
            self._noisy = self.restorer.options.twice and bool(self._statistics.noisy)  # once, for it waits for the device
        self._since_ensemble += 1
        return due or self._noisy

    def _predict(self, images: Tensor, valid: Tensor, consistency: Tensor | None, weights: dict[str, Tensor]) -> Tensor:
        """The network's output, blended by the consistency mask with what it makes of the frame alone."""
        network, scale = self.restorer.network, self.network_scale
        result = network(images, valid, weights, scale)
        if consistency is not None:
            alone = network(*recurrent_inputs(images[:, :3], None, None, None), weights, scale)
            result = torch.lerp(alone, result, consistency)
        return fractional_box_filter(result, self.output_pixel)


def to_batch(crops: Iterable[Tensor]) -> Tensor:
    """Restored crops as one batch (n, 3, 512, 512) float32 on the CPU, with one transfer for all."""
    ready = list(crops)
    return torch.cat(ready).float().cpu() if ready else torch.empty(0, 3, CROP, CROP)


def temporal_filter(current: Tensor, other: Tensor, gain: Tensor, tolerance: Tensor | float) -> Tensor:
    """Outputs (n, 3, H, W), averaged with those of a neighbouring frame, warped to them: a recursive bilateral filter in time.

    The weight is w / (1 + w), w = gain * exp(-d^2 / tolerance), with d^2 the mean square difference in a window of `TEMPORAL_WINDOW`.

    Args:
        gain: (n, 1, H, W) in [0, 1], mean gain of the correction, so that what was left as it was stays so.
        tolerance: variance of the difference, (n, 1, H, W) or a number.
    """
    difference = box_filter((other - current).square().mean(1, keepdim=True), TEMPORAL_WINDOW)
    weight = gain * torch.exp(-difference / tolerance)
    return torch.lerp(current, other, weight / (1 + weight))


def consistency_mask(crop: Tensor, previous: Tensor, flow: Tensor) -> Tensor | None:
    """Photometric consistency of a crop (1, 3, H, W) with the previous one, warped along the flow (1, 2, H, W): (1, 1, H, W) in [0, 1].

    Optical flow fails where a mouth opens within one frame or the light changes; the previous output would be carried to a wrong place. See
    `CHANGE_THRESHOLD`.

    Returns:
        None where no more than `MIN_CHANGED` of the face is inconsistent.
    """
    warped = warp(pooled(previous, 2), pooled(flow, 2) / 2)
    difference = pooled(pooled(crop, 2) - warped, BLOCK // 2)
    noise = (difference - box_filter(difference, 3)).square().mean(1)[FACE_BLOCKS].median()  # differs between blocks, a change of light does not
    consistent = (box_filter(difference.square().mean(1, keepdim=True), 3) <= CHANGE_THRESHOLD**2 + NOISE_FACTOR * noise).to(crop)
    return resized(consistent, crop.shape[-1], "bilinear") if 1 - consistent[FACE_BLOCKS].mean() > MIN_CHANGED else None


def flow_features(crops: Tensor) -> GreyFrames:
    """Crops (B, 3, H, W) in [0, 1] as `flow_between` takes them: at half the size, where noise is less."""
    return DisFlow().features(pooled(crops, 2) * 2 - 1)


def flow_between(current: GreyFrames, other: GreyFrames) -> Tensor:
    """The optical flow (B, 2, H, W) of crops into others, in crop pixels."""
    return 2 * F.interpolate(DisFlow().flow(current, other), scale_factor=2.0, mode="bilinear", align_corners=False)


def optical_flow(current: Tensor, other: Tensor) -> Tensor:
    """The same from crops (B, 3, H, W) in [0, 1]."""
    return flow_between(flow_features(current), flow_features(other))
