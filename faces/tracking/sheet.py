"""Contact sheet of the people in a clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ...plots import blank, draw_text, page_to_tensor
from ...plurals import counted
from ..align import warp_crops
from ..types import CROP, FaceTrack
from .report import group_by_person, person_report

SIDE = 128
"""Side of a sample crop, in pixels."""
LABEL = 220
GAP = 6
SHADE = 30


class Thumbnails:
    """Collects sample crops of each person from streamed frames, evenly spread over the detections of all tracks.

    samples: crops per person. Memory is samples x people crops, independent of clip length.
    """

    def __init__(self, tracks: Sequence[FaceTrack], samples: int = 6) -> None:
        self.tracks = list(tracks)
        self.samples = samples
        people = {some[0].person: some for some in group_by_person(tracks)}
        self.wanted = {person: sample_frames(some, samples) for person, some in people.items()}
        self.best = {person: self.wanted[person].index(sharpest_frame(some)) for person, some in people.items() if self.wanted[person]}
        self.crops: dict[int, list[Tensor]] = {track.person: [] for track in tracks}

    def push(self, index: int, frames: Tensor) -> None:
        """Takes frames (n, 3, H, W), the first of which has this index; each frame once, in order."""
        zoom = SIDE / CROP
        shift = 0.5 * zoom - 0.5
        for track in self.tracks:
            for frame in self.wanted[track.person]:
                if index <= frame < index + len(frames) and track.start <= frame < track.stop:
                    matrix = track.matrices[frame - track.start].double() * zoom
                    matrix[:, 2] += shift
                    self.crops[track.person].append(warp_crops(frames[frame - index][None], matrix[None], SIDE)[0].cpu())


def sample_frames(tracks: Sequence[FaceTrack], samples: int) -> list[int]:
    """Up to `samples` frame indices of one person's detections: evenly spread, including the first, the last and the sharpest."""
    seen = torch.cat([track.start + torch.nonzero(track.detected)[:, 0] for track in tracks])
    if not len(seen):
        return []
    picks = seen[torch.linspace(0, len(seen) - 1, min(samples, len(seen))).round().long()].unique().tolist()
    best = sharpest_frame(tracks)
    if best not in picks:
        picks[min(range(len(picks)), key=lambda k: abs(picks[k] - best))] = best
    return sorted(picks)


def sharpest_frame(tracks: Sequence[FaceTrack]) -> int:
    """Frame index of one person's sharpest detection."""
    _, frame = max(
        (float(value), -(track.start + k))
        for track in tracks
        for k, value in enumerate(torch.where(track.detected, track.sharpness, torch.tensor(-1.0)).tolist())
    )
    return -frame


def contact_sheet(tracks: Sequence[FaceTrack], thumbnails: Thumbnails, time_of: Callable[[int], str] = str) -> Tensor:
    """One row per person, ordered by id: id, frames, first time, size and marks beside the sample crops; the sharpest has a frame.

    time_of: formats a frame index.

    Returns (3, H, W) float32 in [0, 1]; without tracks a dark image with a note.
    """
    width = LABEL + thumbnails.samples * (SIDE + GAP) + GAP
    if not tracks:
        sheet = blank(SIDE, width, SHADE)
        draw_label(sheet, ["no faces found"], 0)
        return page_to_tensor(sheet)
    people = group_by_person(tracks)
    sheet = blank(len(people) * (SIDE + GAP) + GAP, width, SHADE)
    for row, some in enumerate(people):
        top = GAP + row * (SIDE + GAP)
        p = person_report(some, ())
        frames = counted(p.frames, "frame") + (f" in {p.tracks} parts" if p.tracks > 1 else "")
        lines = [f"{p.person}", frames, f"from {time_of(p.start)}", " ".join([f"{p.size:.0f} px", *p.marks])]
        draw_label(sheet, lines, top)
        for column, crop in enumerate(thumbnails.crops.get(p.person, [])):
            left = LABEL + column * (SIDE + GAP)
            if len(thumbnails.wanted[p.person]) > 1 and column == thumbnails.best[p.person]:
                sheet[top - 2 : top + SIDE + 2, left - 2 : left + SIDE + 2] = 255
            sheet[top : top + SIDE, left : left + SIDE] = crop.permute(1, 2, 0).mul(255).round().byte().numpy()
    return page_to_tensor(sheet)


def draw_label(sheet: np.ndarray, lines: list[str], top: int) -> None:
    """Lines of text at the left edge; a number in the first line is drawn large."""
    y = top
    for number, line in enumerate(lines):
        large = number == 0 and line.isdecimal()
        y += 42 if large else 22
        draw_text(sheet, line, (12, y), (255, 255, 255), 1.2 if large else 0.5, 2 if large else 1)
