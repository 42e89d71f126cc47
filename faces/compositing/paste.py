"""Puts restored crops back into the frames they were cut from."""

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
from .strength import GATES, Gates, left_alone, smoothstep, strengths

Item = tuple[FaceTrack, Tensor, "Tensor | None"]
"""A track, its restored crops for those of the frames that lie in the track, and the crops before restoration if they are at hand."""
FULL_REPLACEMENT = 1.5
"""From this scale on (crop pixels per frame pixel) the restored crop replaces the frame; at 1 and below it is added as a difference."""
MARGIN = 8
"""Pixels of a frame beyond a face's region that enlarging spreads it over, and more."""
OCCLUSION = ("auto", "on", "off")

MAX_BYTES = 1 << 28
"""Bytes of enlarged frames at once, unless a single one takes more."""


@dataclass(frozen=True)
class Paster:
    """out = frame + m (D r + k (frame - D c) - frame), for a restored crop r and the crop c before restoration.

    m is the mask times the strength, D the inverse warp (low-passed where it shrinks). k is 0 where the face is smaller than its crop:
    the restored face replaces what was there, noise and all, but for grain that no codec has touched (faces/compositing/grain.py). k is 1 where the
    face is larger than its crop (scale <= 1): there the frame has detail finer than the crop can carry, which survives. Between scales 1
    and 1.5 k slides, so a face that grows never pops. A track's `difference` asks for frame + m D (r - c), which leaves what the two
    crops have in common to the bit. A crop that is as it was cut out leaves its frame as that was. Of crops with more context than the
    template's the template's part is pasted.

    Attributes:
        feather: width of the soft border in pixels of the 512 crop; the mask is 0 on the crop's edge.
        strength: 1 shows the restored face, 0 the frame.
        colour_match: gives the restored crop the low frequencies' mean and contrast of the crop before, per channel.
        parser: crops to face masks (see `load_parser`); multiplies the mask.
        grain: "auto" gives a face that lost it the grain back that the frame around it keeps; "off" leaves the face clean.
        fade: strength falls for tiny, blurred, averted or filled-in faces, and where a track begins or ends in mid-shot.
        gates: from where to where it falls.
        occlusion: "on" keeps what lies before the face, where the crops before and after restoration differ (occlusion.py); "auto" does for
            tracks that a network `repainted`, which leaves out what is meant to change, such as colours, holes and edits.
        scale: how many times the size of the frames comes out, 1 to 4: they are enlarged, and the crops keep their own detail.
        upscaler: what enlarges; None is Lanczos.
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
        """Whether pasting runs a network, which must not meet another one that a host is moving; without, it may go on beside one."""
        return self.parser is not None or self.upscaler is not None

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(H, W) of what comes out for frames of that size."""
        return height * self.scale, width * self.scale

    def left_alone(self, track: FaceTrack) -> str:
        """Why a track keeps its original in every frame, in words; empty where it is restored."""
        why = left_alone(track, self.gates) if self.fade else ""
        return f"left as it was, {why}" if why else ""

    def level(self, track: FaceTrack) -> Tensor:
        """(N,) in [0, 1]: how much of the restored face shows in each frame of a track."""
        return self.strength * (strengths(track, self.gates) if self.fade else torch.ones(len(track)))

    def at_once(self, height: int, width: int) -> int:
        """How many frames of that size one call of `paste` should get, so that enlarged ones do not fill the memory."""
        height, width = self.size(height, width)
        return max(1, MAX_BYTES // (12 * height * width)) if self.scale > 1 else sys.maxsize

    def paste(self, frames: Tensor, index: int, items: Sequence[Item]) -> tuple[Tensor, Tensor]:
        """Frames with the faces in them, and where they changed.

        frames: (n, 3, H, W) in [0, 1] that begin at `index`; they are not touched. items: see `Item`; larger ids lie on top.
        Returns frames (n, 3, H, W) and mask (n, H, W) in [0, 1], H and W times `scale`; where the mask is 0 the frame, enlarged, is what it
        was, to the bit.

        Raises:
            ValueError: if crops are not (k, 3, 512, 512) for the k frames that a track has in common with these.
        """
        large = enlarged(frames, self.scale, self.upscaler)
        out = large.clone()
        mask = frames.new_zeros((len(large), *large.shape[-2:]))
        self._paste(frames, large, out, mask, index, items)
        return out, mask

    def paste_over(self, frames: Tensor, index: int, items: Sequence[Item]) -> Tensor:
        """The frames that `paste` gives, for frames that nobody needs any more: a single face is written into them, and nothing else is touched."""
        large = enlarged(frames, self.scale, self.upscaler)
        out = large if len(items) <= 1 else large.clone()  # of several, each is measured against the frame as it was
        self._paste(frames, large, out, None, index, items)
        return out

    def _paste(self, frames: Tensor, large: Tensor, out: Tensor, mask: Tensor | None, index: int, items: Sequence[Item]) -> None:
        """Pastes everybody into `out`, and into `mask` if there is one."""
        for item in sorted(items, key=lambda item: -item[0].person):
            track = item[0]
            first, stop = max(index, track.start), min(index + len(frames), track.stop)
            check_size(frames, track)
            check_crops(track, item[1], max(stop - first, 0))
            if first < stop:
                here, rows = slice(first - index, stop - index), slice(first - track.start, stop - track.start)
                self._paste_track(frames[here], large[here], out[here], None if mask is None else mask[here], item, rows)

    def _paste_track(self, frames: Tensor, large: Tensor, out: Tensor, mask: Tensor | None, item: Item, rows: slice) -> None:
        """Pastes one person into `out` and `mask`, which are views; `large` are the frames enlarged, `rows` those of the track."""
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
        if original is None and (self.colour_match or self._keeps_occluders(track) or track.difference or bool((share > 0).any())):
            original = warp_crops(frames, matrices, CROP)
        if original is not None and self.colour_match:
            restored = match_colour(restored, original)
        shape = self._face_mask(restored, original, track, rows)
        if track.difference and original is not None:
            restored, original = restored - original, None
        for k, matrix in enumerate(matrices):
            if not float(level[k]) > 0:
                continue
            before = original[k] if original is not None and float(share[k]) > 0 else None
            covered = None if shape is None else shape[k].to(frames)
            there, seen = matrix, before
            if self.scale > 1:  # the crop before restoration, if it counts, is one with what the enlargement drew into it
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
        """Whether what lies before the face of a track is kept."""
        return self.occlusion == "on" or (self.occlusion == "auto" and track.repainted)

    def _face_mask(self, restored: Tensor, original: Tensor | None, track: FaceTrack, rows: slice) -> Tensor | None:
        """Masks (n, 512, 512) of what is face in the template's part of the crops; None where nothing is known but the crop's border."""
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
        """The grain that a face lost, in the part `wanted` of the enlarged frame, as that has it around; from what a paste into the frame shows."""
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
        """Region (rows, columns) of the frame, the mask (h, w) there, and what a full strength shows there (3, h, w)."""
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
        target, *seen = remap(torch.cat(crops)[None], *whole)[0].split(len(frame))
        if track.difference:
            target = frame[:, y0:y1, x0:x1] + target
        elif seen:
            target = target + share * (frame[:, y0:y1, x0:x1] - seen[0])
        soft = feather_mask(*inner, self.feather).to(frame)
        if shape is not None:
            soft = soft * remap(low_pass(shape[None], float(scales(face)))[None], *inner, mode="bilinear")[0, 0].clamp(0, 1)
        return region, soft, target.clamp(0, 1)


def feather_mask(x: Tensor, y: Tensor, feather: float) -> Tensor:
    """Mask (height, width) float64 of the crop in frame pixels: smooth from 0 on the crop's edge to 1 `feather` crop pixels inside.

    x, y: (height, width) float64, where each pixel of the region lies in the crop.
    """
    inside = torch.minimum(torch.minimum(x, y), CROP - 1 - torch.maximum(x, y))
    return smoothstep(inside, 0.0, max(feather, 1e-6))


def match_colour(restored: Tensor, original: Tensor) -> Tensor:
    """(r - mean r) std c / std r + mean c, per crop and channel, statistics of the 16 x 16 means in the middle of the crop.

    restored, original: (n, 3, 512, 512) in [0, 1]. The gain is kept within 1/2 and 2.
    """
    r, c = (F.adaptive_avg_pool2d(crops, 16)[..., 3:-2, 3:-3].flatten(2) for crops in (restored, original))
    gain = ((c.std(-1) + 1e-3) / (r.std(-1) + 1e-3)).clamp(0.5, 2)
    return ((restored - r.mean(-1)[..., None, None]) * gain[..., None, None] + c.mean(-1)[..., None, None]).clamp(0, 1)


def check_crops(track: FaceTrack, crops: Tensor, count: int) -> None:
    """Raises ValueError unless crops are (count, 3, 512, 512)."""
    if tuple(crops.shape) != (count, 3, CROP, CROP):
        raise ValueError(f"person {track.person} needs crops ({count}, 3, {CROP}, {CROP}) for these frames, got {tuple(crops.shape)}")
