"""What the occlusion mask does: PSNR over what lies before a face, and over the face, with and without it.

    OMP_NUM_THREADS=1 python benchmarks/footage/occlusion.py CLIPS [FILE.jpg]

Three frames of each of two clean clips; a hand (a bar of skin colour with fingers' shades), a microphone (a dark disc with a grid) and strands of
hair move over the face, then the damage of gates.py. Restored by `blind`; by the embedded CodeFormer without anything under it; and
"painted": what a network that sees only faces would show, which is the restored clip that had nothing before the face. Gates are open.
FILE.jpg: the last frames of everything. Last, what the mask costs a network that could do everything: the clean crops with nothing before the face
are pasted into ever more blurred frames, with each frame's own outline and with the mean mesh's.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from gates import damaged, shrunk, tracks_of
from torch import Tensor

from fvr.assembly import EMBEDDED, named_weights
from fvr.faces import FaceTrack, Paster, align, load_detector
from fvr.faces.detection.blazeface import BlazeFaceDetector
from fvr.faces.geometry import side
from fvr.methods.registry import build_restorer
from fvr.training.sheet import sheet_png

CLIPS = {"clean_face_512.mp4": 0, "clean_face_480_tone.mp4": 0}
IDEAL = (*CLIPS, "scene_720p_clean.mp4", "edge_rotation90_flag.mp4")
BLURS = (0.015, 0.04, 0.08)
"""Standard deviations as shares of the face's side."""
SIZES = (160, 48)
"""Sides of the face, in pixels."""


def occluders(frames: Tensor, track: FaceTrack) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, frames (n, 3, H, W) with something before the face, and its mask (n, H, W)."""
    height, width = frames.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    rng = torch.Generator().manual_seed(3)
    s = float(side(track.boxes).median())
    grain = F.interpolate(torch.rand(1, 1, 40, 40, generator=rng), (height, width), mode="bicubic")[0, 0].clamp(0, 1)

    def hand(k: int, five: Tensor) -> tuple[Tensor, Tensor]:
        centre = five[2] + torch.tensor([(-0.35 + 0.1 * k) * s, 0.1 * s])
        u = (x - centre[0]) * math.cos(0.5) + (y - centre[1]) * math.sin(0.5)
        v = (y - centre[1]) * math.cos(0.5) - (x - centre[0]) * math.sin(0.5)
        mask = (0.11 * s - u.abs() + 0.5).clamp(0, 1) * (0.6 * s - v.abs() + 0.5).clamp(0, 1)
        shade = (0.8 + 0.2 * torch.cos(13 * u / s)) * (1 - 0.25 * ((6 * v / s).frac().abs() < 0.12).float()) * (0.92 + 0.16 * grain)
        return torch.tensor([0.80, 0.60, 0.50])[:, None, None] * shade, mask

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

    for name, draw in (("hand", hand), ("microphone", microphone), ("hair", hair)):
        drawn = [draw(k, five) for k, five in enumerate(track.landmarks)]
        masks = torch.stack([mask for _, mask in drawn])
        yield name, frames.lerp(torch.stack([colour for colour, _ in drawn]).clamp(0, 1), masks[:, None]), masks


def psnr(shown: Tensor, truth: Tensor, weight: Tensor) -> float:
    """In dB, over frames (n, 3, H, W) weighted by (n, H, W)."""
    return 10 * math.log10(float(3 * weight.sum() / ((shown - truth).square() * weight[:, None]).sum()))


def ideal(folder: Path, detector: BlazeFaceDetector) -> None:
    """The table of the restorer that gives the truth."""
    found: dict[tuple[str, int, float], list[list[float]]] = {}
    for name in IDEAL:
        frames, (track, *_) = tracks_of(folder / name, detector, 24)
        for size in SIZES:
            clean, small = shrunk(frames, track, size / float(side(track.boxes).median()))
            face = torch.zeros_like(clean[:, 0])
            for k, box in enumerate(small.boxes.round().long().tolist()):
                face[k, max(box[1], 0) : box[3], max(box[0], 0) : box[2]] = 1
            restored = align(clean, small, 0)
            for what, truth, mask in [("nothing", clean, torch.zeros_like(face)), *occluders(clean, small)]:
                for blur in BLURS:
                    shown = damaged(truth, blur * size)
                    ways = (("off", small), ("auto", replace(small, outline=None)), ("auto", small))
                    clips = [shown, *(Paster(fade=False, occlusion=mode).paste(shown, 0, [(t, restored, None)])[0] for mode, t in ways)]
                    before = [psnr(clip, truth, mask) if what != "nothing" else math.nan for clip in clips[1:]]
                    found.setdefault((what, size, blur), []).append([*before, *(psnr(clip, truth, face * (mask < 0.01)) for clip in clips)])
    print("\n| before it | face | blur | occluder: off | mean outline | own | face: damaged | off | mean outline | own |\n|" + " --- |" * 10)
    for (what, size, blur), rows in sorted(found.items()):
        print(f"| {what} | {size} px | {blur:g} | " + " | ".join(f"{v:.2f}" for v in torch.tensor(rows).mean(0).tolist()) + " |")


def main(folder: Path, sheet: str | None) -> None:
    torch.set_num_threads(1)
    detector = load_detector("blazeface")
    assert isinstance(detector, BlazeFaceDetector)
    restorers = {"blind": build_restorer("blind", weights=named_weights(EMBEDDED["blind"]))}
    restorers["codeformer"] = build_restorer("codeformer", weights=named_weights(EMBEDDED["codeformer"])).on_floor(None)
    pictures = []
    print("| clip | face | before it | method | occluder: damaged | no mask | mask | face: damaged | no mask | mask |\n| " + " --- |" * 10)
    for name, first in CLIPS.items():
        frames, (track, *_) = tracks_of(folder / name, detector, first)
        for size in SIZES:
            clean, small = shrunk(frames, track, size / float(side(track.boxes).median()))
            face = torch.zeros_like(clean[:, 0])
            for k, box in enumerate(small.boxes.round().long().tolist()):
                face[k, max(box[1], 0) : box[3], max(box[0], 0) : box[2]] = 1
            painted = None
            for what, truth, mask in [("nothing", clean, torch.zeros_like(face)), *occluders(clean, small)]:
                shown = damaged(truth, 0.015 * size)
                crops = align(shown, small, 0)
                results = {}
                for method, restorer in restorers.items():
                    session = restorer.open(small, seed=0)
                    results[method] = torch.cat([session.push(crops), session.close()])
                painted = painted if painted is not None else results["blind"]
                results["painted"] = painted
                for method, restored in results.items():
                    if what == "nothing" and method == "painted":
                        continue
                    clips = [shown, *(Paster(fade=False, occlusion=mode).paste(shown, 0, [(small, restored, crops)])[0] for mode in ("off", "auto"))]
                    before = [f"{psnr(clip, truth, mask):.2f}" if what != "nothing" else "" for clip in clips]
                    rest = [f"{psnr(clip, truth, face * (mask < 0.01)):.2f}" for clip in clips]
                    print("| " + " | ".join([name, f"{size} px", what, method, *before, *rest]) + " |", flush=True)
                    if method != "codeformer":
                        pictures.append(torch.cat([align(clip, small, 0)[-1:] for clip in (*clips, truth)]))
    ideal(folder, detector)
    if sheet:
        sheet_png(torch.stack([F.avg_pool2d(row, 4) for row in pictures]), Path(sheet))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
