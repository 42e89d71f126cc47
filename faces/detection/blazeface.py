"""The bundled detector: BlazeFace proposes faces, FaceMesh fits a mesh to each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from ..geometry import iou, side
from ..types import Face
from .exposure import colour_cast, exposed, exposure, grey
from .mesh_points import face_box, five_points, pose, roll_of
from .mesh_tracking import CROP_MARGIN, MeshEstimator, Region, crop, region_of, track_by_flow
from .pyramid import DOUBTFUL_SCORE, MIN_BOX, MIN_FACE, SCORE, BlazeFacePyramid, Candidate

MOST_DOUBTFUL = 3
"""Candidates below SCORE that FaceMesh may reject before a search stops. Small faces score 0.2 to 0.3 in some frames, and high with FaceMesh; frames
without faces have one such candidate in two searches, blurred ones dozens."""
CROWD_ZOOM = 1.5
"""Extra scale of a second search where a face is less than this many times larger than the smallest detectable one."""
ROTATE = ("auto", "off")
QUARTER_TURNS = (0, 2, 1, 3)
"""Counterclockwise quarter turns of the image, in the order in which they are tried."""
LOGIT_TEMPERATURE = 4.0
"""FaceMesh's presence logit is divided by it to give the score: faces reach 18 to 60 on our clips, other things stay below -5."""
LEAST_LOGIT = -5.0
"""Least presence logit at which a mesh may be right: faces blurred by 6 % have -1 to -5, with outlines 2 to 9 % off; other things mostly -7 or
less."""
BLAZEFACE_SURE = 0.6
"""BlazeFace score from which a candidate that FaceMesh rejects is kept as doubtful (see `resolve_doubt`)."""
CERTAIN_SCORE = 0.94
"""Score below which a face may be rotated: FaceMesh scores up to 0.8 on upside-down crops."""
SEARCH_SIDE = 32.0
"""Side of the lost face in pixels of BlazeFace's input when it is searched for locally."""
FAST_MOTION = 0.1
"""Motion since the previous frame, relative to the region's side, beyond which FaceMesh is run again on the moved region."""
MAX_REFINEMENTS = 5
"""Largest number of FaceMesh passes per face and frame."""
SAME_FACE_IOU = 0.3
"""IoU from which a candidate is a face that is already tracked."""
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
AGREED, AGREED_IN_DARK = 0.8, 0.72
"""BlazeFace score that confirms a face of low FaceMesh score: blurred faces have 0.83 to 0.9, dark ones 0.72 to 0.76, smileys up to 0.63, dolls and
painted blobs up to 0.78."""
HYSTERESIS = 0.1
"""Hysteresis: how much lower a score keeps a confirmed face."""
REDUCED_SIDE = 128
"""Side of the downscaled crop in which BlazeFace checks a doubtful face, which fills a third of it: downscaling removes blur and noise."""
Area = tuple[int, int, int, int]
"""x0, y0, x1, y1 in frame pixels."""


@dataclass(frozen=True)
class MeshFace:
    """A mesh (468, 3) in frame pixels with its score in [0, 1]."""

    mesh: Tensor
    score: float
    by_flow: bool = False
    """Whether optical flow propagated it from the previous frame, without FaceMesh."""
    agreed: float | None = None
    """BlazeFace score that confirmed a doubtful mesh, 0 if it did not; None if not yet checked."""

    @cached_property
    def box(self) -> Tensor:
        """See `face_box`."""
        return face_box(self.mesh)

    def face(self) -> Face:
        """As a `Face`, with five landmarks and pose."""
        agreed = (self.agreed or 0.0) if self.score < CERTAIN_SCORE else 0.0
        return Face(self.box, five_points(self.mesh), max(self.score, min(agreed, AGREED)), pose=pose(self.mesh), mesh=self.mesh, agreed=agreed > 0)


class BlazeFaceDetector:
    """Detects faces with BlazeFace and FaceMesh. Calls treat frames independently; `follow` gives a tracker for consecutive frames.

    Args:
        rotate: "auto" also searches frames in quarter turns for lying and upside-down faces, in new scenes and where no face is certain, and
            rotates new candidates beside known faces; "off" does not, and finds fewer of them.
    """

    name = "blazeface"

    def __init__(self, *, device: str | torch.device = "cpu", rotate: str = "auto") -> None:
        if rotate not in ROTATE:
            raise ValueError(f"rotate is {' or '.join(ROTATE)}, got {rotate!r}")
        self.pyramid = BlazeFacePyramid(device)
        self.mesh_estimator = MeshEstimator(device)
        self.rotate = rotate

    def __call__(self, frames: Tensor) -> list[list[Face]]:
        return [self.follow()(frame[None])[0] for frame in frames]

    def follow(self) -> BlazeFaceTracker:
        """A tracker for the consecutive frames of one clip."""
        return BlazeFaceTracker(self)

    def search(
        self, picture: np.ndarray, known: Sequence[MeshFace], fine: bool, quarters: Sequence[int] = (0,), area: Area | None = None
    ) -> list[MeshFace]:
        """New faces, beside the known ones, in an image (3, H, W), or the smaller ones in an area of it."""
        if area is not None:
            scale = self.pyramid.finest(min(area[2] - area[0], area[3] - area[1]))
            return self.verify(picture, self.candidates_in(picture, area, scale, DOUBTFUL_SCORE), known, quarters)
        height, width = picture.shape[1:]
        least = DOUBTFUL_SCORE if fine and 0 in quarters else SCORE
        found = self.verify(picture, self.pyramid(picture, self.pyramid.levels(height, width, fine), quarters, least), known, quarters)
        scale = self.pyramid.finest(min(height, width))
        finer = min(scale * CROWD_ZOOM, MIN_BOX / MIN_FACE)
        if fine and 0 in quarters and finer > scale and any(float(side(p.box)) * scale < CROWD_ZOOM * MIN_BOX for p in (*known, *found)):
            found += self.verify(picture, self.pyramid(picture, [finer], quarters, least), [*known, *found], quarters)
        return found

    def verify(self, picture: np.ndarray, candidates: Sequence[Candidate], known: Sequence[MeshFace], quarters: Sequence[int]) -> list[MeshFace]:
        """The candidates, best first, that FaceMesh confirms and that are not among the known faces."""
        boxes = [placed.box for placed in known]
        found: list[MeshFace] = []
        doubtful = 0
        for candidate in candidates:
            alike = [math.cos(candidate.roll - roll_of(placed.mesh)) > 0.5 for placed in found]
            if overlaps_any([*boxes, *(p.box for p, same in zip(found, alike, strict=True) if same)], candidate.box):
                continue
            if candidate.score < SCORE and doubtful == MOST_DOUBTFUL:
                break
            region = replace(region_of(candidate.box.reshape(2, 2), 0.0), roll=candidate.roll)
            placed = self.refine(picture, region, seen=candidate.score >= BLAZEFACE_SURE, taken=boxes)
            if placed is None and known and self.rotate == "auto" and candidate.score >= SCORE and 0 in quarters:
                placed = self.refine_rotated(picture, region, boxes)
            if placed is not None and (candidate.score >= SCORE or placed.score >= CERTAIN_SCORE):
                found.append(placed)
            else:
                doubtful += candidate.score < SCORE
        return drop_overlapping([*known, *sorted(found, key=lambda placed: -placed.score)])[len(known) :]

    def candidates_in(self, picture: np.ndarray, area: Area, scale: float, least: float = SCORE) -> list[Candidate]:
        """BlazeFace's candidates in an area of an image (3, H, W)."""
        x0, y0, x1, y1 = max(area[0], 0), max(area[1], 0), max(area[2], 0), max(area[3], 0)
        if not picture[0, y0:y1, x0:x1].size:
            return []
        corner = torch.tensor([x0, y0, x0, y0])
        return [replace(found, box=found.box + corner) for found in self.pyramid(picture[:, y0:y1, x0:x1], [scale], least=least)]

    def search_around(self, picture: np.ndarray, region: Region, others: Sequence[MeshFace]) -> MeshFace | None:
        """The certain face, other than `others`, whose centre moved by at most the region's side; None if there is none."""
        reach = 1.5 * region.side
        area = (round(region.x - reach), round(region.y - reach), round(region.x + reach) + 1, round(region.y + reach) + 1)
        for candidate in self.candidates_in(picture, area, min(SEARCH_SIDE * CROP_MARGIN / region.side, 1.0)):
            if not overlaps_any([other.box for other in others], candidate.box):
                placed = self.refine(picture, replace(region_of(candidate.box.reshape(2, 2), 0.0), roll=candidate.roll))
                if placed is not None and placed.score >= CERTAIN_SCORE:
                    return placed
        return None

    def refine(
        self, picture: np.ndarray, region: Region, tolerance: float = 0.03, seen: bool = False, taken: Sequence[Tensor] = ()
    ) -> MeshFace | None:
        """The face in a region: FaceMesh is run on the region of its own mesh until that converges (`Region.matches`); None if there is none.

        seen: also accept scores below 0.5, for faces that another network may confirm. taken: boxes of other faces.
        """
        for _ in range(MAX_REFINEMENTS):
            placed = self.look(picture, region)
            if placed is None or (placed.score <= 0.5 and not seen) or overlaps_any(taken, placed.box):
                return None
            before, region = region, region_of(placed.mesh, roll_of(placed.mesh))
            if region.matches(before, tolerance):
                break
        return placed

    def refine_rotated(self, picture: np.ndarray, region: Region, taken: Sequence[Tensor]) -> MeshFace | None:
        """The certain face in a region in one of the other three quarter turns; see `refine`."""
        for quarter in QUARTER_TURNS[1:]:
            placed = self.refine(picture, replace(region, roll=region.roll + quarter * math.pi / 2), taken=taken)
            if placed is not None and placed.score >= CERTAIN_SCORE:
                return placed
        return None

    def look(self, picture: np.ndarray, region: Region) -> MeshFace | None:
        """FaceMesh's mesh of a region; None if its presence logit is at most LEAST_LOGIT."""
        mesh, sure = self.mesh_estimator(picture, region)
        if sure <= LEAST_LOGIT or not bool(torch.isfinite(mesh).all()):
            return None
        return MeshFace(mesh, float(torch.sigmoid(torch.tensor(sure / LOGIT_TEMPERATURE))))

    def reduced_score(self, picture: np.ndarray, placed: MeshFace) -> float:
        """BlazeFace's best score in [0, 1] of a face in the crop around it, upright and downscaled so that the face has a third of REDUCED_SIDE,
        and five eighths of that; 0 where it finds none there."""
        region = region_of(placed.mesh, roll_of(placed.mesh))
        piece = crop(picture, replace(region, side=region.side * 3 / CROP_MARGIN), REDUCED_SIDE).transpose(2, 0, 1)
        box = torch.tensor([1.0, 1.0, 2.0, 2.0]) * (REDUCED_SIDE / 3)
        found = (candidate for scale in (1.0, 0.625) for candidate in self.pyramid.at(piece, scale))
        return max((candidate.score for candidate in found if overlaps_any([box], candidate.box)), default=0.0)


def overlaps_any(boxes: Sequence[Tensor], box: Tensor) -> bool:
    """Whether one of the boxes (4,) overlaps `box` (IoU of at least SAME_FACE_IOU)."""
    return bool(boxes) and float(iou(torch.stack(list(boxes)).float(), box[None].float()).max()) >= SAME_FACE_IOU


class BlazeFaceTracker:
    """Detects and tracks the faces of one clip, frames pushed in order.

    FaceMesh updates each face in every other frame, optical flow where possible in between. BlazeFace searches coarsely where no face is known, and
    every SEARCH_EVERY frames while anything changes outside the known faces, finely if that is a SMALL_AREA; finely every FINE_EVERY frames, after a
    change of scene, and when a face is lost, which is then searched for locally for LOST_FRAMES frames. Independent of chunking.
    """

    SEARCH_EVERY = 4
    FINE_EVERY = 16

    def __init__(self, detector: BlazeFaceDetector) -> None:
        self.detector, self.name = detector, detector.name
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
        return {name: value for name, value in vars(self).items() if name != "detector"}

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
        new = self.search(picture, live, fine, areas) if fine or not live or areas else []
        live += [*new, *self.reappeared(picture, lost, live, new)]
        if fine and self.detector.rotate == "auto":
            live = self.add_rotated(picture, live, thorough=changed and self.count >= self.turn_due)
        self.count += 1
        return self.keep(live)

    def resolve_doubt(self, picture: np.ndarray, placed: MeshFace) -> MeshFace | None:
        """A doubtful face with BlazeFace's score, renewed every SEARCH_EVERY frames; None if neither network confirms it."""
        if placed.score >= CERTAIN_SCORE:
            return placed
        if placed.agreed is None or self.count % self.SEARCH_EVERY == 0:
            score = self.detector.reduced_score(picture, placed)
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
        return self.keep(self.live + self.search(picture, self.live, False, areas)) if areas else list(self.faces)

    def search(self, picture: np.ndarray, live: Sequence[MeshFace], fine: bool, areas: Sequence[Area]) -> list[MeshFace]:
        """New faces in a frame, and the small ones in changed areas of up to SMALL_AREA in total."""
        self.searched = self.small
        found = self.detector.search(picture, live, fine)
        left = SMALL_AREA * picture[0].size
        for area in areas:
            left -= (area[2] - area[0]) * (area[3] - area[1])
            if left >= 0:
                found += self.detector.search(picture, [*live, *found], True, area=area)
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
                face = self.detector.search_around(picture, one.region, [*live, *new, *found])
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
            *self.detector.search(picture, certain, bool(quarters), QUARTER_TURNS[1:] if thorough else quarters),
            *(placed for placed in live if placed.score < CERTAIN_SCORE),
        ]
        left = drop_overlapping([*certain, *sorted(uncertain, key=lambda placed: -placed.score)])
        return [placed for one in left if (placed := self.resolve_doubt(picture, one) if one.agreed is None else one) is not None]

    def propagate(self, before: np.ndarray | None, picture: np.ndarray, placed: MeshFace, others: Sequence[MeshFace]) -> MeshFace | None:
        """A face of the previous frame in this one, None if lost; `others` are the previous frame's other faces."""
        if before is not None and not placed.by_flow and (mesh := track_by_flow(before, picture, placed.mesh)) is not None:
            return self.resolve_doubt(picture, MeshFace(mesh, placed.score, by_flow=True, agreed=placed.agreed))
        region = region_of(placed.mesh, roll_of(placed.mesh))
        now = self.detector.refine(picture, region, tolerance=FAST_MOTION, seen=True)
        if placed.score >= CERTAIN_SCORE and (now is None or now.score < CERTAIN_SCORE):
            now = self.detector.search_around(picture, region, others) or now
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


def drop_overlapping(placed: Sequence[MeshFace]) -> list[MeshFace]:
    """Non-maximum suppression in the given order."""
    kept: list[MeshFace] = []
    for one in placed:
        if not overlaps_any([other.box for other in kept], one.box):
            kept.append(one)
    return kept
