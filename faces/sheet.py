"""A picture of everybody in a clip, to choose from."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from .align import warp_to
from .selection import size
from .types import CROP, FaceTrack

LABEL = 220
GAP = 6
SHADE = 30


class Thumbnails:
    """Sample crops of each track, spread evenly over its detected frames, collected while frames stream by.

    samples: crops per person. side: of a crop, in pixels. Holds samples x people crops, whatever the length of the clip.
    """

    def __init__(self, tracks: Sequence[FaceTrack], samples: int = 6, side: int = 128) -> None:
        self.tracks = list(tracks)
        self.samples = samples
        self.side = side
        self.wanted = {track.person: spread(track, samples) for track in tracks}
        self.crops: dict[int, list[Tensor]] = {track.person: [] for track in tracks}

    def push(self, index: int, frames: Tensor) -> None:
        """Takes frames (n, 3, H, W) that begin at `index`; each frame once, in order."""
        zoom = self.side / CROP
        to_small = torch.tensor([[zoom], [zoom]], dtype=torch.float64)
        shift = 0.5 * zoom - 0.5
        for track in self.tracks:
            for frame in self.wanted[track.person]:
                if index <= frame < index + len(frames):
                    matrix = track.matrices[frame - track.start].double() * to_small
                    matrix[:, 2] += shift
                    self.crops[track.person].append(warp_to(frames[frame - index][None], matrix[None], self.side)[0].cpu())


def spread(track: FaceTrack, samples: int) -> list[int]:
    """Up to `samples` absolute indices of detected frames, evenly spread, first and last included."""
    seen = torch.nonzero(track.detected)[:, 0]
    picks = torch.linspace(0, len(seen) - 1, min(samples, len(seen))).round().long()
    return [track.start + int(i) for i in seen[picks].unique()]


def contact_sheet(tracks: Sequence[FaceTrack], thumbnails: Thumbnails) -> Tensor:
    """One row per person, id 0 first: id, frames and size beside the sample crops.

    Returns (3, H, W) float32 in [0, 1]; a dark picture that says so if there is nobody.
    """
    side, samples = thumbnails.side, thumbnails.samples
    width = LABEL + samples * (side + GAP) + GAP
    if not tracks:
        sheet = np.full((side, width, 3), SHADE, np.uint8)
        write(sheet, ["no faces found"], 0)
        return picture(sheet)
    sheet = np.full((len(tracks) * (side + GAP) + GAP, width, 3), SHADE, np.uint8)
    for row, track in enumerate(sorted(tracks, key=lambda t: t.person)):
        top = GAP + row * (side + GAP)
        filled = int((~track.detected).sum())
        lines = [f"{track.person}", f"frames {track.start}-{track.stop - 1}", f"{len(track)} long, {filled} filled", f"face {size(track):.0f} px"]
        write(sheet, lines, top)
        for column, crop in enumerate(thumbnails.crops.get(track.person, [])[:samples]):
            left = LABEL + column * (side + GAP)
            sheet[top : top + side, left : left + side] = crop.permute(1, 2, 0).mul(255).round().byte().numpy()
    return picture(sheet)


def picture(sheet: np.ndarray) -> Tensor:
    """8 bit (H, W, 3) as (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(sheet).permute(2, 0, 1).float() / 255


def write(sheet: np.ndarray, lines: list[str], top: int) -> None:
    """Lines of text at the left edge, the first one large."""
    y = top
    for number, line in enumerate(lines):
        large = number == 0 and line.isdecimal()
        y += 42 if large else 22
        cv2.putText(sheet, line, (12, y), cv2.FONT_HERSHEY_SIMPLEX, 1.2 if large else 0.5, (255, 255, 255), 2 if large else 1, cv2.LINE_AA)
