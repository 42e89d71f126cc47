"""How well cuts, dissolves and fades are found: clips joined in pairs, against PySceneDetect where it is installed.

    python benchmarks/shots.py CLIPS

CLIPS: a folder of one-shot clips. Every ordered pair is joined by a cut, dissolves of 8, 12 and 24 frames and a fade through black of 12;
each clip alone must give nothing. A hit lies within half the transition and two frames of its middle.
"""

from __future__ import annotations

import sys
import time
from itertools import permutations
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fvr.video import ShotCutDetector, find_cuts, open_source

HEIGHT, WIDTH, LENGTH = 120, 160, 30
KINDS = {"cut": 0, "dissolve 8": 8, "dissolve 12": 12, "dissolve 24": 24, "fade 12": 12}


def read(path: Path) -> Tensor:
    """(2 LENGTH, 3, HEIGHT, WIDTH) from the clip's beginning."""
    frames = [F.interpolate(piece.frames, (HEIGHT, WIDTH), mode="area") for piece in open_source(path, count=2 * LENGTH).chunks(16)]
    return torch.cat(frames)


def joined(a: Tensor, b: Tensor, kind: str) -> Tensor:
    """a's beginning, the transition, b's end: 2 LENGTH frames and the transition between them."""
    n = KINDS[kind]
    head, tail = a[: LENGTH + n], b[-LENGTH - n :]
    if kind.startswith("dissolve"):
        mix = (torch.arange(n) + 1).view(-1, 1, 1, 1) / (n + 1)
        between = (1 - mix) * head[LENGTH:] + mix * tail[:n]
        return torch.cat([head[:LENGTH], between, tail[n:]])
    if kind.startswith("fade"):
        down = 1 - (torch.arange(n) + 1).view(-1, 1, 1, 1) / n
        return torch.cat([head[:LENGTH], head[LENGTH:] * down, torch.zeros_like(head[:3]), tail[:n] * down.flip(0), tail[n:]])
    return torch.cat([head[:LENGTH], tail[n:]])


def scenedetect(name: str, frames: Tensor) -> list[int]:
    """PySceneDetect's detector `name` with its own settings."""
    import scenedetect as package

    detector = getattr(package, name)()
    pictures = frames.flip(1).permute(0, 2, 3, 1).mul(255).round().byte().numpy()
    found = []
    for index, picture in enumerate(pictures):
        timecode = package.FrameTimecode(index, 25.0)
        found += detector.process_frame(timecode, picture)
    last = package.FrameTimecode(len(frames), 25.0)
    return [int(cut.frame_num if hasattr(cut, "frame_num") else cut.get_frames()) for cut in [*found, *detector.post_process(last)]]


def score(detect, clips: list[Tensor], pairs: list[tuple[int, int]]) -> dict[str, tuple[int, int, int]]:
    """Per kind: hits, misses, false alarms."""
    out = {"one shot": (0, 0, sum(len(detect(clip)) for clip in clips))}
    for kind, n in KINDS.items():
        hits = misses = false = 0
        middle = LENGTH + (n + 3 / 2 if kind.startswith("fade") else n / 2)
        around = (n + 1.5 if kind.startswith("fade") else n / 2) + 2
        for i, j in pairs:
            found = detect(joined(clips[i], clips[j], kind))
            near = [cut for cut in found if abs(cut - middle) <= around]
            hits, misses, false = hits + bool(near), misses + (not near), false + len(found) - len(near)
        out[kind] = (hits, misses, false)
    return out


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    clips = [frames for path in sorted(folder.glob("*.mp4")) if len(frames := read(path)) >= 2 * LENGTH]
    pairs = list(permutations(range(len(clips)), 2))[::3]
    detectors = {"ours, gradual": lambda frames: find_cuts(frames, ShotCutDetector(gradual=True))}
    detectors["ours"] = lambda frames: find_cuts(frames, ShotCutDetector())
    try:
        import scenedetect as package  # noqa: F401

        for name in ("AdaptiveDetector", "ContentDetector", "HistogramDetector", "ThresholdDetector"):
            detectors[name] = lambda frames, name=name: scenedetect(name, frames)
    except ImportError:
        print("PySceneDetect is not installed: pip install scenedetect")
    print(f"{len(clips)} clips, {len(pairs)} pairs\n")
    print("| detector | " + " | ".join(KINDS) + " | precision | recall | false in one shot | ms per frame |")
    print("| --- |" + " --- |" * (len(KINDS) + 4))
    for name, detect in detectors.items():
        began = time.process_time()
        found = score(detect, clips, pairs)
        spent = (time.process_time() - began) / (len(clips) * 2 * LENGTH + len(pairs) * sum(2 * LENGTH + n for n in KINDS.values()))
        hits, misses, false = (sum(found[kind][k] for kind in KINDS) for k in range(3))
        false += found["one shot"][2]
        row = [f"{found[kind][0]} of {len(pairs)}" for kind in KINDS]
        row += [f"{hits / max(hits + false, 1):.3f}", f"{hits / (hits + misses):.3f}", str(found["one shot"][2]), f"{1e3 * spent:.1f}"]
        print(f"| {name} | {' | '.join(row)} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
