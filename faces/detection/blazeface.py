"""BlazeFace finds faces, FaceMesh places them: the package's own detector, which downloads nothing."""

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
from .mesh_points import face_box, five_points, pose, roll_of
from .mesh_tracking import CROP_MARGIN, Mesher, Region, crop, region_of, track_by_flow
from .pyramid import DOUBTFUL_SCORE, MIN_BOX, MIN_FACE, SCORE, Candidate, Searcher

MOST_DOUBTFUL = 3
"""Candidates below SCORE that FaceMesh refuses before a search is over: small faces have 0.2 to 0.3 in some frames, and FaceMesh is certain of them;
there is one in two searches where there is no face, and dozens where all is blurred."""
CROWD_ZOOM = 1.5
"""How much more finely a frame is searched that shows somebody hardly larger than the smallest face that was searched for, and by how much."""
ROTATE = ("auto", "off")
QUARTER_TURNS = (0, 2, 1, 3)
"""Quarter turns of the picture, counterclockwise, in the order in which they are tried."""
LOGIT_TEMPERATURE = 4.0
"""Logits of FaceMesh's presence per logit of a face's score: faces reach 18 to 60 on our clips, what is none lies below -5."""
LEAST_LOGIT = -5.0
"""FaceMesh's presence down to which its mesh may be right: faces blurred by 6 % have -1 to -5, and their outlines are 2 to 9 % off; what is none has
-7 and less, mostly."""
SEEN = 0.6
"""BlazeFace's score of a candidate from which on it is asked of one that FaceMesh does not see."""
CERTAIN_SCORE = 0.94
"""Score below which a face may be one that lies or stands on its head: FaceMesh gives up to 0.8 to faces that it looks at upside down."""
AROUND = 32.0
"""Side of a face, in pixels of BlazeFace's input, that is looked for around where it was."""
FAST = 0.1
"""Share of its region by which a face must have moved since the frame before to be looked at again where it is now."""
MAX_LOOKS = 5
"""Passes of FaceMesh over a new face, at most."""
SAME_FACE_IOU = 0.3
"""Overlap (IoU) from which on a candidate is a face that is followed already."""
SCENE_CHANGE = 0.06
"""Mean change of a thumbnail from which on a frame is searched anew, as after a cut."""
CELL_CHANGE = 0.04
"""Change of four cells of a thumbnail since the last search from which on somebody may have come into view there."""
CELLS = (32, 18)
"""Width and height of thumbnails."""
SMALL_AREA, MOST_AREAS = 0.3, 3
"""Share of the frame up to which areas that changed are searched finely at once, and how many; more are taken as one."""
WATCH = 32
"""Frames for which a face that was lost is looked for around its place."""
AGREED, AGREED_IN_DARK = 0.8, 0.72
"""BlazeFace score from which on it sees the face that FaceMesh is in doubt of: blurred ones have 0.83 to 0.9, dark ones 0.72 to 0.76, smileys up to
0.63, dolls and painted blobs up to 0.78."""
LOYALTY = 0.1
"""How much less is enough for a face of which it was so before."""
REDUCED_SIDE = 128
"""Side of the reduced picture in which BlazeFace looks for such a face, which fills a third of it: there neither blur nor noise is left."""
DARK, MAX_GAIN = 0.4, 8.0
"""Brightness up to which the light parts of a frame are raised for the search, and by how much at most."""
CAST, RED_CAST = 1.6, 6.0
"""How many times as light as red green or blue is over a frame, and red as the weaker of them, from which on the frame is searched in grey: FaceMesh
sees no face in green, cyan or blue light, and every one once the colours are gone."""
Area = tuple[int, int, int, int]
"""x0, y0, x1, y1 in frame pixels."""


@dataclass(frozen=True)
class Placed:
    """A mesh (468, 3) in frame pixels with its score in [0, 1]."""

    mesh: Tensor
    score: float
    by_flow: bool = False
    """Whether optical flow carried it on from the frame before, and FaceMesh has not looked."""
    agreed: float | None = None
    """BlazeFace's score of it where FaceMesh was in doubt, 0 where that is too low; None before it was asked."""

    @cached_property
    def box(self) -> Tensor:
        """See `face_box`."""
        return face_box(self.mesh)

    def face(self) -> Face:
        """What the other rooms see of it."""
        agreed = (self.agreed or 0.0) if self.score < CERTAIN_SCORE else 0.0
        return Face(self.box, five_points(self.mesh), max(self.score, min(agreed, AGREED)), pose=pose(self.mesh), mesh=self.mesh, agreed=agreed > 0)


class BlazeFaceDetector:
    """Faces by BlazeFace and FaceMesh. Calling it treats each frame alone; `follow` gives one that remembers where faces were.

    Args:
        rotate: "auto" also searches frames turned by quarters, in new scenes and where no face is certain, for those that lie or stand on their
            heads, and turns what comes into view beside known faces; "off" does not, and finds fewer of them.
    """

    name = "blazeface"

    def __init__(self, *, device: str | torch.device = "cpu", rotate: str = "auto") -> None:
        if rotate not in ROTATE:
            raise ValueError(f"rotate is {' or '.join(ROTATE)}, got {rotate!r}")
        self.searcher = Searcher(device)
        self.mesher = Mesher(device)
        self.rotate = rotate

    def __call__(self, frames: Tensor) -> list[list[Face]]:
        return [self.follow()(frame[None])[0] for frame in frames]

    def follow(self) -> Follower:
        """A detector for the frames of one clip in order, which searches some and follows faces through the others."""
        return Follower(self)

    def search(
        self, picture: np.ndarray, known: Sequence[Placed], fine: bool, quarters: Sequence[int] = (0,), area: Area | None = None
    ) -> list[Placed]:
        """Faces in a picture (3, H, W), or the smaller ones in an area of it, that are not among the known ones."""
        if area is not None:
            scale = self.searcher.finest(min(area[2] - area[0], area[3] - area[1]))
            return self.confirmed(picture, self.candidates_in(picture, area, scale, DOUBTFUL_SCORE), known, quarters)
        height, width = picture.shape[1:]
        least = DOUBTFUL_SCORE if fine and 0 in quarters else SCORE
        found = self.confirmed(picture, self.searcher(picture, self.searcher.levels(height, width, fine), quarters, least), known, quarters)
        scale = self.searcher.finest(min(height, width))
        finer = min(scale * CROWD_ZOOM, MIN_BOX / MIN_FACE)
        if fine and 0 in quarters and finer > scale and any(float(side(p.box)) * scale < CROWD_ZOOM * MIN_BOX for p in (*known, *found)):
            found += self.confirmed(picture, self.searcher(picture, [finer], quarters, least), [*known, *found], quarters)
        return found

    def confirmed(self, picture: np.ndarray, candidates: Sequence[Candidate], known: Sequence[Placed], quarters: Sequence[int]) -> list[Placed]:
        """The candidates, best first, that FaceMesh sees and that are not among the known faces."""
        boxes = [placed.box for placed in known]
        found: list[Placed] = []
        doubtful = 0
        for candidate in candidates:
            alike = [math.cos(candidate.roll - roll_of(placed.mesh)) > 0.5 for placed in found]
            if overlaps_any([*boxes, *(p.box for p, same in zip(found, alike, strict=True) if same)], candidate.box):
                continue
            if candidate.score < SCORE and doubtful == MOST_DOUBTFUL:
                break
            region = replace(region_of(candidate.box.reshape(2, 2), 0.0), roll=candidate.roll)
            placed = self.refine(picture, region, seen=candidate.score >= SEEN, taken=boxes)
            if placed is None and known and self.rotate == "auto" and candidate.score >= SCORE and 0 in quarters:
                placed = self.turned(picture, region, boxes)
            if placed is not None and (candidate.score >= SCORE or placed.score >= CERTAIN_SCORE):
                found.append(placed)
            else:
                doubtful += candidate.score < SCORE
        return drop_overlapping([*known, *sorted(found, key=lambda placed: -placed.score)])[len(known) :]

    def candidates_in(self, picture: np.ndarray, area: Area, scale: float, least: float = SCORE) -> list[Candidate]:
        """What BlazeFace says of an area of a picture (3, H, W)."""
        x0, y0, x1, y1 = max(area[0], 0), max(area[1], 0), max(area[2], 0), max(area[3], 0)
        if not picture[0, y0:y1, x0:x1].size:
            return []
        corner = torch.tensor([x0, y0, x0, y0])
        return [replace(found, box=found.box + corner) for found in self.searcher(picture[:, y0:y1, x0:x1], [scale], least=least)]

    def search_around(self, picture: np.ndarray, region: Region, others: Sequence[Placed]) -> Placed | None:
        """The certain face about a region that lost its own, moved by no more than the region's side; None if there is none but `others`."""
        reach = 1.5 * region.side
        area = (round(region.x - reach), round(region.y - reach), round(region.x + reach) + 1, round(region.y + reach) + 1)
        for candidate in self.candidates_in(picture, area, min(AROUND * CROP_MARGIN / region.side, 1.0)):
            if not overlaps_any([other.box for other in others], candidate.box):
                placed = self.refine(picture, replace(region_of(candidate.box.reshape(2, 2), 0.0), roll=candidate.roll))
                if placed is not None and placed.score >= CERTAIN_SCORE:
                    return placed
        return None

    def refine(self, picture: np.ndarray, region: Region, near: float = 0.03, seen: bool = False, taken: Sequence[Tensor] = ()) -> Placed | None:
        """The face in a region: looked at until its mesh says the same region (see `Region.near`), from the second time on as its own mesh says.

        seen: whether another network may know of a face there that FaceMesh does not see; its score is below 0.5 then. taken: boxes of other faces.
        """
        for _ in range(MAX_LOOKS):
            placed = self.look(picture, region)
            if placed is None or (placed.score <= 0.5 and not seen) or overlaps_any(taken, placed.box):
                return None
            before, region = region, region_of(placed.mesh, roll_of(placed.mesh))
            if region.near(before, near):
                break
        return placed

    def turned(self, picture: np.ndarray, region: Region, taken: Sequence[Tensor]) -> Placed | None:
        """The certain face in a region that lies or stands on its head; see `refine`."""
        for quarter in QUARTER_TURNS[1:]:
            placed = self.refine(picture, replace(region, roll=region.roll + quarter * math.pi / 2), taken=taken)
            if placed is not None and placed.score >= CERTAIN_SCORE:
                return placed
        return None

    def look(self, picture: np.ndarray, region: Region) -> Placed | None:
        """The face in a region, None if FaceMesh does not even suspect one."""
        mesh, sure = self.mesher(picture, region)
        if sure <= LEAST_LOGIT or not bool(torch.isfinite(mesh).all()):
            return None
        return Placed(mesh, float(torch.sigmoid(torch.tensor(sure / LOGIT_TEMPERATURE))))

    def reduced_score(self, picture: np.ndarray, placed: Placed) -> float:
        """BlazeFace's best score in [0, 1] of a placed face in the picture about it, upright, reduced so that the face has two thirds and all of
        a third of REDUCED_SIDE; 0 where it sees none there."""
        region = region_of(placed.mesh, roll_of(placed.mesh))
        piece = crop(picture, replace(region, side=region.side * 3 / CROP_MARGIN), REDUCED_SIDE).transpose(2, 0, 1)
        box = torch.tensor([1.0, 1.0, 2.0, 2.0]) * (REDUCED_SIDE / 3)
        found = (candidate for scale in (1.0, 0.625) for candidate in self.searcher.at(piece, scale))
        return max((candidate.score for candidate in found if overlaps_any([box], candidate.box)), default=0.0)


def overlaps_any(boxes: Sequence[Tensor], box: Tensor) -> bool:
    """Whether one of the boxes (4,) is where `box` is."""
    return bool(boxes) and float(iou(torch.stack(list(boxes)).float(), box[None].float()).max()) >= SAME_FACE_IOU


class Follower:
    """Faces of one clip's frames, pushed in order.

    FaceMesh looks in every other frame where each face was in the frame before; in the others optical flow carries the mesh on, where it can.
    BlazeFace searches coarsely where no face is known, and every SEARCH_EVERY frames while anything changes outside the known faces, there finely if
    that is a SMALL_AREA; finely every FINE_EVERY frames, after a change of scene, and when a face is lost, which is then looked for around its place
    for WATCH frames. The result does not depend on how the frames are chunked.
    """

    SEARCH_EVERY = 4
    FINE_EVERY = 16

    def __init__(self, detector: BlazeFaceDetector) -> None:
        self.detector, self.name = detector, detector.name
        self.live: list[Placed] = []
        self.small: np.ndarray | None = None
        self.searched: np.ndarray | None = None
        self.last: np.ndarray | None = None
        self.faces: list[Face] = []
        self.count = 0
        self.watched: list[Watched] = []
        self.least = AGREED
        """BlazeFace's score of a face that counts in this frame."""
        self.turn_due = 0
        """Frame from which on a new scene is searched for turned faces again."""

    def __call__(self, frames: Tensor) -> list[list[Face]]:
        found = [self.step(frame) for frame in frames]
        self.last = None if self.last is None else self.last.copy()  # a view would hold the whole chunk
        return found

    @property
    def memory(self) -> dict[str, Any]:
        """All that it knows of the frames so far; another one that is given it goes on as this one would."""
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
        self.watched = [] if changed else self.watched
        seen = [self.propagate(last, picture, placed, [other for other in known if other is not placed]) for placed in known]
        live = drop_overlapping([placed for placed in seen if placed is not None])
        lost = [placed for placed, now in zip(known, seen, strict=True) if not any(now is one for one in live)]
        fine = changed or len(live) < len(known) or self.count % self.FINE_EVERY == 0
        areas = self.changed_areas(live, picture.shape[1:]) if live and not fine and self.count % self.SEARCH_EVERY == 0 else []
        new = self.search(picture, live, fine, areas) if fine or not live or areas else []
        live += [*new, *self.reappeared(picture, lost, live, new)]
        if fine and self.detector.rotate == "auto":
            live = self.with_rotated(picture, live, thorough=changed and self.count >= self.turn_due)
        self.count += 1
        return self.keep(live)

    def asked(self, picture: np.ndarray, placed: Placed) -> Placed | None:
        """A face with BlazeFace's score of it, where FaceMesh is in doubt: at once, then every SEARCH_EVERY frames. None if neither sees it."""
        if placed.score >= CERTAIN_SCORE:
            return placed
        if placed.agreed is None or self.count % self.SEARCH_EVERY == 0:
            score = self.detector.reduced_score(picture, placed)
            placed = replace(placed, agreed=score if score >= self.least - (LOYALTY if placed.agreed else 0) else 0.0)
        return placed if placed.score > 0.5 or placed.agreed else None

    def keep(self, live: list[Placed]) -> list[Face]:
        """Remembers the faces of a frame, and gives them best first."""
        self.live = live
        self.faces = [placed.face() for placed in sorted(live, key=lambda p: -p.score)]
        return list(self.faces)

    def repeat(self, picture: np.ndarray) -> list[Face]:
        """Faces in a frame that is the one before again: the same to the bit, and those whose search was not yet due."""
        areas = self.changed_areas(self.live, picture.shape[1:]) if self.live else []
        return self.keep(self.live + self.search(picture, self.live, False, areas)) if areas else list(self.faces)

    def search(self, picture: np.ndarray, live: Sequence[Placed], fine: bool, areas: Sequence[Area]) -> list[Placed]:
        """New faces in a frame, of areas that changed the small ones too as long as the areas are small together."""
        self.searched = self.small
        found = self.detector.search(picture, live, fine)
        left = SMALL_AREA * picture[0].size
        for area in areas:
            left -= (area[2] - area[0]) * (area[3] - area[1])
            if left >= 0:
                found += self.detector.search(picture, [*live, *found], True, area=area)
        return [placed for one in found if (placed := self.asked(picture, one)) is not None]

    def reappeared(self, picture: np.ndarray, lost: Sequence[Placed], live: Sequence[Placed], new: Sequence[Placed]) -> list[Placed]:
        """Faces that come out from behind something: looked for around where they were lost, every other frame, where anything moved there since.

        lost: faces of the frame before that were not followed to this one. live, new: those of this one that were, and the others found by now.
        """
        assert self.small is not None
        size = picture.shape[1:]
        inside = [placed for placed in lost if 0 < float(placed.box[::2].mean()) < size[1] and 0 < float(placed.box[1::2].mean()) < size[0]]
        watched = [*self.watched, *(Watched(region_of(placed.mesh, roll_of(placed.mesh)), self.count + WATCH, self.small) for placed in inside)]
        found: list[Placed] = []
        self.watched = []
        for one in watched:
            if any(one.holds(placed) for placed in new):
                continue
            if self.count % 2 and one.moved(self.small, size):
                face = self.detector.search_around(picture, one.region, [*live, *new, *found])
                one = replace(one, small=self.small)
                if face is not None:
                    found.append(face)
                    continue
            if self.count < one.until:
                self.watched.append(one)
        return found

    def with_rotated(self, picture: np.ndarray, live: list[Placed], thorough: bool) -> list[Placed]:
        """The faces with those that lie or stand on their heads: looked for where no face is certain, and where one lies that others may lie like;
        if `thorough`, coarsely beside faces that stand too."""
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
        return [placed for one in left if (placed := self.asked(picture, one) if one.agreed is None else one) is not None]

    def propagate(self, before: np.ndarray | None, picture: np.ndarray, placed: Placed, others: Sequence[Placed]) -> Placed | None:
        """Where a face of the frame before is now; `others` are the frame's other faces there."""
        if before is not None and not placed.by_flow and (mesh := track_by_flow(before, picture, placed.mesh)) is not None:
            return self.asked(picture, Placed(mesh, placed.score, by_flow=True, agreed=placed.agreed))
        region = region_of(placed.mesh, roll_of(placed.mesh))
        now = self.detector.refine(picture, region, near=FAST, seen=True)
        if placed.score >= CERTAIN_SCORE and (now is None or now.score < CERTAIN_SCORE):
            now = self.detector.search_around(picture, region, others) or now
        return None if now is None else self.asked(picture, replace(now, agreed=placed.agreed))

    def changed_areas(self, live: Sequence[Placed], size: tuple[int, ...]) -> list[Area]:
        """Where something outside the known faces changed since the last search, with a cell around it, in MOST_AREAS at most, small ones first."""
        if self.searched is None or self.small is None:
            return [(0, 0, size[1], size[0])]
        cells = (CELLS[0] // 2, CELLS[1] // 2)
        change = cv2.resize((self.small - self.searched).transpose(1, 2, 0), cells, interpolation=cv2.INTER_AREA)
        moved = np.abs(change).mean(2) > CELL_CHANGE
        for placed in live:
            box = placed.box.reshape(2, 2).double().numpy()
            box = (box + np.array([[-0.25], [0.25]]) * (box[1] - box[0])) * np.array(cells) / np.array(size[::-1])  # hair and neck move along
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
class Watched:
    """A region whose face was lost, the frame until which it is looked for, and the thumbnail (3, h, w) of the last frame in which it was."""

    region: Region
    until: int
    small: np.ndarray

    def holds(self, placed: Placed) -> bool:
        """Whether a face may be the one that was lost."""
        x, y = placed.box.reshape(2, 2).mean(0).tolist()
        return max(abs(x - self.region.x), abs(y - self.region.y)) < self.region.side

    def moved(self, small: np.ndarray, size: tuple[int, ...]) -> bool:
        """Whether anything changed about the region in frames of this size (H, W)."""
        x0, x1 = (int((self.region.x + side * self.region.side) * CELLS[0] / size[1]) for side in (-1, 1))
        y0, y1 = (int((self.region.y + side * self.region.side) * CELLS[1] / size[0]) for side in (-1, 1))
        change = np.abs(small - self.small).mean(0)[max(y0, 0) : max(y1, 0) + 1, max(x0, 0) : max(x1, 0) + 1]
        return bool((change > CELL_CHANGE).any())


def exposure(small: np.ndarray) -> float:
    """1 for a thumbnail (3, h, w) that has light parts, else the power of two, up to MAX_GAIN, that makes its lightest twentieth at most DARK."""
    light = float(np.quantile(small, 0.95))
    return min(2.0 ** max(math.floor(math.log2(DARK / max(light, 1e-4))), 0), MAX_GAIN)


def colour_cast(small: np.ndarray) -> np.ndarray | None:
    """How much each colour (3,) of a thumbnail (3, h, w) counts where night vision or coloured light gives skin another colour; else None."""
    light = small.mean((1, 2))
    return light / light.sum() if light.max() > CAST * light[0] or light[0] > RED_CAST * light.min() else None


def grey(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A picture (3, H, W) without its colours, which count by weights (3,), as three equal planes."""
    return np.repeat(np.tensordot(weights, picture, 1)[None], 3, 0)


def exposed(picture: np.ndarray, gain: float, weights: np.ndarray | None) -> np.ndarray:
    """A picture as it is searched; the networks know faces in daylight."""
    picture = picture if weights is None else grey(picture, weights)
    return picture if gain == 1 else np.minimum(picture * np.float32(gain), 1.0)


def thumbnail(picture: np.ndarray) -> np.ndarray:
    """(3, h, w) of a picture (3, H, W), from no more of its pixels than it needs."""
    step = max(1, min(picture.shape[1] // (8 * CELLS[1]), picture.shape[2] // (8 * CELLS[0])))
    return np.stack([cv2.resize(np.ascontiguousarray(plane[::step, ::step]), CELLS, interpolation=cv2.INTER_AREA) for plane in picture])


def drop_overlapping(placed: Sequence[Placed]) -> list[Placed]:
    """Without those that have slid onto a face that was known before them."""
    kept: list[Placed] = []
    for one in placed:
        if not overlaps_any([other.box for other in kept], one.box):
            kept.append(one)
    return kept
