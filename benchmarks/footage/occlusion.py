"""What the occlusion mask does: PSNR over what lies before a face, and over the face, with and without it.

    OMP_NUM_THREADS=1 python benchmarks/footage/occlusion.py CLIPS

Three frames of each of four clean clips; before the face, in all of them, are a hand of another colour (a bar with fingers' shades), one of its
own colour (fingers from below), a microphone (a dark disc with a grid), strands of hair, or a board with letters. Then frames are halved and
enlarged, with noise and JPEG (DAMAGES, "half"), or blurred by a share of the face's side. Restored, on the first clip, by `blind`, by the embedded
CodeFormer without `blind` under it, and by the embedded KEEP as it is used; on all of them "painted": what a network that knows faces only would
show, which is the restored clip that had nothing before the face; and "truth", such a network that restores everything. Measured in the crops,
inside the mesh, as mixed by the mask alone.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from gates import canvas, damaged, shrunk, tracks_of
from torch import Tensor

from fvr.assembly import EMBEDDED, named_weights
from fvr.faces import CROP, FaceTrack, align, load_detector
from fvr.faces.compositing.occlusion import outside_mesh, unoccluded
from fvr.faces.detection.blazeface import BlazeFaceDetector
from fvr.faces.geometry import scales, side
from fvr.methods.base import restore_frames
from fvr.methods.registry import build_restorer

CLIPS = {"clean_face_512.mp4": 0, "scene_720p_clean.mp4": 24, "clean_face_480_tone.mp4": 30, "edge_rotation90_flag.mp4": 10}
DAMAGES = {"half": 0.0, "blur 0.04": 0.04}
"""Deviations of the blur as shares of the face's side."""
SIZES = (160, 48)
"""Sides of the face, in pixels."""


def occluders(frames: Tensor, track: FaceTrack) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, frames (n, 3, H, W) with something before the face, and its mask (n, H, W)."""
    height, width = frames.shape[-2:]
    x, y, grain = canvas(height, width)
    s = float(side(track.boxes).median())

    def hand(k: int, five: Tensor) -> tuple[Tensor, Tensor]:
        centre = five[2] + torch.tensor([(-0.35 + 0.1 * k) * s, 0.1 * s])
        u = (x - centre[0]) * math.cos(0.5) + (y - centre[1]) * math.sin(0.5)
        v = (y - centre[1]) * math.cos(0.5) - (x - centre[0]) * math.sin(0.5)
        mask = (0.11 * s - u.abs() + 0.5).clamp(0, 1) * (0.6 * s - v.abs() + 0.5).clamp(0, 1)
        shade = (0.8 + 0.2 * torch.cos(13 * u / s)) * (1 - 0.25 * ((6 * v / s).frac().abs() < 0.12).float()) * (0.92 + 0.16 * grain)
        return torch.tensor([0.80, 0.60, 0.50])[:, None, None] * shade, mask

    def own_hand(k: int, five: Tensor) -> tuple[Tensor, Tensor]:
        column, line = five[2].round().long().tolist()
        skin = frames[k, :, max(line - 2, 0) : line + 3, max(column - 2, 0) : column + 3].mean((1, 2))
        u = (x - five[2, 0] + 0.05 * k * s) / (0.13 * s)  # in fingers
        across = 2 * (u - u.floor() - 0.5)
        mask = (y - five[2, 1] - (0.12 - 0.02 * k) * s - 0.1 * s * across**2 + 0.5).clamp(0, 1) * (u.abs() < 2.2)
        return 1.03 * skin[:, None, None] * (0.95 - 0.5 * (across.abs() > 0.88).float()) * (0.9 + 0.15 * grain) * (1 - 0.12 * across**2), mask

    def microphone(k: int, five: Tensor) -> tuple[Tensor, Tensor]:
        centre = five[3:].mean(0) + torch.tensor([0.02 * k * s, 0.12 * s])
        mask = (0.19 * s - (x - centre[0]).hypot(y - centre[1]) + 0.5).clamp(0, 1)
        wires = ((x / (0.05 * s)).frac() < 0.3) | ((y / (0.05 * s)).frac() < 0.3)
        return torch.tensor([0.16, 0.16, 0.18])[:, None, None] + 0.18 * wires, mask

    def hair(k: int, five: Tensor) -> tuple[Tensor, Tensor]:
        mask = torch.zeros(height, width)
        for strand in range(4):
            bend = five[0, 0] + (0.1 * strand - 0.1 + 0.02 * k) * s + 0.06 * s * torch.sin((y - five[0, 1]) / (0.4 * s))
            mask = torch.maximum(mask, (0.016 * s - (x - bend).abs() + 0.5).clamp(0, 1) * ((five[2, 1] - y) / 4).clamp(0, 1))
        return torch.tensor([0.12, 0.08, 0.06])[:, None, None] * (0.8 + 0.4 * grain), mask

    def board(k: int, five: Tensor) -> tuple[Tensor, Tensor]:
        centre = five[3:].mean(0) + torch.tensor([0.03 * k * s, 0.15 * s])
        mask = (0.45 * s - (x - centre[0]).abs() + 0.5).clamp(0, 1) * (0.22 * s - (y - centre[1]).abs() + 0.5).clamp(0, 1)
        page = np.full((height, width, 3), 237, np.uint8)
        start = int(centre[0] - 0.4 * s), int(centre[1] + 0.06 * s)
        cv2.putText(page, "HELLO 27", start, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * s / 150, (26, 26, 31), max(1, int(0.03 * s)), cv2.LINE_AA)
        return torch.from_numpy(page).permute(2, 0, 1).float() / 255, mask

    for draw in (hand, own_hand, microphone, hair, board):
        drawn = [draw(k, five) for k, five in enumerate(track.landmarks)]
        masks = torch.stack([mask for _, mask in drawn])
        yield draw.__name__.replace("_", " "), frames.lerp(torch.stack([colour for colour, _ in drawn]).clamp(0, 1), masks[:, None]), masks


def psnr(shown: Tensor, truth: Tensor, weight: Tensor) -> float:
    """In dB, over frames (n, 3, H, W) weighted by (n, H, W); nothing counts as less than 1e-8, 80 dB."""
    return 10 * math.log10(float(3 * weight.sum() / ((shown - truth).square() * weight[:, None]).sum().clamp(min=3e-8 * float(weight.sum()))))


def harmed(truth: Tensor, damage: str, size: int) -> Tensor:
    if damage != "half":
        return damaged(truth, DAMAGES[damage] * size)
    small = damaged(F.interpolate(truth, scale_factor=0.5, mode="area"), 0.3)
    return F.interpolate(small, truth.shape[-2:], mode="bicubic").clamp(0, 1)


def table(found: dict[tuple[str, ...], list[list[float]]]) -> None:
    print(f"\n| face | damage | before it | restored by | occluder: damaged | off | on | face: damaged | off | on |\n|{' --- |' * 10}")
    for key, rows in found.items():
        cells = ["" if math.isnan(v) else f"{v:.2f}" for v in torch.tensor(rows).mean(0).tolist()]
        print(f"| {' | '.join([*key, *cells])} |", flush=True)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    detector = load_detector("blazeface")
    assert isinstance(detector, BlazeFaceDetector)
    built = {name: build_restorer(name, weights=named_weights(EMBEDDED[name])) for name in ("blind", "codeformer", "keep")}
    restorers = {"blind": built["blind"], "codeformer alone": built["codeformer"].precleaned_by(None), "keep": built["keep"]}
    found: dict[bool, dict[tuple[str, ...], list[list[float]]]] = {True: {}, False: {}}
    for name, first in CLIPS.items():
        frames, (track, *_) = tracks_of(folder / name, detector, first)
        for size in SIZES:
            clean, small = shrunk(frames, track, size / float(side(track.boxes).median()))
            perfect, painted = align(clean, small, 0), dict[str, Tensor]()
            face, scale = 1 - outside_mesh(CROP, small.outline)[:, 0], float(scales(small.matrices).median())
            for what, covered, mask in [("nothing", clean, torch.zeros_like(clean[:, 0])), *occluders(clean, small)]:
                truth, over = align(covered, small, 0), align(mask[:, None].expand(-1, 3, -1, -1), small, 0)[:, 0]
                for damage in DAMAGES:
                    crops = align(harmed(covered, damage, size), small, 0)
                    painted.setdefault(damage, restore_frames(restorers["blind"], crops, small) if what == "nothing" else crops)
                    results = {"painted": painted[damage], "truth": perfect}
                    if name == next(iter(CLIPS)) and size == max(SIZES):
                        some = restorers if damage == "half" else {k: r for k, r in restorers.items() if k != "keep"}
                        results |= {label: restore_frames(restorer, crops, small) for label, restorer in some.items()}
                    for label, result in results.items():
                        mixed = crops.lerp(result, unoccluded(result, crops, scale, small.outline)[:, None])
                        clips = crops, result, mixed
                        before = [psnr(clip, truth, face * over * (over > 0.5)) if what != "nothing" else math.nan for clip in clips]
                        rest = [psnr(clip, truth, face * (over < 0.01)) for clip in clips]
                        found[label in restorers].setdefault((f"{size} px", damage, what, label), []).append([*before, *rest])
        print(name, "done", file=sys.stderr, flush=True)
        if name == next(iter(CLIPS)):
            table(found[True])
    table(found[False])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
