"""Aligned 512 x 512 face crops from frames."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from .geometry import crop_corners, inverse, scales, zoomed
from .types import CROP, FaceClip, FaceTrack
from .warp import low_pass, warp_affine

SURROUNDINGS_SIDE, SURROUNDINGS_FRAMES = 320, 8
"""Side in frame pixels of the region around a face that a clip keeps, and for how many of its first frames."""


def align(frames: Tensor, track: FaceTrack, index: int) -> Tensor:
    """Aligned crops of `track` from frames (n, 3, H, W) in [0, 1], the first of which has this index.

    Returns (n, 3, 512, 512) float32 in [0, 1] on the frames' device: bicubic, anti-aliased where the face is larger than the crop, border
    replicated.

    Raises:
        ValueError: if a frame lies outside the track, or frames are not the track's size.
    """
    rows = rows_of(track, index, len(frames))
    check_size(frames, track)
    return warp_crops(frames, track.matrices[rows], CROP)


def warp_crops(frames: Tensor, matrices: Tensor, size: int) -> Tensor:
    """Crops (n, 3, size, size) in [0, 1] of frames (n, 3, H, W); matrices (n, 2, 3) map frame pixels to crop pixels."""
    crops = [warp_crop(frame.float(), matrix, size) for frame, matrix in zip(frames, matrices, strict=True)]
    return torch.stack(crops) if crops else frames.new_zeros((0, frames.shape[1], size, size), dtype=torch.float32)


def warp_crop(frame: Tensor, matrix: Tensor, size: int) -> Tensor:
    """One crop (C, size, size); only the region it covers is filtered."""
    back, step = inverse(matrix), 1 / float(scales(matrix))
    corners = crop_corners(matrix, size)
    margin = 3 * math.ceil(max(1.0, step)) + 3
    x0, x1 = span(corners[:, 0], margin, frame.shape[-1])
    y0, y1 = span(corners[:, 1], margin, frame.shape[-2])
    moved = torch.cat([back[:, :2], back[:, 2:] - torch.tensor([[x0], [y0]])], 1)
    region = low_pass(frame[:, y0:y1, x0:x1], step)
    return warp_affine(region[None], moved[None], size, size)[0].clamp(0, 1)


def with_context(track: FaceTrack, context: float) -> FaceTrack:
    """The track with 512 x 512 crops whose field of view is `context` times the template's, about the same centre.

    For models that need to see the surroundings of a face; only the face is pasted. Face restorers expect 1.

    Raises:
        ValueError: for less than 1.
    """
    if not context >= 1:
        raise ValueError(f"context is 1 or more, as a crop shows at least the whole face, got {context}")
    return replace(track, matrices=zoomed(track.matrices, track.context / context).float(), context=context)


def span(points: Tensor, margin: int, length: int) -> tuple[int, int]:
    """The pixel range [start, stop) that `points` and a margin cover, clipped to the axis; never empty."""
    start = min(max(math.floor(float(points.min())) - margin, 0), length - 1)
    stop = max(min(math.ceil(float(points.max())) + margin + 1, length), start + 1)
    return start, stop


def surroundings(frames: Tensor, track: FaceTrack, index: int) -> Tensor:
    """(n, 3, h, w) copy of the fixed region around the track's first face in frames (n, 3, H, W) of the track, the first of which has this index."""
    rows_of(track, index, len(frames))
    check_size(frames, track)
    back = inverse(track.matrices[:1])[0]
    middle = back[:, :2] @ torch.full((2,), (CROP - 1) / 2, dtype=back.dtype) + back[:, 2]
    side, (height, width) = SURROUNDINGS_SIDE, track.frame_size
    x, y = (max(0, min(round(float(at) - side / 2), length - side)) for at, length in zip(middle, (width, height), strict=True))
    return frames[..., y : y + side, x : x + side].float().cpu().clone()


def crop_clip(frames: Tensor, track: FaceTrack) -> FaceClip:
    """A track with all its crops, from the clip's frames (T, 3, H, W).

    Raises:
        ValueError: if the track reaches beyond the frames.
    """
    if track.stop > len(frames):
        raise ValueError(f"person {track.person} is seen up to frame {track.stop - 1}, got {len(frames)} frames; pass the frames that were searched")
    seen = frames[track.start : track.stop]
    return FaceClip(track, align(seen, track, track.start), around=surroundings(seen[:SURROUNDINGS_FRAMES], track, track.start))


def rows_of(track: FaceTrack, index: int, count: int) -> slice:
    """Rows of the track's tensors for frames index .. index + count - 1; ValueError for frames outside the track."""
    if index < track.start or index + count > track.stop:
        raise ValueError(
            f"person {track.person} is seen in frames {track.start} to {track.stop - 1}, got frames {index} to {index + count - 1}; "
            "pass frames of the track only"
        )
    return slice(index - track.start, index - track.start + count)


def check_size(frames: Tensor, track: FaceTrack) -> None:
    """Raises ValueError unless frames (n, 3, H, W) have the track's frame size."""
    if frames.ndim != 4 or tuple(frames.shape[-2:]) != tuple(track.frame_size):
        raise ValueError(
            f"person {track.person} was found in frames of (H, W) = {tuple(track.frame_size)}, got {tuple(frames.shape)}; "
            "pass the frames that were searched"
        )
