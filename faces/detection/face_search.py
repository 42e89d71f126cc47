"""Finds faces in one frame: BlazeFace proposes them, FaceMesh fits a mesh to each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..geometry import iou, side
from ..types import Face
from .mesh_points import face_box, five_points, pose, roll_of
from .mesh_tracking import CROP_MARGIN, MeshEstimator, Region, crop, region_of
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
MAX_REFINEMENTS = 5
"""Largest number of FaceMesh passes per face and frame."""
SAME_FACE_IOU = 0.3
"""IoU from which a candidate is a face that is already tracked."""
AGREED = 0.8
"""BlazeFace score that confirms a face of low FaceMesh score: blurred faces have 0.83 to 0.9, smileys up to 0.63, dolls and painted blobs up to
0.78."""
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


class FaceSearch:
    """BlazeFace and FaceMesh on single frames (3, H, W) in [0, 1]; `rotate` as in `BlazeFaceDetector`."""

    def __init__(self, device: str | torch.device = "cpu", rotate: str = "auto") -> None:
        if rotate not in ROTATE:
            raise ValueError(f"rotate is {' or '.join(ROTATE)}, got {rotate!r}")
        self.pyramid = BlazeFacePyramid(device)
        self.mesh_estimator = MeshEstimator(device)
        self.rotate = rotate

    def find(
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


def drop_overlapping(placed: Sequence[MeshFace]) -> list[MeshFace]:
    """Non-maximum suppression in the given order."""
    kept: list[MeshFace] = []
    for one in placed:
        if not overlaps_any([other.box for other in kept], one.box):
            kept.append(one)
    return kept
