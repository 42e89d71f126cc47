"""FaceMesh on regions known from a detector or from the previous frame, and mesh propagation by optical flow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from ...models.embedded import load_embedded
from ...models.face_mesh import SIDE, FaceMesh
from ..geometry import umeyama
from .mesh_points import roll_of

CROP_MARGIN = 1.5
"""Side of the crop relative to the longer side of the mesh or of the detector's box."""


@dataclass(frozen=True)
class Region:
    """A rotated square around a face: centre (x, y) and side in frame pixels, roll in radians."""

    x: float
    y: float
    side: float
    roll: float

    def matches(self, other: Region, tolerance: float) -> bool:
        """Whether both regions agree within `tolerance`, as a fraction of the side and in radians."""
        moved = max(abs(self.x - other.x), abs(self.y - other.y), abs(self.side - other.side))
        return moved < tolerance * self.side and math.cos(self.roll - other.roll) > math.cos(tolerance)

    def to_crop(self, size: int = SIDE) -> np.ndarray:
        """(2, 3) float64, from frame pixels to pixels of a crop of this size, whose origin is the crop's corner, not a pixel centre."""
        zoom = size / self.side
        c, s = zoom * math.cos(self.roll), zoom * math.sin(self.roll)
        return np.array([[c, s, size / 2 - c * self.x - s * self.y], [-s, c, size / 2 + s * self.x - c * self.y]])


def region_of(points: Tensor, roll: float) -> Region:
    """The region around points (P, 2 or 3) of a face with this roll."""
    c, s = math.cos(roll), math.sin(roll)
    upright = points[:, :2].double() @ torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    low, high = upright.amin(0), upright.amax(0)
    x, y = ((low + high) / 2).tolist()
    return Region(c * x - s * y, s * x + c * y, max(float((high - low).max()) * CROP_MARGIN, 1.0), roll)


class MeshEstimator:
    """Runs FaceMesh on one face at a time, so that meshes do not depend on other faces in the frame."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.network = load_embedded(FaceMesh, self.device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, picture: np.ndarray, region: Region) -> tuple[Tensor, float]:
        """The mesh (468, 3) float32 in frame pixels of the face in a region, and the presence logit.

        picture: (3, H, W) float32 RGB in [0, 1].
        """
        points, presence = self.network(torch.from_numpy(crop(picture, region)[None]).permute(0, 3, 1, 2).to(self.device))
        return to_frame(points[0].float().cpu(), region), float(presence)


def crop(picture: np.ndarray, region: Region, size: int = SIDE) -> np.ndarray:
    """The upright region of an image (C, H, W), as (size, size, C), or (size, size) if C is 1; border replicated; area-averaged first where it is
    downscaled by 2 or more."""
    matrix = region.to_crop(size)
    height, width = picture.shape[1:]
    half = region.side * (abs(math.cos(region.roll)) + abs(math.sin(region.roll))) / 2 + 2
    x0, x1 = max(math.floor(region.x - half), 0), min(math.ceil(region.x + half) + 1, width)
    y0, y1 = max(math.floor(region.y - half), 0), min(math.ceil(region.y + half) + 1, height)
    if x1 <= x0 or y1 <= y0:
        return np.zeros((size, size, len(picture)) if len(picture) > 1 else (size, size), np.float32)
    piece = cv2.merge([np.ascontiguousarray(plane[y0:y1, x0:x1]) for plane in picture])
    shrink = int(region.side // size)
    zoom_x = zoom_y = 1.0
    if shrink >= 2:
        small = max(1, round(piece.shape[1] / shrink)), max(1, round(piece.shape[0] / shrink))
        zoom_x, zoom_y = piece.shape[1] / small[0], piece.shape[0] / small[1]
        piece = cv2.resize(piece, small, interpolation=cv2.INTER_AREA)
    # piece to frame pixels, both with centres at integers, then to crop pixels
    back = np.array([[zoom_x, 0, (zoom_x - 1) / 2 + x0], [0, zoom_y, (zoom_y - 1) / 2 + y0]])
    moved = np.concatenate([matrix[:, :2] @ back[:, :2], (matrix[:, :2] @ back[:, 2] + matrix[:, 2] - 0.5)[:, None]], 1)
    return cv2.warpAffine(piece, moved, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def to_frame(points: Tensor, region: Region) -> Tensor:
    """A mesh (468, 3) in crop pixels, converted to frame pixels; depths are scaled alike."""
    zoom = region.side / SIDE
    c, s = zoom * math.cos(region.roll), zoom * math.sin(region.roll)
    x, y = points[:, 0].double() - SIDE / 2, points[:, 1].double() - SIDE / 2
    return torch.stack([c * x - s * y + region.x, s * x + c * y + region.y, zoom * points[:, 2].double()], 1).float()


FLOW_SIDE = 96
"""Side in pixels of the crops between which optical flow is computed."""
TRACKED_VERTICES = (33, 133, 263, 362, 168, 6, 5, 4, 1, 98, 327, 70, 105, 55, 300, 334, 285, 10, 117, 346, 205, 425, 61, 291, 159, 386)
"""Vertices tracked by optical flow: eyes, brows, nose, cheeks, mouth corners."""
MIN_TRACKED = 16
"""Least number of TRACKED_VERTICES with consistent forward and backward flow."""
MAX_MISS = 1.5
"""Largest 90th percentile of the residuals of the fitted similarity, in crop pixels: 5 % of the eye distance."""
MAX_ROUND_TRIP = 0.5
"""Largest forward-backward error of a tracked point, in crop pixels."""


def track_by_flow(before: np.ndarray, now: np.ndarray, mesh: Tensor) -> Tensor | None:
    """A mesh (468, 3) of the previous image, moved by the similarity fitted to sparse optical flow (Lucas and Kanade) at TRACKED_VERTICES. None
    where none fits: the expression changed, the face was occluded, or it moved too far.

    before, now: (3, H, W) float32 RGB in [0, 1].
    """
    region = region_of(mesh, roll_of(mesh))
    matrix = region.to_crop(FLOW_SIDE)
    one, two = ((crop(picture[1:2], region, FLOW_SIDE) * 255).astype(np.uint8) for picture in (before, now))  # green approximates luma
    places = mesh[list(TRACKED_VERTICES), :2].double().numpy()
    start = (places @ matrix[:, :2].T + matrix[:, 2] - 0.5).astype(np.float32)[:, None]
    setting = dict(winSize=(13, 13), maxLevel=2, criteria=(cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 12, 0.02))
    there, seen, _ = cv2.calcOpticalFlowPyrLK(one, two, start, None, **setting)  # type: ignore[call-overload]
    back, again, _ = cv2.calcOpticalFlowPyrLK(two, one, there, None, **setting)  # type: ignore[call-overload]
    good = (seen[:, 0] > 0) & (again[:, 0] > 0) & (np.abs(back - start).max((1, 2)) < MAX_ROUND_TRIP)
    if good.sum() < MIN_TRACKED:
        return None
    ends = (there[:, 0].astype(np.float64) + 0.5 - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    x, y = torch.from_numpy(places[good]), torch.from_numpy(ends[good])
    move = umeyama(x, y)
    misses = (x @ move[:, :2].mT + move[:, 2] - y).norm(dim=1)
    if float(misses.quantile(0.9)) * FLOW_SIDE / region.side > MAX_MISS:
        return None
    zoom = float(move[:, :2].det().sqrt())
    moved = mesh.double()
    return torch.cat([moved[:, :2] @ move[:, :2].mT + move[:, 2], zoom * moved[:, 2:]], 1).float()
