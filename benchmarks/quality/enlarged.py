"""What --scale 2 gives a small face: python benchmarks/quality/enlarged.py CLIP [SIDE].
The truth is CLIP at twice SIDE pixels, the footage CLIP at SIDE.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fvr.cli import main
from fvr.faces import Paster, align, find_tracks, load_detector
from fvr.faces.compositing.enlarge import enlarged
from fvr.video import FrameTimes, ShotCutDetector, open_sink, read_frames

FRAMES = 6
METHODS = {
    "blind": ["--method", "blind"],
    "codeformer, embedded": ["--method", "codeformer", "--weights", "embedded codeformer"],
    "keep, embedded": ["--method", "keep", "--weights", "embedded keep"],
}


def detail(frames: Tensor, inside: Tensor) -> Tensor:
    """What frames have beyond half of their size."""
    return (frames - enlarged(F.avg_pool2d(frames, 2), 2))[inside]


def compare(place: str, side: int = 120) -> None:
    clip = read_frames(place, stride=10, count=FRAMES)[0]
    factor = 2 * side / max(clip.shape[-2:])
    height, width = (round(factor * length) // 2 * 2 for length in clip.shape[-2:])
    truth = F.interpolate(clip, (height, width), mode="area")
    small = F.interpolate(truth, (height // 2, width // 2), mode="area")
    track = find_tracks([(0, small)], load_detector("blazeface"), ShotCutDetector())[0]
    inside = Paster(scale=2, fade=False, grain="off").paste(small, 0, [(track, align(small, track, 0), None)])[1] > 0.9
    inside = inside[:, None].expand_as(truth)
    print(f"{Path(place).name}, face of {float((track.boxes[:, 2] - track.boxes[:, 0]).mean()):.0f} pixels")
    with tempfile.TemporaryDirectory() as folder:
        times, source = FrameTimes.constant(FRAMES, 25), f"{folder}/in.mkv"
        with open_sink(source, codec="ffv1") as sink:
            sink.write(small, times.starts, times.ends)
        for name, method in METHODS.items():
            out = []
            for scale in (1, 2):
                assert main(["restore", source, f"{folder}/out.mkv", "--overwrite", "--codec", "ffv1", "--scale", str(scale), *method]) == 0
                out.append(read_frames(f"{folder}/out.mkv")[0])
            shown = {"footage enlarged": enlarged(small, 2), "--scale 1 enlarged": enlarged(out[0], 2), "--scale 2": out[1]}
            for label, frames in shown.items():
                pair = torch.stack([detail(frames, inside), detail(truth, inside)])
                psnr = -10 * torch.log10((frames - truth)[inside].square().mean())
                print(f"RESULT {name}, {label}: correlation of detail {float(torch.corrcoef(pair)[0, 1]):.3f}, PSNR {float(psnr):.2f} dB", flush=True)


if __name__ == "__main__":
    compare(sys.argv[1], *map(int, sys.argv[2:]))
