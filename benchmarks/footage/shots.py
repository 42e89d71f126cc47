"""How well cuts, dissolves and fades are found, against PySceneDetect's detectors where it is installed (`pip install scenedetect`).

    OMP_NUM_THREADS=1 python benchmarks/footage/shots.py CLIPS

CLIPS: a folder of clips of one shot each. Shots are their first two seconds and as many moving synthetic ones (pans and zooms over a texture);
pairs are joined in every way of `KINDS`. A hit lies within the transition and two frames on either side; everything else is a false alarm, as
is whatever is found in `one_shot`: the whole clips, and what may pass for a transition and is none.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fvr.video import ShotCutDetector, find_cuts, open_source

HEIGHT, WIDTH, LENGTH = 144, 256, 24
"""Size of the frames, PySceneDetect's own working width, and frames of a shot before and after a transition."""

LONGEST = 48
ALIKE = 0.95
"""Correlation of two shots' means from which on they show the same and are no pair."""

KINDS: dict[str, tuple[str, int]] = {
    "cut": ("cut", 0),
    "dissolve 6": ("dissolve", 6),
    "12": ("dissolve", 12),
    "24": ("dissolve", 24),
    "48": ("dissolve", 48),
    "eased 16": ("eased", 16),
    "through black 12": ("black", 12),
    "white 12": ("white", 12),
}


def read(path: Path, count: int | None) -> Tensor:
    """(n, 3, HEIGHT, WIDTH) from the clip's beginning."""
    return torch.cat([F.interpolate(piece.frames, (HEIGHT, WIDTH), mode="area") for piece in open_source(path, count=count).chunks(16)])


def texture(seed: int) -> Tensor:
    """(1, 3, 3 HEIGHT, 3 WIDTH) in [0, 1], large shapes and small ones."""
    rng = torch.Generator().manual_seed(seed)
    layers = [
        share * F.interpolate(torch.rand(1, 3, 5 * k, 8 * k, generator=rng), (3 * HEIGHT, 3 * WIDTH), mode="bicubic")
        for k, share in ((1, 0.5), (3, 0.3), (12, 0.2))
    ]
    return sum(layers, torch.zeros(1)).clamp(0, 1)


def moving(seed: int, count: int, pan: float = 0.0, zoom: float = 0.0, turn: float = 0.0) -> Tensor:
    """A camera over a texture: pan in pixels, zoom in percent, turn in degrees, per frame."""
    canvas, out = texture(seed), []
    for k in range(count):
        scale, angle = (1 + zoom / 100) ** k / 3, math.radians(turn * k)
        c, s, shift = scale * math.cos(angle), scale * math.sin(angle), pan * k * 2 / (3 * WIDTH) - min(pan * count / (3 * WIDTH), 0.6)
        matrix = torch.tensor([[[c, -s * HEIGHT / WIDTH, shift], [s * WIDTH / HEIGHT, c, 0.0]]])
        grid = F.affine_grid(matrix, [1, 3, HEIGHT, WIDTH], align_corners=False)
        out.append(F.grid_sample(canvas, grid, align_corners=False, padding_mode="reflection"))
    return torch.cat(out)


def wide(seed: int, count: int, pan: float) -> Tensor:
    """A camera that moves by `pan` pixels per frame along a wall of large shapes without detail."""
    canvas = F.interpolate(torch.rand(1, 3, 6, 18, generator=torch.Generator().manual_seed(seed)), (HEIGHT, 3 * WIDTH), mode="bicubic").clamp(0, 1)
    return torch.cat([canvas[..., round(pan * k) : round(pan * k) + WIDTH] for k in range(count)])


def joined(a: Tensor, b: Tensor, how: str, n: int) -> tuple[Tensor, range]:
    """a's beginning, a transition of n frames, b's end; and the frames at which a new shot may be said to begin."""
    head, tail = a[: LENGTH + n], b[-LENGTH - n :]
    x = ((torch.arange(n) + 1) / (n + 1)).view(-1, 1, 1, 1)
    if how in ("black", "white"):  # down, three flat frames, up
        flat = torch.full_like(head[:3], float(how == "white"))
        down, up = head[LENGTH:].lerp(flat[:1], x), flat[:1].lerp(tail[:n], x)
        return torch.cat([head[:LENGTH], down, flat, up, tail[n:]]), range(LENGTH - 2, LENGTH + 2 * n + 6)
    share = x * x * (3 - 2 * x) if how == "eased" else x
    return torch.cat([head[:LENGTH], head[LENGTH:].lerp(tail[:n], share), tail[n:]]), range(LENGTH - 2, LENGTH + n + 3)


def one_shot(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Shots without a transition: the clips whole, and what resembles one."""
    for path in sorted(folder.glob("*.mp4")):
        yield path.name, read(path, None)
    still = moving(50, 1)
    calm = moving(51, 60, pan=0.5)
    for seed in range(8):
        yield "slow pan over large shapes", wide(seed, 110, (0.8, 1.6)[seed % 2])
    yield "fast pan", moving(52, 60, pan=9)
    yield "whip pan", torch.cat([moving(53, 20), moving(53, 16, pan=24), moving(53, 20, pan=0.01)])
    yield "zoom", moving(54, 60, zoom=-1.5)
    yield "roll", moving(55, 60, turn=2)
    light = torch.linspace(0.3, 1, 20).view(-1, 1, 1, 1)
    yield "light goes up", torch.cat([calm[:20] * 0.3, calm[20:40] * light, calm[40:]])
    yield "light changes colour", calm * torch.stack([torch.linspace(1, 0.5, 60), torch.ones(60), torch.linspace(0.5, 1, 60)], 1)[..., None, None]
    yield "flicker", (calm * (0.8 + 0.2 * torch.rand(60, 1, 1, 1, generator=torch.Generator().manual_seed(0)))).clamp(0, 1)
    yield "flashes", torch.cat([calm[:20], calm[20:23].lerp(torch.ones(1), 0.8), calm[23:40], calm[40:42] * 0 + 1, calm[42:]])
    dark = torch.cat([torch.linspace(1, 0, 10), torch.zeros(5), torch.linspace(0, 1, 10)]).view(-1, 1, 1, 1)
    yield "to black and back", torch.cat([calm[:18], calm[18:43] * dark, calm[43:]])
    yield "noise", (still + 0.12 * torch.randn(60, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    crossing = calm.clone()
    for k in range(30):
        crossing[15 + k, :, :, max(0, 12 * k - WIDTH // 2) : 12 * k] = 0.3
    yield "someone crosses", crossing
    focus = [
        F.interpolate(F.avg_pool2d(f[None], k), (HEIGHT, WIDTH), mode="bilinear")
        for f, k in zip(calm[20:40], [*range(1, 11), *range(10, 0, -1)], strict=True)
    ]
    yield "focus is lost", torch.cat([calm[:20], *focus, calm[40:]])


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


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    length = LENGTH + LONGEST
    shots = [frames for path in sorted(folder.glob("*.mp4")) if len(frames := read(path, length)) == length]
    speeds = [dict(pan=1.0), dict(pan=4.0), dict(zoom=0.5), dict(zoom=-1.0), dict(turn=0.5), dict(pan=2.0, zoom=0.3)]
    shots += [moving(seed, length, **speed) for seed, speed in enumerate((speeds * 2)[: len(shots)])]
    means = torch.stack([F.adaptive_avg_pool2d(shot.mean(0), (12, 16)).flatten() for shot in shots])
    alike = torch.corrcoef(means) > ALIKE
    pairs = [(i, j) for i, j in permutations(range(len(shots)), 2) if not alike[i, j]][::11]
    still = list(one_shot(folder))
    detectors: dict[str, Callable[[Tensor], list[int]]] = {
        "ours": lambda frames: find_cuts(frames, ShotCutDetector()),
        "ours, cuts only": lambda frames: find_cuts(frames, ShotCutDetector(gradual=False)),
    }
    try:
        import scenedetect as package  # noqa: F401

        for name in ("AdaptiveDetector", "ContentDetector", "HistogramDetector", "ThresholdDetector"):
            detectors[name] = lambda frames, name=name: scenedetect(name, frames)
    except ImportError:
        print("PySceneDetect is not installed: pip install scenedetect")
    print(f"{len(shots)} shots, {len(pairs)} pairs, {sum(len(frames) for _, frames in still):,} frames without a transition\n")
    spent, frames = dict.fromkeys(detectors, 0.0), 0
    found = {name: dict.fromkeys(KINDS, 0) for name in detectors}
    false: dict[str, dict[str, int]] = {name: {} for name in detectors}

    def run(name: str, shot: Tensor) -> list[int]:
        began = time.process_time()
        cuts = detectors[name](shot)
        spent[name] += time.process_time() - began
        return cuts

    for kind, (how, n) in KINDS.items():
        for i, j in pairs:
            clip, place = joined(shots[i], shots[j], how, n)
            frames += len(clip)
            for name in detectors:
                cuts = run(name, clip)
                found[name][kind] += any(cut in place for cut in cuts)
                false[name][kind] = false[name].get(kind, 0) + sum(cut not in place for cut in cuts)
    for label, shot in still:
        frames += len(shot)
        for name in detectors:
            false[name][label] = false[name].get(label, 0) + len(run(name, shot))
    print("| detector | " + " | ".join(KINDS) + " | false | precision | recall | ms per frame |")
    print("| --- |" + " --- |" * (len(KINDS) + 4))
    for name in detectors:
        hits, wrong = sum(found[name].values()), sum(false[name].values())
        row = [str(found[name][kind]) for kind in KINDS]
        row += [str(wrong), f"{hits / max(hits + wrong, 1):.3f}", f"{hits / (len(pairs) * len(KINDS)):.3f}", f"{1e3 * spent[name] / frames:.2f}"]
        print(f"| {name} | {' | '.join(row)} |")
    print()
    for name in detectors:
        print(f"false, {name}: " + (", ".join(f"{label} {count}" for label, count in false[name].items() if count) or "none"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
