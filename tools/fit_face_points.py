"""Fits the five points of the template as weighted means of FaceMesh's: prints what faces/detection/mesh_points.py holds.

    python tools/fit_face_points.py FACES

FACES: a folder with train/ and val/ of 512 x 512 portraits that are aligned to the template. Each point is sum_i w_i m_i with sum_i w_i = 1,
so it moves, turns and scales with the face; least squares towards the template, a ridge towards the plain mean of the vertices that lie
there, left and right mirrored.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from fvr.faces.detection.mesh_points import MIRRORED, VERTICES, roll_of
from fvr.faces.detection.mesh_tracking import MeshEstimator, region_of
from fvr.faces.geometry import FACE_BOX, TEMPLATE
from fvr.plots import decode_image

RIDGE = 1e3
"""Pixels squared, per portrait: how much worse the fit must be for a weight to leave the plain mean by 1."""

SHOWN = ("eye", "nose", "mouth corner")
PLAIN = {0: (33, 133, 159, 145), 2: (1,), 3: (61,)}
"""Left eye, nose, left mouth corner: the vertices that lie there. Their plain mean is 3 to 9 % of the eye distance off the template."""


def meshes(folder: Path, mesh_estimator: MeshEstimator) -> np.ndarray:
    """(n, 468, 2): the mesh of each portrait, in its pixels."""
    found = []
    for path in sorted(folder.glob("*.jpg")):
        picture = np.ascontiguousarray(decode_image(path.read_bytes()))
        points = torch.tensor(FACE_BOX).reshape(2, 2)
        turn = 0.0
        for _ in range(3):
            points, _ = mesh_estimator(picture, region_of(points, turn))
            turn = roll_of(points)
        found.append(points[:, :2])
    return np.stack(found)


def fit(points: np.ndarray, corner: int) -> np.ndarray:
    """Weights (len(VERTICES),) of one point: 0 the left eye, 2 the nose, 3 the left mouth corner."""
    width = 2 * float(TEMPLATE[2, 0])
    mirrored = points[:, MIRRORED].copy()
    mirrored[:, :, 0] = width - mirrored[:, :, 0]
    target = np.asarray(TEMPLATE)[corner]
    plain = np.zeros(len(VERTICES))
    plain[[VERTICES.index(v) for v in PLAIN[corner]]] = 1 / len(PLAIN[corner])
    twin = {0: 1, 3: 4}.get(corner)
    other = target if twin is None else np.array([width - float(TEMPLATE[twin, 0]), float(TEMPLATE[twin, 1])])
    rows, wanted = [], []
    for faces, aim in ((points[:, VERTICES], target), (mirrored[:, VERTICES], other)):
        for axis in (0, 1):
            rows.append(faces[:, :, axis] - faces[:, :, axis] @ plain[:, None])
            wanted.append(aim[axis] - faces[:, :, axis] @ plain)
    a, b = np.concatenate(rows), np.concatenate(wanted)
    n = len(VERTICES)
    system = a.T @ a + RIDGE * len(points) * np.eye(n)
    # sum of the changes is 0, by a Lagrange multiplier
    full = np.block([[system, np.ones((n, 1))], [np.ones((1, n)), np.zeros((1, 1))]])
    return plain + np.linalg.solve(full, np.append(a.T @ b, 0))[:n]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    mesh_estimator = MeshEstimator()
    train, held = meshes(folder / "train", mesh_estimator), meshes(folder / "val", mesh_estimator)
    for name, corner in zip(SHOWN, (0, 2, 3), strict=True):
        weights = fit(train, corner)
        off = held[:, VERTICES, :] * weights[None, :, None]
        error = off.sum(1) - np.asarray(TEMPLATE)[corner]
        print(name, "held out: mean", error.mean(0).round(2), "standard deviation", error.std(0).round(2))
        print([round(float(w), 4) for w in weights])
    bounds = np.concatenate([train.min(1), train.max(1)], 1).mean(0)
    print("bounds of the mesh on the template", bounds.round(1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
