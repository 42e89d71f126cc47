"""Detectors side by side on the same frames: faces found, eye jitter, CPU time.

    OMP_NUM_THREADS=1 python benchmarks/footage/detectors.py CLIPS [FRAMES]

CLIPS: a folder of clips; FRAMES of each, 48 by default. BlazeFace follows faces as in a run; MTCNN, where facenet-pytorch is installed, and
RetinaFace search every frame. RetinaFace has random weights: for its time only, on one frame. Jitter is the median second difference of
the eye centres over time, in percent of the eye distance. A face of MTCNN's counts as missed where no box of BlazeFace's overlaps it by 0.25.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch

from fvr.faces import Face, load_detector
from fvr.faces.detection.detectors import Detector, following
from fvr.faces.detection.retinaface import retinaface_network
from fvr.faces.geometry import iou
from fvr.video import open_source


def jitter(found: list[list[Face]]) -> float:
    """Of the best face of each frame, in percent of the eye distance; NaN for less than ten frames with one."""
    eyes = [faces[0].landmarks[:2] for faces in found if faces]
    if len(eyes) < 10:
        return float("nan")
    places = torch.stack(eyes)
    apart = (places[:, 0] - places[:, 1]).norm(dim=-1).mean()
    return float((places[2:] - 2 * places[1:-1] + places[:-2]).norm(dim=-1).median() / apart * 100)


def overlaps(face: Face, others: list[Face]) -> bool:
    """Whether one of `others` lies where `face` does."""
    return any(float(iou(face.box[None], other.box[None])) >= 0.25 for other in others)


def random_retinaface(folder: str) -> Detector:
    """RetinaFace with random weights."""
    path = Path(folder) / "detection_Resnet50_Final.pth"
    torch.save(retinaface_network().state_dict(), path)
    return load_detector("retinaface", weights=path)


def main(folder: Path, count: int) -> None:
    torch.set_num_threads(1)
    detectors = {"blazeface": load_detector("blazeface")}
    try:
        detectors["mtcnn"] = load_detector("mtcnn")
    except ImportError as error:
        print(error)
    with tempfile.TemporaryDirectory() as scratch:
        retinaface = random_retinaface(scratch)
    names = list(detectors)
    columns = ["clip", "size", *(f"faces per frame, {name}" for name in names), "missed of MTCNN's", *(f"eye jitter %, {name}" for name in names)]
    columns += [*(f"CPU ms, {name}" for name in names), "times less", "CPU ms, retinaface"]
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for clip in sorted(folder.glob("*.mp4")):
        source = open_source(clip, count=count)
        followers = {name: following(detector) for name, detector in detectors.items()}
        spent, slow = dict.fromkeys(names, 0.0), 0.0
        found: dict[str, list[list[Face]]] = {name: [] for name in names}
        for piece in source.chunks(8):
            for name, follower in followers.items():
                began = time.process_time()
                found[name] += follower(piece.frames)
                spent[name] += time.process_time() - began
            if not slow:
                began = time.process_time()
                retinaface(piece.frames[:1])
                slow = time.process_time() - began
        frames = len(found["blazeface"])
        missed = [face for a, b in zip(found.get("mtcnn", []), found["blazeface"], strict=False) for face in a if not overlaps(face, b)]
        row = [clip.name, f"{source.info.width} x {source.info.height}"]
        row += [f"{sum(map(len, found[name])) / frames:.2f}" for name in names] + [str(len(missed))]
        row += [f"{jitter(found[name]):.2f}" for name in names]
        row += [f"{1e3 * spent[name] / frames:.1f}" for name in names]
        row += [f"{spent.get('mtcnn', 0) / spent['blazeface']:.1f}", f"{1e3 * slow:.0f}"]
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 48)
