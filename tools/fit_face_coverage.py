"""Chooses the vertices whose colours tell what covers a face, and how bright faces are there: prints what faces/tracking/coverage.py holds.

    python tools/fit_face_coverage.py FACES

FACES: as for tools/fit_face_points.py. Vertices are taken farthest first (Gonzalez 1985) inside the mean mesh's ellipse.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import numpy as np
import torch
from fit_face_points import meshes

from fvr.faces.detection.mesh_points import MESH_BOUNDS, five_points
from fvr.faces.detection.mesh_tracking import MeshEstimator
from fvr.faces.tracking import coverage
from fvr.plots import decode_image

COUNT, INSIDE = 128, 0.92


def spread(places: np.ndarray) -> list[int]:
    """COUNT of the vertices at places (468, 2), each as far from those before it as can be."""
    middle, half = np.add(MESH_BOUNDS[:2], MESH_BOUNDS[2:]) / 2, np.subtract(MESH_BOUNDS[2:], MESH_BOUNDS[:2]) / 2
    inside = np.flatnonzero(np.hypot(*((places - middle) / half).T) < INSIDE)
    chosen = [int(inside[np.hypot(*(places[inside] - middle).T).argmin()])]
    far = np.hypot(*(places[inside] - places[chosen[0]]).T)
    while len(chosen) < COUNT:
        chosen.append(int(inside[far.argmax()]))
        far = np.minimum(far, np.hypot(*(places[inside] - places[chosen[-1]]).T))
    return chosen


def encoded(values: np.ndarray) -> str:
    return base64.b85encode(values.round().clip(0, 255).astype(np.uint8).tobytes()).decode()


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    found = meshes(folder / "train", MeshEstimator())
    places = found.mean(0)
    chosen = spread(places)
    coverage.POINTS = tuple(chosen)
    seen = []
    for path, mesh in zip(sorted((folder / "train").glob("*.jpg")), found, strict=True):
        points = torch.from_numpy(mesh)
        seen.append(coverage.colours(decode_image(path.read_bytes()), five_points(points), points))
    light, _ = coverage.appearance(torch.stack(seen))
    print("portraits", len(found))
    print("POINTS", chosen)
    print("TEMPLATE_POSITIONS", encoded(places[chosen].astype(np.float32) / coverage.POSITION_UNIT))
    print("FACE_BRIGHTNESS", encoded(255 * light.median(0).values.numpy()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
