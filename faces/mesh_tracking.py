"""FaceMesh on faces of a frame: where they are is known from a detector or from the frame before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from ..models.face_mesh import SIDE, load_face_mesh
from .mesh_points import turn_of

AROUND = 1.5
"""Side of the crop as a multiple of the longer side of the mesh or of the detector's box."""


@dataclass(frozen=True)
class Region:
    """A square of a frame that holds a face: its middle (x, y) and side in pixels, and the face's turn in radians."""

    x: float
    y: float
    side: float
    turn: float

    def to_crop(self) -> np.ndarray:
        """(2, 3) float64, from frame pixels to pixels of the network's crop, where 0 is the crop's edge and not a pixel's middle."""
        zoom = SIDE / self.side
        c, s = zoom * math.cos(self.turn), zoom * math.sin(self.turn)
        return np.array([[c, s, SIDE / 2 - c * self.x - s * self.y], [-s, c, SIDE / 2 + s * self.x - c * self.y]])


def region_of(points: Tensor, turn: float) -> Region:
    """The region for points (P, 2 or 3) of a face that is turned by `turn`."""
    c, s = math.cos(turn), math.sin(turn)
    upright = points[:, :2].double() @ torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    low, high = upright.amin(0), upright.amax(0)
    x, y = ((low + high) / 2).tolist()
    return Region(c * x - s * y, s * x + c * y, max(float((high - low).max()) * AROUND, 1.0), turn)


class Mesher:
    """Meshes of faces in one frame at a time."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.network = load_face_mesh(self.device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, picture: np.ndarray, regions: Sequence[Region]) -> list[tuple[Tensor, float]]:
        """Per region its mesh (468, 3) float32 in frame pixels, and how sure the network is of a face, a logit.

        picture: (3, H, W) float32 RGB in [0, 1].
        """
        if not regions:
            return []
        crops = np.stack([crop(picture, region) for region in regions])
        batch = torch.from_numpy(crops).permute(0, 3, 1, 2).to(self.device)
        # one at a time on a CPU: to the bit the same, whoever else is in the frame
        found = [self.network(one) for one in batch.split(1 if self.device.type == "cpu" else len(batch))]
        points, sure = torch.cat([p for p, _ in found]).float().cpu(), torch.cat([s for _, s in found]).float().cpu()
        return [(to_frame(p, region), float(s)) for p, s, region in zip(points, sure, regions, strict=True)]

    def look(self, picture: np.ndarray, points: Tensor | np.ndarray, turn: float) -> tuple[Tensor, float]:
        """The mesh and the logit of the face around points (P, 2 or 3)."""
        return self(picture, [region_of(torch.as_tensor(points), turn)])[0]

    @staticmethod
    def turn(mesh: Tensor) -> float:
        """See `turn_of`."""
        return turn_of(mesh)


def crop(picture: np.ndarray, region: Region) -> np.ndarray:
    """(192, 192, 3): the region upright, border replicated; the picture is averaged first where it shrinks by more than half."""
    matrix = region.to_crop()
    height, width = picture.shape[1:]
    half = region.side * (abs(math.cos(region.turn)) + abs(math.sin(region.turn))) / 2 + 2
    x0, x1 = max(math.floor(region.x - half), 0), min(math.ceil(region.x + half) + 1, width)
    y0, y1 = max(math.floor(region.y - half), 0), min(math.ceil(region.y + half) + 1, height)
    if x1 <= x0 or y1 <= y0:
        return np.zeros((SIDE, SIDE, 3), np.float32)
    piece = cv2.merge([np.ascontiguousarray(plane[y0:y1, x0:x1]) for plane in picture])
    shrink = int(region.side // SIDE)
    zoom_x = zoom_y = 1.0
    if shrink >= 2:
        size = max(1, round(piece.shape[1] / shrink)), max(1, round(piece.shape[0] / shrink))
        zoom_x, zoom_y = piece.shape[1] / size[0], piece.shape[0] / size[1]
        piece = cv2.resize(piece, size, interpolation=cv2.INTER_AREA)
    # pixels of the piece to pixels of the frame, both with middles on integers, then to the crop's
    back = np.array([[zoom_x, 0, (zoom_x - 1) / 2 + x0], [0, zoom_y, (zoom_y - 1) / 2 + y0]])
    moved = np.concatenate([matrix[:, :2] @ back[:, :2], (matrix[:, :2] @ back[:, 2] + matrix[:, 2] - 0.5)[:, None]], 1)
    return cv2.warpAffine(piece, moved, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def to_frame(points: Tensor, region: Region) -> Tensor:
    """A mesh (468, 3) in pixels of the crop as one in pixels of the frame, depths scaled alike."""
    zoom = region.side / SIDE
    c, s = zoom * math.cos(region.turn), zoom * math.sin(region.turn)
    x, y = points[:, 0].double() - SIDE / 2, points[:, 1].double() - SIDE / 2
    return torch.stack([c * x - s * y + region.x, s * x + c * y + region.y, zoom * points[:, 2].double()], 1).float()
