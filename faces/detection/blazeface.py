"""The bundled detector, and its tracker for consecutive frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from ..types import Face
from .exposure import colour_cast, exposed, exposure, grey
from .face_search import AGREED, CERTAIN_SCORE, QUARTER_TURNS, Area, FaceSearch, MeshFace, drop_overlapping
from .mesh_points import roll_of
from .mesh_tracking import Region, region_of, track_by_flow

FAST_MOTION = 0.1
"""Motion since the previous frame, relative to the region's side, beyond which FaceMesh is run again on the moved region."""
SCENE_CHANGE = 0.06
"""Mean thumbnail difference from which a frame is searched anew, as after a cut."""
CELL_CHANGE = 0.04
"""Difference of 2 x 2 thumbnail cells since the last search from which a new face may be there."""
CELLS = (32, 18)
"""Width and height of thumbnails."""
SMALL_AREA, MOST_AREAS = 0.3, 3
"""Total area, as a fraction of the frame, up to which changed areas are searched finely at once, and their largest number; more are merged."""
LOST_FRAMES = 32
"""Frames during which a lost face is searched for around its last position."""
AGREED_IN_DARK = 0.72
"""AGREED in dark frames, whose faces have 0.72 to 0.76."""
HYSTERESIS = 0.1
"""Hysteresis: how much lower a score keeps a confirmed face."""


class BlazeFaceDetector:
    """Detects faces with BlazeFace and FaceMesh. Calls treat frames independently; `follow` gives a tracker for consecutive frames.

    Args:
        rotate: "auto" also searches frames in quarter turns for lying and upside-down faces, in new scenes and where no face is certain, and
            rotates new candidates beside known faces; "off" does not, and finds fewer of them.
    """

    name = "blazeface"

    def __init__(self, *, device: str | torch.device = "cpu", rotate: str = "auto") -> None:
        self.search, self.rotate = FaceSearch(device, rotate), rotate

    def __call__(self, frames: Tensor) -> list[list[Face]]:
        return [self.follow()(frame[None])[0] for frame in frames]

    def follow(self) -> BlazeFaceTracker:
        """A tracker for the consecutive frames of one clip."""
        return BlazeFaceTracker(self.search)


class BlazeFaceTracker:
    """Detects and tracks the faces of one clip, frames pushed in order.

    FaceMesh updates each face in every other frame, optical flow where possible in between. BlazeFace searches coarsely where no face is known, and
    every SEARCH_EVERY frames while anything changes outside the known faces, finely if that is a SMALL_AREA; finely every FINE_EVERY frames, after a
    change of scene, and when a face is lost, which is then searched for locally for LOST_FRAMES frames. Independent of chunking.
    """

    SEARCH_EVERY = 4
    FINE_EVERY = 16

    name = "blazeface"

    def __init__(self, search: FaceSearch) -> None:
        self.search = search
        self.live: list[MeshFace] = []
        self.small: np.ndarray | None = None
        self.searched: np.ndarray | None = None
        self.last: np.ndarray | None = None
        self.faces: list[Face] = []
        self.count = 0
        self.lost_faces: list[LostFace] = []
        self.least = AGREED
        """BlazeFace score that confirms a doubtful face in this frame."""
        self.turn_due = 0
        """Frame from which a new scene is searched for rotated faces again."""

    def __call__(self, frames: Tensor) -> list[list[Face]]:
        found = [self.step(frame) for frame in frames]
        self.last = None if self.last is None else self.last.copy()  # a view would keep the whole chunk alive
        return found

    @property
    def memory(self) -> dict[str, Any]:
        """The whole state, with which another tracker continues as this one would."""
        return {name: value for name, value in vars(self).items() if name != "search"}

    @memory.setter
    def memory(self, known: Mapping[str, Any]) -> None:
        vars(self).update(known)

    def step(self, frame: Tensor) -> list[Face]:
        """Faces in the next frame (3, H, W), best first."""
        picture = np.ascontiguousarray(frame.detach().float().cpu())
        small = thumbnail(picture)
        before, last = self.small, self.last
        self.small, self.last = small, picture
        repeated = before is not None and last is not None and np.array_equal(small, before) and np.array_equal(picture, last)
        weights = colour_cast(small)
        gain = exposure(small if weights is None else grey(small, weights))
        picture = exposed(picture, gain, weights)
        if repeated:
            return self.repeat(picture)
        last = None if last is None else exposed(last, gain, weights)
        self.least = AGREED if gain == 1 else AGREED_IN_DARK
        changed = before is None or float(np.abs(small - before).mean()) > SCENE_CHANGE
        known = [] if changed else self.live
        self.lost_faces = [] if changed else self.lost_faces
        seen = [self.propagate(last, picture, placed, [other for other in known if other is not placed]) for placed in known]
        live = drop_overlapping([placed for placed in seen if placed is not None])
        lost = [placed for placed, now in zip(known, seen, strict=True) if not any(now is one for one in live)]
        fine = changed or len(live) < len(known) or self.count % self.FINE_EVERY == 0
        areas = self.changed_areas(live, picture.shape[1:]) if live and not fine and self.count % self.SEARCH_EVERY == 0 else []
        new = self.new_faces(picture, live, fine, areas) if fine or not live or areas else []
        live += [*new, *self.reappeared(picture, lost, live, new)]
        if fine and self.search.rotate == "auto":
            live = self.add_rotated(picture, live, thorough=changed and self.count >= self.turn_due)
        self.count += 1
        return self.keep(live)

    def resolve_doubt(self, picture: np.ndarray, placed: MeshFace) -> MeshFace | None:
        """A doubtful face with BlazeFace's score, renewed every SEARCH_EVERY frames; None if neither network confirms it."""
        if placed.score >= CERTAIN_SCORE:
            return placed
        if placed.agreed is None or self.count % self.SEARCH_EVERY == 0:
            score = self.search.reduced_score(picture, placed)
            placed = replace(placed, agreed=score if score >= self.least - (HYSTERESIS if placed.agreed else 0) else 0.0)
        return placed if placed.score > 0.5 or placed.agreed else None

    def keep(self, live: list[MeshFace]) -> list[Face]:
        """Stores the meshes of a frame and returns its faces, best first."""
        self.live = live
        self.faces = [placed.face() for placed in sorted(live, key=lambda p: -p.score)]
        return list(self.faces)

    def repeat(self, picture: np.ndarray) -> list[Face]:
        """Faces of a repeated frame: the same, and those in changed areas whose search was not yet due."""
        areas = self.changed_areas(self.live, picture.shape[1:]) if self.live else []
        return self.keep(self.live + self.new_faces(picture, self.live, False, areas)) if areas else list(self.faces)

    def new_faces(self, picture: np.ndarray, live: Sequence[MeshFace], fine: bool, areas: Sequence[Area]) -> list[MeshFace]:
        """New faces in a frame, and the small ones in changed areas of up to SMALL_AREA in total."""
        self.searched = self.small
        found = self.search.find(picture, live, fine)
        left = SMALL_AREA * picture[0].size
        for area in areas:
            left -= (area[2] - area[0]) * (area[3] - area[1])
            if left >= 0:
                found += self.search.find(picture, [*live, *found], True, area=area)
        return [placed for one in found if (placed := self.resolve_doubt(picture, one)) is not None]

    def reappeared(self, picture: np.ndarray, lost: Sequence[MeshFace], live: Sequence[MeshFace], new: Sequence[MeshFace]) -> list[MeshFace]:
        """Lost faces that reappear: searched for around their last position in every other frame, if anything moved there since.

        lost: faces of the previous frame that were not tracked to this one. live, new: faces of this one that were, and those newly found.
        """
        assert self.small is not None
        size = picture.shape[1:]
        inside = [placed for placed in lost if 0 < float(placed.box[::2].mean()) < size[1] and 0 < float(placed.box[1::2].mean()) < size[0]]
        regions = [region_of(placed.mesh, roll_of(placed.mesh)) for placed in inside]
        lost_faces = [*self.lost_faces, *(LostFace(region, self.count + LOST_FRAMES, self.small) for region in regions)]
        found: list[MeshFace] = []
        self.lost_faces = []
        for one in lost_faces:
            if any(one.holds(placed) for placed in new):
                continue
            if self.count % 2 and one.moved(self.small, size):
                face = self.search.search_around(picture, one.region, [*live, *new, *found])
                one = replace(one, small=self.small)
                if face is not None:
                    found.append(face)
                    continue
            if self.count < one.until:
                self.lost_faces.append(one)
        return found

    def add_rotated(self, picture: np.ndarray, live: list[MeshFace], thorough: bool) -> list[MeshFace]:
        """The faces, with rotated ones: searched for where a face is uncertain, and in the quarter turns of known rotated faces; if `thorough`,
        coarsely in all quarter turns."""
        certain = [placed for placed in live if placed.score >= CERTAIN_SCORE]
        known = {round(roll_of(placed.mesh) / (math.pi / 2)) % 4 for placed in certain}
        quarters = [q for q in QUARTER_TURNS[1:] if q in known or len(certain) < len(live) or not live]
        if not quarters and not thorough:
            return live
        self.turn_due = self.count + self.FINE_EVERY
        uncertain = [
            *self.search.find(picture, certain, bool(quarters), QUARTER_TURNS[1:] if thorough else quarters),
            *(placed for placed in live if placed.score < CERTAIN_SCORE),
        ]
        left = drop_overlapping([*certain, *sorted(uncertain, key=lambda placed: -placed.score)])
        return [placed for one in left if (placed := self.resolve_doubt(picture, one) if one.agreed is None else one) is not None]

    def propagate(self, before: np.ndarray | None, picture: np.ndarray, placed: MeshFace, others: Sequence[MeshFace]) -> MeshFace | None:
        """A face of the previous frame in this one, None if lost; `others` are the previous frame's other faces."""
        if before is not None and not placed.by_flow and (mesh := track_by_flow(before, picture, placed.mesh)) is not None:
            return self.resolve_doubt(picture, MeshFace(mesh, placed.score, by_flow=True, agreed=placed.agreed))
        region = region_of(placed.mesh, roll_of(placed.mesh))
        now = self.search.refine(picture, region, tolerance=FAST_MOTION, seen=True)
        if placed.score >= CERTAIN_SCORE and (now is None or now.score < CERTAIN_SCORE):
            now = self.search.search_around(picture, region, others) or now
        return None if now is None else self.resolve_doubt(picture, replace(now, agreed=placed.agreed))

    def changed_areas(self, live: Sequence[MeshFace], size: tuple[int, ...]) -> list[Area]:
        """Up to MOST_AREAS areas outside the known faces that changed since the last search, padded by a cell, smallest first."""
        if self.searched is None or self.small is None:
            return [(0, 0, size[1], size[0])]
        cells = (CELLS[0] // 2, CELLS[1] // 2)
        change = cv2.resize((self.small - self.searched).transpose(1, 2, 0), cells, interpolation=cv2.INTER_AREA)
        moved = np.abs(change).mean(2) > CELL_CHANGE
        for placed in live:
            box = placed.box.reshape(2, 2).double().numpy()
            box = (box + np.array([[-0.25], [0.25]]) * (box[1] - box[0])) * np.array(cells) / np.array(size[::-1])  # with hair and neck
            (x0, y0), (x1, y1) = np.floor(box[0]).clip(0).astype(int), np.ceil(box[1]).clip(0).astype(int)
            moved[y0:y1, x0:x1] = False
        if not moved.any():
            return []
        count, labels = cv2.connectedComponents(cv2.dilate(moved.astype(np.uint8), np.ones((3, 3), np.uint8)))
        parts = [labels == k for k in range(1, count)] if count <= MOST_AREAS + 1 else [labels > 0]
        width, height = size[1] / cells[0], size[0] / cells[1]
        areas = []
        for part in parts:
            rows, columns = np.nonzero(part)
            areas.append((int(columns.min() * width), int(rows.min() * height), int((columns.max() + 1) * width), int((rows.max() + 1) * height)))
        return sorted(areas, key=lambda area: ((area[2] - area[0]) * (area[3] - area[1]), area))


@dataclass(frozen=True)
class LostFace:
    """A lost face: its last region, the frame until which it is searched for, and the thumbnail (3, h, w) of the last search."""

    region: Region
    until: int
    small: np.ndarray

    def holds(self, placed: MeshFace) -> bool:
        """Whether a face lies within one side of the region's centre, and may be the lost one."""
        x, y = placed.box.reshape(2, 2).mean(0).tolist()
        return max(abs(x - self.region.x), abs(y - self.region.y)) < self.region.side

    def moved(self, small: np.ndarray, size: tuple[int, ...]) -> bool:
        """Whether anything changed around the region since, in frames of this size (H, W)."""
        x0, x1 = (int((self.region.x + side * self.region.side) * CELLS[0] / size[1]) for side in (-1, 1))
        y0, y1 = (int((self.region.y + side * self.region.side) * CELLS[1] / size[0]) for side in (-1, 1))
        change = np.abs(small - self.small).mean(0)[max(y0, 0) : max(y1, 0) + 1, max(x0, 0) : max(x1, 0) + 1]
        return bool((change > CELL_CHANGE).any())


def thumbnail(picture: np.ndarray) -> np.ndarray:
    """Thumbnail (3, h, w) of an image (3, H, W), subsampled before averaging."""
    step = max(1, min(picture.shape[1] // (8 * CELLS[1]), picture.shape[2] // (8 * CELLS[0])))
    return np.stack([cv2.resize(np.ascontiguousarray(plane[::step, ::step]), CELLS, interpolation=cv2.INTER_AREA) for plane in picture])
