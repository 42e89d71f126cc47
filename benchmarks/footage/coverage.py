"""What the gate of occlusion sees and what it spares: the share of a face that is covered, found and true, and what restoring does there.

    OMP_NUM_THREADS=1 python benchmarks/footage/coverage.py CLIPS

Into the middle third of 24 frames of each clean clip comes a hand (of the face's own colour, from below), a bar (from the side) or a microphone (a
dark disc with a grid, on the mouth), as large as SHARES asks for; then the damage of gates.py. Tracks are found in what comes of it.
Gains are over the face with what lies before it, at full strength, gates open, on three of the covered frames: by `blind`, by the embedded
CodeFormer with nothing under it, and "painted", what a network that knows faces only would show: the restored clip with nothing before the face.
After that, how much is found where nothing lies before a face: in all clips as they are, grey, and damaged.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from gates import CLIPS, canvas, damaged
from torch import Tensor

from fvr.assembly import EMBEDDED, named_weights
from fvr.faces import FaceTrack, Paster, align, find_tracks, load_detector
from fvr.faces.geometry import side
from fvr.methods.base import restore_frames
from fvr.methods.registry import build_restorer
from fvr.video import read_frames

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
COUNT, FIRST, STOP, FACE = 24, 8, 16, 128.0
BINS = (0.0, 0.05, 0.15, 0.25, 0.35, 0.5, 1.0)
PROBED = (9, 11, 14)

Canvas = tuple[Tensor, Tensor, Tensor]
Draw = Callable[[Canvas, Tensor, Tensor, float, Tensor], tuple[Tensor, Tensor]]


def hand(canvas: Canvas, five: Tensor, box: Tensor, share: float, skin: Tensor) -> tuple[Tensor, Tensor]:
    x, y, grain = canvas
    s, top = float(side(box)), float(box[3]) - 1.1 * share * float(box[3] - box[1])
    shade = (0.8 + 0.2 * torch.cos(13 * (x - box[0]) / s)) * (0.92 + 0.16 * grain)
    return 1.05 * skin[:, None, None] * shade, (y - top + 0.5).clamp(0, 1) * ((x > box[0] - 0.2 * s) & (x < box[2] + 0.2 * s))


def bar(canvas: Canvas, five: Tensor, box: Tensor, share: float, skin: Tensor) -> tuple[Tensor, Tensor]:
    x, _, grain = canvas
    return torch.tensor([0.3, 0.45, 0.35])[:, None, None] * (0.7 + 0.6 * grain), (box[0] + 1.1 * share * (box[2] - box[0]) - x + 0.5).clamp(0, 1)


def microphone(canvas: Canvas, five: Tensor, box: Tensor, share: float, skin: Tensor) -> tuple[Tensor, Tensor]:
    x, y, _ = canvas
    s, (cx, cy) = float(side(box)), five[3:].mean(0).tolist()
    wires = ((x / (0.05 * s)).frac() < 0.3) | ((y / (0.05 * s)).frac() < 0.3)
    return torch.tensor([0.16, 0.16, 0.18])[:, None, None] + 0.18 * wires, (s * math.sqrt(share / math.pi) - (x - cx).hypot(y - cy) + 0.5).clamp(0, 1)


DRAW: dict[str, Draw] = {"hand": hand, "bar": bar, "microphone": microphone}


def longest(frames: Tensor) -> FaceTrack | None:
    tracks = find_tracks([(0, frames)], load_detector("blazeface"), recognise=False)
    return max(tracks, key=lambda t: (len(t), float(side(t.boxes).median())), default=None)


def rows_of(track: FaceTrack, rows: list[int]) -> FaceTrack:
    """A track of some of its frames."""
    part = {f.name: getattr(track, f.name)[rows] for f in fields(track) if torch.is_tensor(getattr(track, f.name)) and f.name != "embedding"}
    return replace(track, start=0, shot=(0, len(rows)), **part)


def gain(truth: Tensor, shown: Tensor, track: FaceTrack, crops: Tensor) -> list[float]:
    """By how many dB each frame comes nearer to the truth, over the box."""
    pasted, out = Paster(fade=False).paste(shown, 0, [(track, crops, None)])[0], []
    for k, box in enumerate(track.boxes.round().long().tolist()):
        part = slice(None), slice(max(box[1], 0), box[3]), slice(max(box[0], 0), box[2])
        before, now = (float((clip[k][part] - truth[k][part]).square().mean()) for clip in (shown, pasted))
        out.append(10 * math.log10(before / max(now, 1e-10)))
    return out


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    restorers = {"blind": build_restorer("blind", weights=named_weights(EMBEDDED["blind"]))}
    restorers["codeformer"] = build_restorer("codeformer", weights=named_weights(EMBEDDED["codeformer"])).precleaned_by(None)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in DRAW}
    gains: list[tuple[float, float, dict[str, float]]] = []
    lost = dict.fromkeys(SHARES, 0)
    for name in CLIPS:
        frames = read_frames(folder / name, count=COUNT)[0]
        track = longest(frames)
        assert track is not None
        clean = F.interpolate(frames, scale_factor=FACE / float(side(track.boxes).median()), mode="area")
        track = longest(clean)
        assert track is not None and len(track) == COUNT
        page, nothing = canvas(*clean.shape[-2:]), damaged(clean, 0.01 * FACE)
        for what, draw in DRAW.items():
            for share in SHARES:
                truth, masks = clean.clone(), torch.zeros(COUNT, *clean.shape[-2:])
                for k in range(FIRST, STOP):
                    x, y = track.landmarks[k, 2].round().long().tolist()
                    colour, masks[k] = draw(page, track.landmarks[k], track.boxes[k], share, clean[k, :, y - 2 : y + 3, x - 2 : x + 3].mean((1, 2)))
                    truth[k] = clean[k].lerp(colour.clamp(0, 1), masks[k])
                shown = damaged(truth, 0.01 * FACE)
                seen = longest(shown)
                if seen is None or seen.start or len(seen) < COUNT or seen.covered is None or not bool(seen.detected[FIRST:STOP].any()):
                    lost[share] += 1
                    continue
                true = [float(mask[int(b[1]) : int(b[3]), int(b[0]) : int(b[2])].mean()) for mask, b in zip(masks, track.boxes, strict=True)]
                found[what] += [(true[k], float(seen.covered[k])) for k in range(FIRST, STOP) if seen.detected[k]]
                rows = [k for k in PROBED if seen.detected[k]]
                part, before = rows_of(seen, rows), shown[rows]
                crops = {label: restore_frames(restorer, align(before, part, 0), part) for label, restorer in restorers.items()}
                crops["painted"] = restore_frames(restorers["blind"], align(nothing[rows], part, 0), part)
                values = {label: gain(truth[rows], before, part, c) for label, c in crops.items()}
                gains += [(true[k], float(seen.covered[k]), {label: v[n] for label, v in values.items()}) for n, k in enumerate(rows)]
        print(name, "done", file=sys.stderr, flush=True)
    print("| covered, true | found: hand | bar | microphone |\n| --- | --- | --- | --- |")
    for low, high in pairwise(BINS):
        cells = []
        for what in DRAW:
            some = [f for t, f in found[what] if low <= t < high]
            cells.append(f"{np.median(some):.2f} ({min(some):.2f} to {max(some):.2f})" if some else "")
        print(f"| {low:g} to {high:g} | {' | '.join(cells)} |")
    print("lost or ended:", ", ".join(f"{share:g}: {count} of {len(CLIPS) * len(DRAW)}" for share, count in lost.items()))
    print("\n| covered, found | frames | `blind`, dB | embedded CodeFormer | painted |\n| --- | --- | --- | --- | --- |")
    for low, high in pairwise(BINS):
        some = [g for _, f, g in gains if low <= f < high]
        if some:
            of = {label: [g[label] for g in some] for label in ("blind", "codeformer", "painted")}
            cells = [f"{np.mean(v):+.2f} ({min(v):+.2f})" for v in of.values()]
            print(f"| {low:g} to {high:g} | {len(some)} | {' | '.join(cells)} |")
    print("\n| nothing before it | as it is | grey | damaged |\n| --- | --- | --- | --- |")
    for path in sorted(folder.glob("*.mp4")):
        frames, cells = read_frames(path, count=48)[0], []
        for changed in (frames, frames.mean(1, keepdim=True).expand_as(frames).contiguous(), damaged(frames, 1.0)):
            track = longest(changed)
            none = track is None or track.covered is None
            cells.append("" if none else f"{float(track.covered.quantile(0.9)):.2f} ({float(track.covered.max()):.2f})")
        print(f"| {path.stem} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
