"""CPU time of single nodes, as the help pages tell it: OMP_NUM_THREADS=1 python benchmarks/cost/nodes.py CLIPS [--only faces restorers ...]

Clips are scene_720p_clean.mp4 (1280 x 720, one face) and clean_face_512.mp4. Milliseconds are CPU time of all threads per frame, so others on the
machine stretch them little; the first call of each node, which loads what it needs, is not counted.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fvr import host
from fvr.nodes.compare import CompareVideos
from fvr.nodes.crops import CropsToFaces
from fvr.nodes.degradation import Degrade, FitDegradation
from fvr.nodes.faces import FaceAlign, PasteBack
from fvr.nodes.measure import MeasureRestoration
from fvr.nodes.restorers import LoadFaceRestorer, RestoreFaces
from fvr.nodes.video import LoadVideoFrames, SaveVideoFrames
from fvr.physics.registry import KINDS

SCENE, FACE = "scene_720p_clean.mp4", "clean_face_512.mp4"


def cost(name: str, node: Any, among: int, **inputs: Any) -> Any:
    """Runs a node twice and prints the second run's CPU time a frame; what it gave comes back."""
    node.execute(**inputs)
    begun = time.process_time()
    result = node.execute(**inputs).result
    print(f"| {name} | {1000 * (time.process_time() - begun) / among:.1f} |", flush=True)
    return result


def frames_of(clip: str, count: int) -> Any:
    return LoadVideoFrames.execute(file=clip, max_frames=count).result[0]


def faces(count: int = 24) -> None:
    scene = frames_of(SCENE, count)
    found, crops, *_ = cost("Face Align, 1280 x 720", FaceAlign, count, frames=scene, detector="blazeface")
    cost("Crops to Faces", CropsToFaces, count, faces=found, crops=1 - crops)
    cost("Paste Back, 1280 x 720", PasteBack, count, frames=scene, faces=found)


def comparing(count: int = 12) -> None:
    face = frames_of(FACE, count)
    for mode in ("side_by_side", "split", "difference"):
        cost(f"Compare Videos, {mode}, 512 x 512", CompareVideos, count, a=face, b=face.flip(2), mode={"mode": mode})


def damaging(count: int = 8) -> None:
    face = frames_of(FACE, count)
    for kind in KINDS:
        cost(f"Degrade, {kind}, 512 x 512", Degrade, count, frames=face, kind={"kind": kind})
    cost("Fit Degradation, 512 x 512, the clip", FitDegradation, 1, frames=face)


def saving(count: int = 24) -> None:
    scene = frames_of(SCENE, count)
    for codec in ("h264", "h265", "av1", "ffv1"):
        cost(f"Save Video Frames, {codec}, 1280 x 720", SaveVideoFrames, count, frames=scene, codec=codec)


def measuring(count: int = 8) -> None:
    face = frames_of(FACE, count)
    for name, given in (
        ("by itself", {}),
        ("with a reference", {"reference": face}),
        ("with both and the detector", {"reference": face, "detector": "blazeface"}),
    ):
        cost(f"Measure Restoration, {name}, 512 x 512", MeasureRestoration, count, restored=face.roll(1, 2), **given)


def restorers(count: int = 6) -> None:
    face = frames_of(FACE, count)
    for precision in ("float32", "bfloat16"):
        for name in ("blind", "codeformer", "keep", "dicface"):
            loaded = LoadFaceRestorer.execute(model=f"embedded {name}", precision=precision).result[0]
            cost(f"embedded {name}, {precision}, a crop of 512", RestoreFaces, count, restorer=loaded, frames=face)
    print(f"peak of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


PARTS: dict[str, Callable[[], None]] = {part.__name__: part for part in (faces, comparing, damaging, saving, measuring, restorers)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, host.workspace(input=options.clips, output=scratch, temp=scratch):
        for part in options.only:
            PARTS[part]()


if __name__ == "__main__":
    main()
