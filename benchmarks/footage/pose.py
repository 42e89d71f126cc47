"""Faces that are turned far aside, in photographs whose pose is known: what FaceMesh sees of it, what the gates do, what restoring gains.

    OMP_NUM_THREADS=1 python benchmarks/footage/pose.py PHOTOGRAPHS [METHOD ...]

PHOTOGRAPHS: a folder with pictures of one face each, and beside each a .mat of its name, as AFLW2000-3D has them: `Pose_Para` begins with pitch, yaw
and roll in radians. Each is also shown mirrored. Damage is a blur of 1 % of the face, noise of 4 grey levels and JPEG at quality 35; the truth is
the photograph. Strength is the default gates'; the methods' gains are those of full strength.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from gates import damaged, gains
from scipy.io import loadmat
from torch import Tensor

from fvr.assembly import EMBEDDED, named_weights
from fvr.faces import find_tracks, load_detector
from fvr.faces.compositing.strength import strengths
from fvr.faces.geometry import side
from fvr.methods.registry import build_restorer
from fvr.plots import decode_image

BINS = ((0, 20), (20, 40), (40, 50), (50, 60), (60, 90))


def photographs(folder: Path) -> list[tuple[float, float, Tensor]]:
    """Yaw and pitch in degrees, without their signs, and the picture (1, 3, H, W) in [0, 1], of each photograph and its mirror image."""
    found = []
    for path in sorted(folder.glob("*.mat")):
        pitch, yaw = np.rad2deg(np.abs(loadmat(path)["Pose_Para"][0, :2]))
        picture = decode_image(path.with_suffix(".jpg").read_bytes())[None]
        found += [(float(yaw), float(pitch), one) for one in (picture, picture.flip(-1))]
    return found


def main(folder: Path, methods: list[str]) -> None:
    torch.set_num_threads(1)
    detector = load_detector("blazeface")
    restorers = [build_restorer(method, weights=named_weights(EMBEDDED[method])) for method in methods]
    rows: dict[tuple[int, int], list[tuple[float, ...]]] = {}
    missed: dict[tuple[int, int], int] = {}
    for yaw, pitch, truth in photographs(folder):
        which = next(b for b in BINS if b[0] <= yaw < b[1])
        tracks = find_tracks([(0, truth)], detector, recognise=False, sure=0.0)
        if not tracks:
            missed[which] = missed.get(which, 0) + 1
            continue
        track = max(tracks, key=lambda t: float(side(t.boxes).median()))
        assert track.pose is not None
        shown = damaged(truth, 0.01 * float(side(track.boxes).median()))
        gained = [gains(truth, shown, track, restorer)[0] for restorer in restorers]
        rows.setdefault(which, []).append((yaw, pitch, *track.pose[0].abs().tolist(), float(track.scores[0]), float(strengths(track)[0]), *gained))
    print("| yaw, degrees | pictures | not found | yaw: true, seen | pitch: true, seen | score, least | strength | " + " | ".join([*methods, ""]))
    print("|" + " --- |" * (7 + len(methods)))
    for which in BINS:
        some = np.array(rows.get(which, []))
        if not len(some):
            continue
        mean = some.mean(0)
        cells = [f"{which[0]} to {which[1]}", f"{len(some)}", f"{missed.get(which, 0)}"]
        cells += [f"{mean[0]:.0f}, {mean[2]:.0f}", f"{mean[1]:.0f}, {mean[3]:.0f}"]
        cells += [f"{some[:, 4].min():.2f}", f"{mean[5]:.2f} ({some[:, 5].min():.2f} to {some[:, 5].max():.2f})"]
        cells += [f"{mean[k]:+.2f} ({some[:, k].min():+.2f})" for k in range(6, 6 + len(methods))]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
