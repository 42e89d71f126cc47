"""Five landmarks (FFHQ convention), box, outline and head pose from FaceMesh's 468 vertices."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..geometry import FACE_BOX

LEFT = (33, 133, 159, 145, 160, 158, 144, 153, 70, 105, 55, 117, 205, 61, 78, 48, 98, 40, 146, 84, 149)
RIGHT = (263, 362, 386, 374, 387, 385, 373, 380, 300, 334, 285, 346, 425, 291, 308, 278, 327, 270, 375, 314, 378)
MIDDLE = (1, 4, 5, 2, 6, 168, 10, 152, 0, 17, 13, 14, 164)
VERTICES = LEFT + RIGHT + MIDDLE
"""Vertices whose weighted means are the five landmarks: eyes, brows, cheeks, mouth, jaw; left and right in the same order."""
MIRRORED = list(range(468))
"""Vertex to its mirror image, for those in VERTICES."""
for _left, _right in zip(LEFT, RIGHT, strict=True):
    MIRRORED[_left], MIRRORED[_right] = _right, _left

# fmt: off
# weights of VERTICES, by tools/fit_face_points.py on 443 portraits
EYE = (
    0.2427, 0.2459, 0.245, 0.2447, -0.0053, -0.0053, -0.0054, -0.005, -0.0064, -0.0008, 0.0032, -0.0034, -0.001, 0.0076, 0.0051, 0.0051,
    0.0043, 0.0081, 0.0045, -0.0003, -0.0136, -0.0074, -0.002, -0.003, -0.0019, -0.0041, -0.0025, -0.0032, -0.0015, -0.009, 0.0038, 0.0064,
    -0.0098, -0.0034, 0.0087, 0.0059, 0.0041, 0.003, 0.0094, 0.0043, -0.0008, -0.0311, 0.0084, 0.01, 0.0097, 0.0044, 0.0064, 0.0054, 0.0146,
    -0.0168, 0.0093, -0.0005, 0.0086, -0.0002, 0.0051,
)
NOSE = (
    0.0361, 0.0119, 0.0195, 0.0185, 0.0227, 0.0184, 0.022, 0.0172, 0.0465, -0.0014, -0.0276, 0.0464, 0.0104, 0.0388, 0.0361, -0.0502,
    -0.0294, -0.0002, 0.0283, -0.0118, 0.0578, 0.0361, 0.0119, 0.0195, 0.0185, 0.0227, 0.0184, 0.022, 0.0172, 0.0465, -0.0014, -0.0276,
    0.0464, 0.0104, 0.0388, 0.0361, -0.0502, -0.0294, -0.0002, 0.0283, -0.0118, 0.0578, 0.8904, -0.1116, -0.0966, -0.0647, -0.0455, -0.0308,
    -0.0032, 0.0155, -0.0508, -0.0172, -0.026, -0.0219, -0.0576,
)
CORNER = (
    0.0092, 0.0067, 0.0062, 0.0084, 0.0082, 0.0046, 0.0096, 0.0075, 0.0135, 0.0087, 0.006, 0.0039, -0.0167, 0.9209, -0.0665, 0.0002,
    -0.0121, -0.0536, -0.0586, -0.0101, 0.0312, -0.0093, -0.0013, -0.0079, -0.0127, -0.0092, -0.0056, -0.0134, -0.0106, -0.0175, -0.0134,
    -0.0014, -0.0181, 0.0107, 0.0268, 0.028, 0.0173, 0.0194, 0.0255, 0.0285, 0.0182, 0.0056, 0.0225, 0.0206, 0.0162, 0.0174, 0.0045, 0.0024,
    -0.0201, 0.0191, 0.0054, 0.0049, -0.0037, 0.0101, 0.0139,
)
# fmt: on

MESH_BOUNDS = (117.1, 140.3, 399.9, 465.8)
"""Mean bounding box of the mesh on the template (x0, y0, x1, y1), over the same portraits."""


FACE_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
"""Vertices of the mesh's outline, in order, from the middle of the forehead."""
SPOKES = 16
"""Number of equiangular directions, from the centre of MESH_BOUNDS, in which an outline is sampled."""
NEUTRAL_PITCH = 9.0
"""Pitch in degrees of the plane of `pose` for a frontal face: the median on our clips."""


def _weights() -> Tensor:
    """(5, 468): each row sums to 1."""
    rows = torch.zeros(5, 468, dtype=torch.float64)
    used = list(VERTICES)
    for row, weights in ((0, EYE), (2, NOSE), (3, CORNER)):
        rows[row, used] = torch.tensor(weights, dtype=torch.float64)
        rows[row] /= rows[row].sum()
    rows[1], rows[4] = rows[0, MIRRORED], rows[3, MIRRORED]
    return rows


FIVE_POINT_WEIGHTS = _weights()


def five_points(mesh: Tensor) -> Tensor:
    """(5, 2) left eye, right eye, nose, left and right mouth corner from a mesh (468 or more, 2 or 3), float32."""
    return (FIVE_POINT_WEIGHTS @ mesh[:468, :2].double()).float()


def roll_of(mesh: Tensor) -> float:
    """The angle of the line through the outer corners of the eyes, in radians; 0 is upright, positive is clockwise in the picture."""
    (x0, y0), (x1, y1) = mesh[33, :2].tolist(), mesh[263, :2].tolist()
    return math.atan2(y1 - y0, x1 - x0)


def face_box(mesh: Tensor) -> Tensor:
    """Box (4,) float32 as detectors draw it, from brow to chin: x0, y0, x1, y1."""
    back = upright_rotation(roll_of(mesh))
    upright = mesh[:468, :2].double().numpy() @ back.T
    low, high = upright.min(0), upright.max(0)
    share = (np.array([FACE_BOX[:2], FACE_BOX[2:]]) - MESH_BOUNDS[:2]) / np.subtract(MESH_BOUNDS[2:], MESH_BOUNDS[:2])
    (x0, y0), (x1, y1) = low + share * (high - low)
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]) @ back
    return torch.from_numpy(np.concatenate([corners.min(0), corners.max(0)]).astype(np.float32))


def outline(mesh: Tensor, matrix: Tensor) -> Tensor:
    """(SPOKES,) float32 radii in template pixels of the outline of a mesh (468 or more, 2 or 3), from the centre of MESH_BOUNDS.

    Clockwise from the right. matrix: (2, 3) from frame pixels to the template.
    """
    x0, y0, x1, y1 = MESH_BOUNDS
    middle = torch.tensor([(x0 + x1) / 2, (y0 + y1) / 2], dtype=torch.float64)
    spots = mesh[list(FACE_OVAL), :2].double() @ matrix[:, :2].double().mT + matrix[:, 2].double() - middle
    angles = torch.atan2(spots[:, 1], spots[:, 0]).numpy()
    wanted = np.arange(SPOKES) * (2 * math.pi / SPOKES)
    return torch.from_numpy(np.interp(wanted, angles, spots.norm(dim=1).numpy(), period=2 * math.pi).astype(np.float32))


def upright_rotation(roll: float) -> np.ndarray:
    """(2, 2) rotation that makes a face of this roll upright."""
    c, s = math.cos(roll), math.sin(roll)
    return np.array([[c, s], [-s, c]])


def pose(mesh: Tensor) -> tuple[float, float]:
    """(yaw, pitch) in degrees of a mesh (468, 3): (0, 0) is frontal, positive yaw towards the image's right, positive pitch down.

    From the normal n of the plane through the outer eye corners, the forehead and the chin:

        yaw = atan2(-n_x, n_z), pitch = atan2(-n_y, sqrt(n_x^2 + n_z^2))

    so that pure yaw does not change the pitch. Near a profile the network's depths flatten, and yaw is underestimated.
    """
    points = mesh[[33, 263, 10, 152]].double().numpy()
    normal = np.cross(points[1] - points[0], points[3] - points[2])
    x, y = upright_rotation(roll_of(mesh)) @ normal[:2]
    return math.degrees(math.atan2(-x, normal[2])), math.degrees(math.atan2(-y, math.hypot(x, normal[2]))) - NEUTRAL_PITCH
