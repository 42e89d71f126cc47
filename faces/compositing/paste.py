"""Pastes restored crops into the frames they were cut from."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.upscaling import Upscaler
from ..align import check_size, span, warp_crops
from ..geometry import crop_corners, inverse, scales, zoomed
from ..types import CROP, FaceTrack
from ..warp import affine_grid, low_pass, remap, warp_affine
from .enlarge import MAX_SCALE, enlarged, grain_kept, in_larger_frame, lanczos_resize
from .grain import GRAIN, graininess, restore_grain
from .occlusion import unoccluded
from .parsing import Parser
from .strength import GATES, Gates, reason_unchanged, smoothstep, strengths

Item = tuple[FaceTrack, Tensor, "Tensor | None"]
"""A track, its restored crops for the frames that lie in the track, and the original crops if available."""
FULL_REPLACEMENT = 1.5
"""Scale (crop pixels per frame pixel) from which the restored crop replaces the frame; at 1 and below only the difference is added."""
CHANGE_FACTOR = 2.0
"""Detail that the crop's resampling loses is added to the restored face as far as its energy exceeds this multiple of the restoration's: a face that
hardly changes keeps its finest detail, and noise that was removed does not come back. 4 cost 0.3 dB of sharp faces of 45 pixels at crf 18."""
MARGIN = 8
"""Padding in frame pixels of a face's region when it is enlarged: more than the resampling kernel's reach."""
OCCLUSION = ("auto", "on", "off")

MAX_BYTES = 1 << 28
"""Memory limit for enlarged frames per call, unless a single one takes more."""


@dataclass(frozen=True)
class Paster:
    """out = frame + m (D r + k (frame - D c) - frame), for a restored crop r and the original crop c.

    m is the mask times the strength, D the inverse warp (anti-aliased where it shrinks). k is 0 where the face is smaller than its crop: the
    restored face replaces the original and its noise, but for film grain that is intact (faces/compositing/grain.py). k is 1 where the face is
    larger than its crop (scale <= 1), so that detail of the frame finer than the crop survives. Between scales 1 and 1.5 k changes
    continuously, so a growing face does not pop. Above 1, too, k rises towards 1 as r - c becomes small beside the detail that D c loses
    (`CHANGE_FACTOR`). Tracks with `difference` give frame + m D (r - c), which leaves the frame bit-exact where the crops agree. An unchanged crop
    leaves its frame unchanged. Of crops with more context than the template only the template's part is pasted.

    Attributes:
        feather: width of the soft border in pixels of the 512 crop; the mask is 0 on the crop's edge.
        strength: opacity of the restored face, in [0, 1].
        colour_match: matches the restored crop's low-frequency mean and contrast to the original crop, per channel.
        parser: face masks of crops (see `load_parser`); multiplies the mask.
        grain: "auto" restores film grain that a restorer removed and the frame has around the face; "off" does not.
        fade: lowers the strength for tiny, blurred, averted or interpolated faces, and at track ends within a shot.
        gates: the ranges in which it falls.
        occlusion: "on" keeps occluders, found where original and restored crops differ (occlusion.py); "auto" does so only for tracks with
            `repainted`, not where changes are intended, such as colourisation, inpainting and edits.
        scale: factor by which the output frames are enlarged, 1 to 4; crops keep their own detail.
        upscaler: network that enlarges the frames; None for Lanczos.
    """

    feather: float = 24
    strength: float = 1.0
    colour_match: bool = False
    parser: Parser | None = None
    fade: bool = True
    grain: str = "auto"
    gates: Gates = GATES
    occlusion: str = "auto"
    scale: int = 1
    upscaler: Upscaler | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.feather <= CROP / 2:
            raise ValueError(f"feather is 0 to {CROP // 2} pixels of the crop, got {self.feather}")
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength is 0 to 1, got {self.strength}")
        if self.grain not in GRAIN:
            raise ValueError(f"grain is {' or '.join(GRAIN)}, got {self.grain!r}")
        if self.occlusion not in OCCLUSION:
            raise ValueError(f"occlusion is {', '.join(OCCLUSION)}, got {self.occlusion!r}")
        if self.scale not in range(1, MAX_SCALE + 1):
            raise ValueError(f"scale is 1 to {MAX_SCALE} times the size of the frames, a whole number, got {self.scale}")
        if self.upscaler is not None and self.scale == 1:
            raise ValueError(f"an upscale model enlarges frames, and scale is 1; set scale to 2 to {MAX_SCALE}, or leave the model out")

    @property
    def uses_networks(self) -> bool:
        """Whether pasting runs a network, so that it must not overlap with a host that moves other networks."""
        return self.parser is not None or self.upscaler is not None

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Output (H, W) for frames of this size."""
        return height * self.scale, width * self.scale

    def reason_unchanged(self, track: FaceTrack) -> str:
        """Why a track is not changed in any frame, in words; empty if it is."""
        why = reason_unchanged(track, self.gates) if self.fade else ""
        return f"left as it was, {why}" if why else ""

    def level(self, track: FaceTrack) -> Tensor:
        """(N,) in [0, 1]: opacity of the restored face in each frame of a track."""
        return self.strength * (strengths(track, self.gates) if self.fade else torch.ones(len(track)))

    def at_once(self, height: int, width: int) -> int:
        """How many frames of this size one call of `paste` should get, to bound the memory of enlarged frames."""
        height, width = self.size(height, width)
        return max(1, MAX_BYTES // (12 * height * width)) if self.scale > 1 else sys.maxsize

    def paste(self, frames: Tensor, index: int, items: Sequence[Item]) -> tuple[Tensor, Tensor]:
        """Frames with the faces pasted, and the mask of what changed.

        frames: (n, 3, H, W) in [0, 1], the first of which has this index; not modified. items: see `Item`; smaller ids lie on top.
        Returns frames (n, 3, H, W) and mask (n, H, W) in [0, 1], H and W times `scale`; where the mask is 0 the (enlarged) frame is bit-exact.

        Raises:
            ValueError: if crops are not (k, 3, 512, 512) for the k frames that the track shares with these.
        """
        large = enlarged(frames, self.scale, self.upscaler)
        out = large.clone()
        mask = frames.new_zeros((len(large), *large.shape[-2:]))
        self._paste(frames, large, out, mask, index, items)
        return out, mask

    def paste_over(self, frames: Tensor, index: int, items: Sequence[Item]) -> Tensor:
        """The frames of `paste`, reusing the memory of `frames` where there is a single face."""
        large = enlarged(frames, self.scale, self.upscaler)
        out = large if len(items) <= 1 else large.clone()  # several faces are each compared with the original frame
        self._paste(frames, large, out, None, index, items)
        return out

    def _paste(self, frames: Tensor, large: Tensor, out: Tensor, mask: Tensor | None, index: int, items: Sequence[Item]) -> None:
        """Pastes all items into `out`, and into `mask` if there is one."""
        for item in sorted(items, key=lambda item: -item[0].person):
            track = item[0]
            first, stop = max(index, track.start), min(index + len(frames), track.stop)
            check_size(frames, track)
            check_crops(track, item[1], max(stop - first, 0))
            if first < stop:
                here, rows = slice(first - index, stop - index), slice(first - track.start, stop - track.start)
                self._paste_track(frames[here], large[here], out[here], None if mask is None else mask[here], item, rows)

    def _paste_track(self, frames: Tensor, large: Tensor, out: Tensor, mask: Tensor | None, item: Item, rows: slice) -> None:
        """Pastes one track into the views `out` and `mask`; `large` are the enlarged frames, `rows` those of the track."""
        track, restored, original = item
        level = self.level(track)[rows]
        matrices = track.matrices[rows].double()
        share = 1 - smoothstep(scales(matrices), 1.0, FULL_REPLACEMENT)
        restored = restored.to(frames)
        if original is not None:
            check_crops(track, original, len(frames))
            original = original.to(frames)
            level = level * torch.tensor([not torch.equal(*pair) for pair in zip(restored, original, strict=True)])
        if not bool((level > 0).any()):
            return
        if original is None:
            original = warp_crops(frames, matrices, CROP)
        if self.colour_match:
            restored = match_colour(restored, original)
        shape = self._face_mask(restored, original, track, rows)
        if track.difference:
            restored, original = restored - original, None
        for k, matrix in enumerate(matrices):
            if not float(level[k]) > 0:
                continue
            before = None if original is None else original[k]
            covered = None if shape is None else shape[k].to(frames)
            there, seen = matrix, before
            if self.scale > 1:  # the original crop includes the detail that the enlargement added
                there = in_larger_frame(matrix, self.scale)
                seen = None if before is None else warp_crops(large[k][None], there[None], CROP)[0]
            (y, x), soft, target = self._render(large[k], there, restored[k], seen, float(share[k]), covered, track)
            if self.grain == "auto" and not track.difference and (sure := graininess(frames[k])) > 0:
                if self.scale == 1:
                    grainy = restore_grain(frames[k][:, y, x], target, soft)
                else:
                    small = self._render(frames[k], matrix, restored[k], before, float(share[k]), covered, track)
                    grainy = target + self._large_grain(frames[k], large[k], (y, x), *small)
                target = target.lerp(grainy, sure).clamp(0, 1)
            soft = soft * float(level[k])
            out[k][:, y, x] += soft * (target - out[k][:, y, x])
            if mask is not None:
                mask[k][y, x] = torch.maximum(mask[k][y, x], soft)

    def _keeps_occluders(self, track: FaceTrack) -> bool:
        """Whether occluders of this track are kept."""
        return self.occlusion == "on" or (self.occlusion == "auto" and track.repainted)

    def _face_mask(self, restored: Tensor, original: Tensor | None, track: FaceTrack, rows: slice) -> Tensor | None:
        """Face masks (n, 512, 512) in the template's part of the crops; None without a parser or occlusion mask."""
        context = track.context
        if context != 1 and len(restored):
            part = inverse(zoomed(torch.eye(2, 3, dtype=torch.float64), context)).expand(len(restored), 2, 3)
            restored = warp_affine(restored, part, CROP, CROP)
            original = None if original is None else warp_affine(original, part, CROP, CROP)
        shape = self.parser(restored) if self.parser is not None else None
        if self._keeps_occluders(track) and original is not None and len(restored):
            scale = float(scales(track.matrices[rows]).median()) * context
            clear = unoccluded(restored, original, scale, None if track.outline is None else track.outline[rows])
            shape = clear if shape is None else shape.to(clear) * clear
        return shape

    def _large_grain(
        self, frame: Tensor, large: Tensor, wanted: tuple[slice, slice], region: tuple[slice, slice], soft: Tensor, target: Tensor
    ) -> Tensor:
        """Lost grain for the slices `wanted` of the enlarged frame, computed at frame size (region, soft, target: see `_render`) and enlarged."""
        y, x = region
        ends = [(min(MARGIN, part.start), min(MARGIN, length - part.stop)) for part, length in zip(region, frame.shape[-2:], strict=True)]
        lost = F.pad(restore_grain(frame[:, y, x], target, soft) - target, (*ends[1], *ends[0]))
        kept = 1.0 if self.upscaler is None else grain_kept(frame, large)
        grain = kept * lanczos_resize(lost, *(self.scale * side for side in lost.shape[-2:]))
        firsts = [self.scale * (part.start - before) for part, (before, _) in zip(region, ends, strict=True)]
        rows, columns = (slice(part.start - first, part.stop - first) for part, first in zip(wanted, firsts, strict=True))
        return grain[:, rows, columns]

    def _render(
        self, frame: Tensor, matrix: Tensor, restored: Tensor, original: Tensor | None, share: float, shape: Tensor | None, track: FaceTrack
    ) -> tuple[tuple[slice, slice], Tensor, Tensor]:
        """Region (rows, columns) of the frame, and there the mask (h, w) and the composite at full strength (3, h, w)."""
        face = zoomed(matrix, track.context)
        corners = crop_corners(face)
        x0, x1 = span(corners[:, 0], 0, frame.shape[-1])
        y0, y1 = span(corners[:, 1], 0, frame.shape[-2])
        region = slice(y0, y1), slice(x0, x1)
        start = torch.tensor([x0, y0], dtype=torch.float64)
        size = y1 - y0, x1 - x0
        whole, inner = (affine_grid(torch.cat([m[:, :2], (m[:, :2] @ start + m[:, 2])[:, None]], 1), *size) for m in (matrix, face))
        step = float(scales(matrix))
        crops = [low_pass(crop, step) for crop in (restored, original) if crop is not None]
        soft = feather_mask(*inner, self.feather).to(frame)
        target, *seen = remap(torch.cat(crops)[None], *whole)[0].split(len(frame))
        if track.difference:
            target = frame[:, y0:y1, x0:x1] + target
        else:
            lost = frame[:, y0:y1, x0:x1] - seen[0]
            lost_energy, changed_energy = ((soft * difference.square()).sum() for difference in (lost, target - seen[0]))
            kept = (lost_energy - CHANGE_FACTOR * changed_energy).clamp_min(0) / lost_energy.clamp_min(1e-12)
            target = target + (share + (1 - share) * kept) * lost
        if shape is not None:
            soft = soft * remap(low_pass(shape[None], float(scales(face)))[None], *inner, mode="bilinear")[0, 0].clamp(0, 1)
        return region, soft, target.clamp(0, 1)


def feather_mask(x: Tensor, y: Tensor, feather: float) -> Tensor:
    """Mask (height, width) float64, rising smoothly from 0 on the crop's edge to 1 `feather` crop pixels inside.

    x, y: (height, width) float64 crop coordinates of each pixel of the region.
    """
    inside = torch.minimum(torch.minimum(x, y), CROP - 1 - torch.maximum(x, y))
    return smoothstep(inside, 0.0, max(feather, 1e-6))


def match_colour(restored: Tensor, original: Tensor) -> Tensor:
    """(r - mean r) std c / std r + mean c, per crop and channel; statistics of a 16 x 16 grid of means, borders excluded.

    restored, original: (n, 3, 512, 512) in [0, 1]. The gain std c / std r is clamped to [1/2, 2].
    """
    r, c = (F.adaptive_avg_pool2d(crops, 16)[..., 3:-2, 3:-3].flatten(2) for crops in (restored, original))
    gain = ((c.std(-1) + 1e-3) / (r.std(-1) + 1e-3)).clamp(0.5, 2)
    return ((restored - r.mean(-1)[..., None, None]) * gain[..., None, None] + c.mean(-1)[..., None, None]).clamp(0, 1)


def check_crops(track: FaceTrack, crops: Tensor, count: int) -> None:
    """Raises ValueError unless crops are (count, 3, 512, 512)."""
    if tuple(crops.shape) != (count, 3, CROP, CROP):
        raise ValueError(f"person {track.person} needs crops ({count}, 3, {CROP}, {CROP}) for these frames, got {tuple(crops.shape)}")
