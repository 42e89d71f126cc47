"""BlazeFace finds faces, FaceMesh places them: the package's own detector, which downloads nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
import torch
from torch import Tensor

from ...models.blazeface import MULTIPLE, STRIDE, BlazeFace
from ...models.embedded import load_embedded
from ..geometry import iou
from ..types import Face
from .mesh_points import face_box, five_points, pose, roll_of
from .mesh_tracking import CROP_MARGIN, Mesher, Region, crop, region_of, track_by_flow

MIN_BOX, MAX_BOX = 13.0, 170.0
"""Sides of the smallest and the largest box that BlazeFace is sure of, in pixels of its input."""
COARSE, CLOSE = 192, 96
"""Longer sides of a frame at which it is searched for faces from 7 % of it on (never enlarged), and for such as fill it or more."""
PYRAMID_STEP = 3.0
"""Ratio of neighbouring pyramid levels' scales; BlazeFace's own range is 13."""
MIN_FACE = 20
"""Smallest face in pixels of the frame as it is searched."""
DETECT_SIZE = 480
"""Short side, in pixels, at which larger frames are searched for the smallest faces."""
SCORE = 0.3
"""Least BlazeFace score of a candidate; FaceMesh has the last word."""
ROTATE = ("auto", "off")
QUARTER_TURNS = (0, 2, 1, 3)
"""Quarter turns of the picture, counterclockwise, in the order in which they are tried."""


@dataclass(frozen=True)
class Candidate:
    """What BlazeFace says of a face: its box (4,) and roll (radians) in the frame, and its score in [0, 1]."""

    box: Tensor
    roll: float
    score: float


class Searcher:
    """BlazeFace on a pyramid of one frame."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.network = load_embedded(BlazeFace, self.device).to(memory_format=torch.channels_last)

    def levels(self, height: int, width: int, fine: bool) -> list[float]:
        """Scales at which a frame is searched, coarse ones first."""
        long, short = max(height, width), min(height, width)
        scales = [min(COARSE / long, 1.0)]
        if fine:
            if scales[0] * long > MAX_BOX:
                scales.append(CLOSE / long)
            scale = min(1.0, DETECT_SIZE / short) * MIN_BOX / MIN_FACE
            while scale > 1.15 * scales[0] and len(scales) < 8:
                scales.append(scale)
                scale /= PYRAMID_STEP
        return scales

    def __call__(self, picture: np.ndarray, fine: bool = True, quarters: Sequence[int] = (0,)) -> list[Candidate]:
        """Candidates in a picture (3, H, W) float32 RGB in [0, 1], best first; `quarters` are the turns at which it is searched."""
        found: list[Candidate] = []
        height, width = picture.shape[1:]
        for quarter in quarters:
            shown = np.ascontiguousarray(np.rot90(picture, quarter, (1, 2))) if quarter else picture
            for scale in self.levels(height, width, fine):
                found += [unrotate(candidate, quarter, height, width) for candidate in self.at(shown, scale)]
        return weighted_nms(found)

    @torch.inference_mode()
    def at(self, picture: np.ndarray, scale: float) -> Iterator[Candidate]:
        """Candidates of one level, before doubles are removed."""
        height, width = picture.shape[1:]
        size = max(1, round(width * scale)), max(1, round(height * scale))
        canvas = np.zeros((-(-size[1] // MULTIPLE) * MULTIPLE, -(-size[0] // MULTIPLE) * MULTIPLE, 3), np.float32)
        for channel, plane in enumerate(picture):
            small = cv2.resize(plane, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
            canvas[: size[1], : size[0], channel] = small * 2 - 1
        logits, places = self.network(torch.from_numpy(canvas).permute(2, 0, 1)[None].to(self.device))
        scores = torch.sigmoid(logits[0].float().cpu())
        rows, columns = torch.nonzero(scores >= SCORE, as_tuple=True)
        places = places[0].float().cpu()[rows, columns].double()
        middle = torch.stack([columns, rows], 1).double() * STRIDE + STRIDE / 2
        zoom = torch.tensor([width / size[0], height / size[1]], dtype=torch.float64)
        for score, place, anchor in zip(scores[rows, columns].tolist(), places, middle, strict=True):
            corners = torch.stack([place[0] + anchor - place[1] / 2, place[0] + anchor + place[1] / 2]) * zoom - 0.5
            if bool((corners[1] > corners[0]).all()):
                yield Candidate(corners.reshape(4), float(torch.atan2(*(place[3] - place[2]).flip(0))), score)


def unrotate(candidate: Candidate, quarter: int, height: int, width: int) -> Candidate:
    """A candidate of the picture turned by `quarter` as one of the picture (height, width)."""
    if not quarter:
        return candidate
    x, y = candidate.box.reshape(2, 2).unbind(1)
    for done in range(quarter):
        # np.rot90 takes pixel (x, y) of a picture of width w to (y, w - 1 - x)
        w = width if (quarter - done) % 2 else height
        x, y = w - 1 - y, x
    corners = torch.stack([x, y], 1)
    return Candidate(torch.cat([corners.amin(0), corners.amax(0)]), candidate.roll + quarter * np.pi / 2, candidate.score)


def weighted_nms(candidates: Sequence[Candidate], overlap: float = 0.3) -> list[Candidate]:
    """Non-maximum suppression that averages overlapping boxes, weighted by score. Faces of another roll do not suppress: FaceMesh decides."""
    left = sorted(candidates, key=lambda c: (-c.score, *c.box.tolist()))
    kept = []
    while left:
        boxes = torch.stack([c.box for c in left])
        same = (iou(boxes[:1], boxes)[0] >= overlap) & torch.tensor([math.cos(c.roll - left[0].roll) > 0.5 for c in left])
        same[0] = True
        weight = torch.tensor([c.score for c in left], dtype=torch.float64)[same][:, None]
        box = (boxes[same] * weight).sum(0) / weight.sum()
        kept.append(Candidate(box, left[0].roll, left[0].score))
        left = [c for c, s in zip(left, same.tolist(), strict=True) if not s]
    return kept


LOGIT_TEMPERATURE = 4.0
"""Logits of FaceMesh's presence per logit of a face's score: faces reach 18 to 60 on our clips, what is none lies below -5."""
CERTAIN_SCORE = 0.94
"""Score below which a face may be one that lies or stands on its head: FaceMesh gives up to 0.8 to faces that it looks at upside down."""
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
SMALL_AREA = 0.3
"""Share of the frame up to which an area that changed is searched finely at once."""
AGREED, AGREED_IN_DARK = 0.8, 0.72
"""BlazeFace score from which on it sees the face that FaceMesh is in doubt of: blurred ones have 0.83 to 0.9, dark ones 0.72 to 0.76, smileys up to
0.63, dolls and painted blobs up to 0.78."""
REDUCED_SIDE = 128
"""Side of the reduced picture in which BlazeFace looks for such a face, which fills a third of it: there neither blur nor noise is left."""
DARK, MAX_GAIN = 0.4, 8.0
"""Brightness up to which the light parts of a frame are raised for the search, and by how much at most."""
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
            heads; "off" does not, and finds fewer of them.
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
        """Faces in a picture (3, H, W), or in an area of it, that are not among the known ones."""
        boxes = [placed.box for placed in known]
        found: list[Placed] = []
        for candidate in self.candidates(picture, fine, quarters, area):
            alike = [math.cos(candidate.roll - roll_of(placed.mesh)) > 0.5 for placed in found]
            if overlaps_any([*boxes, *(p.box for p, same in zip(found, alike, strict=True) if same)], candidate.box):
                continue
            placed = self.refine(picture, replace(region_of(candidate.box.reshape(2, 2), 0.0), roll=candidate.roll))
            if placed is not None:
                found.append(placed)
        return drop_overlapping([*known, *sorted(found, key=lambda placed: -placed.score)])[len(known) :]

    def candidates(self, picture: np.ndarray, fine: bool, quarters: Sequence[int] = (0,), area: Area | None = None) -> list[Candidate]:
        """What BlazeFace says of a picture (3, H, W), or of an area of it."""
        if area is None:
            return self.searcher(picture, fine, quarters)
        x0, y0, x1, y1 = max(area[0], 0), max(area[1], 0), max(area[2], 0), max(area[3], 0)
        if not picture[0, y0:y1, x0:x1].size:
            return []
        corner = torch.tensor([x0, y0, x0, y0])
        return [replace(found, box=found.box + corner) for found in self.searcher(picture[:, y0:y1, x0:x1], fine, quarters)]

    def search_around(self, picture: np.ndarray, region: Region, others: Sequence[Placed]) -> Placed | None:
        """The certain face about a region that lost its own, moved by no more than the region's side; None if there is none but `others`."""
        reach = 1.5 * region.side
        area = (round(region.x - reach), round(region.y - reach), round(region.x + reach) + 1, round(region.y + reach) + 1)
        for candidate in self.candidates(picture, False, area=area):
            if not overlaps_any([other.box for other in others], candidate.box):
                placed = self.refine(picture, replace(region_of(candidate.box.reshape(2, 2), 0.0), roll=candidate.roll))
                if placed is not None and placed.score >= CERTAIN_SCORE:
                    return placed
        return None

    def refine(self, picture: np.ndarray, region: Region, near: float = 0.03) -> Placed | None:
        """The face in a region: looked at until its mesh says the same region (see `Region.near`), from the second time on as its own mesh says."""
        for _ in range(MAX_LOOKS):
            placed = self.look(picture, region)
            if placed is None:
                return None
            before, region = region, region_of(placed.mesh, roll_of(placed.mesh))
            if region.near(before, near):
                break
        return placed

    def look(self, picture: np.ndarray, region: Region) -> Placed | None:
        """The face in a region, None if there is none."""
        mesh, sure = self.mesher(picture, region)
        if sure <= 0 or not bool(torch.isfinite(mesh).all()):
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
    it is a SMALL_AREA; finely every FINE_EVERY frames, after a change of scene, and when a face is lost. The result does not depend on how the frames
    are chunked.
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
        self.turn_due = 0
        """Frame from which on a new scene is searched for turned faces again."""

    def __call__(self, frames: Tensor) -> list[list[Face]]:
        found = [self.step(frame) for frame in frames]
        self.last = None if self.last is None else self.last.copy()  # a view would hold the whole chunk
        return found

    def step(self, frame: Tensor) -> list[Face]:
        """Faces in the next frame (3, H, W), best first."""
        picture = np.ascontiguousarray(frame.detach().float().cpu())
        small = thumbnail(picture)
        before, last = self.small, self.last
        self.small, self.last = small, picture
        gain = exposure(small)
        if before is not None and last is not None and np.array_equal(small, before) and np.array_equal(picture, last):
            return self.repeat(exposed(picture, gain))
        picture, last = exposed(picture, gain), None if last is None else exposed(last, gain)
        changed = before is None or float(np.abs(small - before).mean()) > SCENE_CHANGE
        known = [] if changed else self.live
        seen = [self.propagate(last, picture, placed, [other for other in known if other is not placed]) for placed in known]
        live = drop_overlapping([placed for placed in seen if placed is not None])
        fine = changed or len(live) < len(known) or self.count % self.FINE_EVERY == 0
        area = self.changed_area(live, picture.shape[1:]) if live and not fine and self.count % self.SEARCH_EVERY == 0 else None
        if fine or not live or area is not None:
            live += self.search(picture, live, fine, area)
        if fine and self.detector.rotate == "auto":
            live = self.with_rotated(picture, live, thorough=changed and self.count >= self.turn_due)
        live = [self.asked(picture, placed, AGREED if gain == 1 else AGREED_IN_DARK) for placed in live]
        self.count += 1
        return self.keep(live)

    def asked(self, picture: np.ndarray, placed: Placed, least: float) -> Placed:
        """A face with BlazeFace's score of it, where FaceMesh is in doubt: at once, then every SEARCH_EVERY frames."""
        if placed.score >= CERTAIN_SCORE or (placed.agreed is not None and self.count % self.SEARCH_EVERY):
            return placed
        score = self.detector.reduced_score(picture, placed)
        return replace(placed, agreed=score if score >= least else 0.0)

    def keep(self, live: list[Placed]) -> list[Face]:
        """Remembers the faces of a frame, and gives them best first."""
        self.live = live
        self.faces = [placed.face() for placed in sorted(live, key=lambda p: -p.score)]
        return list(self.faces)

    def repeat(self, picture: np.ndarray) -> list[Face]:
        """Faces in a frame that is the one before again: the same to the bit, and those whose search was not yet due."""
        area = self.changed_area(self.live, picture.shape[1:]) if self.live else None
        return list(self.faces) if area is None else self.keep(self.live + self.search(picture, self.live, False, area))

    def search(self, picture: np.ndarray, live: Sequence[Placed], fine: bool, area: Area | None) -> list[Placed]:
        """New faces in a frame, of an area that changed the small ones too if it is small."""
        self.searched = self.small
        found = self.detector.search(picture, live, fine)
        if area is not None and (area[2] - area[0]) * (area[3] - area[1]) <= SMALL_AREA * picture[0].size:
            found += self.detector.search(picture, [*live, *found], True, area=area)
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
            *self.detector.search(picture, certain, bool(quarters), quarters or QUARTER_TURNS[1:]),
            *(placed for placed in live if placed.score < CERTAIN_SCORE),
        ]
        return drop_overlapping([*certain, *sorted(uncertain, key=lambda placed: -placed.score)])

    def propagate(self, before: np.ndarray | None, picture: np.ndarray, placed: Placed, others: Sequence[Placed]) -> Placed | None:
        """Where a face of the frame before is now; `others` are the frame's other faces there."""
        if before is not None and not placed.by_flow and (mesh := track_by_flow(before, picture, placed.mesh)) is not None:
            return Placed(mesh, placed.score, by_flow=True, agreed=placed.agreed)
        region = region_of(placed.mesh, roll_of(placed.mesh))
        now = self.detector.refine(picture, region, near=FAST)
        if placed.score >= CERTAIN_SCORE and (now is None or now.score < CERTAIN_SCORE):
            now = self.detector.search_around(picture, region, others) or now
        return None if now is None else replace(now, agreed=placed.agreed)

    def changed_area(self, live: Sequence[Placed], size: tuple[int, ...]) -> Area | None:
        """Where something outside the known faces changed since the last search, with a cell around it; None if nothing did."""
        if self.searched is None or self.small is None:
            return 0, 0, size[1], size[0]
        cells = (CELLS[0] // 2, CELLS[1] // 2)
        change = cv2.resize((self.small - self.searched).transpose(1, 2, 0), cells, interpolation=cv2.INTER_AREA)
        moved = np.abs(change).mean(2) > CELL_CHANGE
        for placed in live:
            box = placed.box.reshape(2, 2).double().numpy()
            box = (box + np.array([[-0.25], [0.25]]) * (box[1] - box[0])) * np.array(cells) / np.array(size[::-1])  # hair and neck move along
            (x0, y0), (x1, y1) = np.floor(box[0]).clip(0).astype(int), np.ceil(box[1]).clip(0).astype(int)
            moved[y0:y1, x0:x1] = False
        if not moved.any():
            return None
        rows, columns = np.nonzero(moved)
        width, height = size[1] / cells[0], size[0] / cells[1]
        x0, y0, x1, y1 = columns.min() - 1, rows.min() - 1, columns.max() + 2, rows.max() + 2
        return int(max(x0, 0) * width), int(max(y0, 0) * height), int(min(x1, cells[0]) * width), int(min(y1, cells[1]) * height)


def exposure(small: np.ndarray) -> float:
    """1 for a thumbnail (3, h, w) that has light parts, else the power of two, up to MAX_GAIN, that makes its lightest twentieth at most DARK."""
    light = float(np.quantile(small, 0.95))
    return min(2.0 ** max(math.floor(math.log2(DARK / max(light, 1e-4))), 0), MAX_GAIN)


def exposed(picture: np.ndarray, gain: float) -> np.ndarray:
    """A picture as it is searched; the networks know faces in daylight."""
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
