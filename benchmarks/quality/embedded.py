"""What the embedded face codebook restores: PSNR and SSIM against bicubic enlargement, on faces and clips that it never saw.

    python benchmarks/quality/embedded.py --faces ../shared/faces --clips ../shared/clips [--weights FILE] [--sheet FILE.png] [--limit N]

Three tables. "Native": faces of the validation split, and the clips' aligned faces, at the network's own side, degraded there; the
network, filling in what its input lacks. "Crops": the clips' aligned faces as crops of 512, degraded as such, through the whole path
(down to the native side, the network, completed by what the crop itself shows); the row "clean" is that path on faces that need nothing.
"Speed": restored faces per second.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from fvr.faces.align import align
from fvr.faces.detection.detectors import load_detector
from fvr.faces.tracking.selection import select_tracks
from fvr.faces.tracking.tracks import find_tracks
from fvr.methods.base import from_network, resized, to_network
from fvr.methods.detail_fusion import completed, merged
from fvr.metrics.fidelity import psnr, ssim
from fvr.models.codeformer.network import CodeFormer
from fvr.models.embedded import CODEBOOK, FOLDER, read_embedded
from fvr.physics.parser import parse
from fvr.training.degradations import JUDGED, judged
from fvr.training.faces import Faces
from fvr.training.sheet import sheet_png
from fvr.video import read_frames

CLIPS = ("clean_face_512.mp4", "scene_720p_clean.mp4")
EVERY, COUNT = 30, 4
"""Frames of a clip that are measured: so many, so far apart."""
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=FOLDER / CODEBOOK)
    parser.add_argument("--sheet", type=Path, help="write a sheet of the clips' faces and some of the validation split here")
    parser.add_argument("--limit", type=int, default=88, help="faces of the validation split")
    parser.add_argument("--fidelity", type=float, default=1.0)
    options = parser.parse_args()
    network = load(options.weights)
    side = network.config.side

    @torch.inference_mode()
    def restore(images: Tensor) -> Tensor:
        """(n, 3, S, S) around [-1, 1] from crops in [0, 1]."""
        seen = to_network(images, side, CPU)
        return torch.cat([network(part, options.fidelity, match=False) for part in seen.split(8)])

    held_out = Faces(options.faces, "val", side)
    count = min(options.limit, len(held_out))
    sets = {f"{count} validation faces": torch.stack([held_out.face(i) for i in range(count)])}
    crops = {name: aligned(options.clips / name) for name in CLIPS}
    sets |= {name: resized(found, side, "bilinear") for name, found in crops.items()}
    print(f"{options.weights.name}, {side} x {side}, w = {options.fidelity:g}. PSNR in dB / SSIM.\n")
    print("## Native\n\n| faces | degradation | bicubic | restored | gain |\n| --- | --- | --- | --- | --- |")
    native(sets, restore)
    print("\n## Crops of 512\n\n| clip | degradation | bicubic | native size, enlarged | completed | gain |\n| --- | --- | --- | --- | --- | --- |")
    whole(crops, restore)
    faces = crops[CLIPS[0]][:1]
    restore(faces)
    started, runs = time.perf_counter(), 8
    for _ in range(runs):
        completed(restore(faces), faces)
    pace = runs / (time.perf_counter() - started)
    print(f"\n## Speed\n\n{pace:.1f} faces/s, one at a time, {torch.get_num_threads()} threads")
    if options.sheet:
        sheet_png(sheet(sets, restore), options.sheet)


def load(path: Path) -> CodeFormer:
    """The network of an embedded file, or of one that training left."""
    network = CodeFormer.of(read_embedded(path.resolve()))
    return network.to(memory_format=torch.channels_last).requires_grad_(False)


def aligned(path: Path) -> Tensor:
    """Aligned crops of a clip's largest face, (COUNT, 3, 512, 512)."""
    frames, _ = read_frames(path)
    detector = load_detector()
    crops = []
    for frame in frames[::EVERY][:COUNT].split(1):
        track = select_tracks(find_tracks([(0, frame)], detector), "largest")[0]
        crops.append(align(frame, track, 0))
    return torch.cat(crops)


def native(sets: dict[str, Tensor], restore: Callable[[Tensor], Tensor]) -> None:
    """The first table."""
    for name, truth in sets.items():
        for degradation in JUDGED:
            source = judged(degradation, truth, seed=0)
            restored = at_native(restore(source), source)
            print(f"| {name} | {degradation} | {scores(source, truth)} | {scores(restored, truth)} | {gains(restored, source, truth)} |", flush=True)


def whole(crops: dict[str, Tensor], restore: Callable[[Tensor], Tensor]) -> None:
    """The second table."""
    for name, truth in crops.items():
        for degradation in (*JUDGED, "clean"):
            source = truth if degradation == "clean" else judged_at_crop(degradation, truth)
            images = restore(source)
            bare, done = from_network(images), completed(images, source)
            gain = "-" if degradation == "clean" else gains(done, source, truth)
            bicubic = "-" if degradation == "clean" else scores(source, truth)
            print(f"| {name} | {degradation} | {bicubic} | {scores(bare, truth)} | {scores(done, truth)} | {gain} |", flush=True)


def judged_at_crop(name: str, crops: Tensor) -> Tensor:
    """A judged degradation acting on crops of 512, enlarged back by bicubic interpolation."""
    y = parse(JUDGED[name]).observe(crops, torch.Generator().manual_seed(0))
    return resized(y, crops.shape[-1], "bicubic").clamp(0, 1)


def at_native(images: Tensor, source: Tensor) -> Tensor:
    """The network's images in [0, 1], filling in what the input lacks, as `completed` has it."""
    return merged((images.clamp(-1, 1) + 1) / 2, source).clamp(0, 1)


def scores(x: Tensor, truth: Tensor) -> str:
    return f"{psnr(x, truth).mean():.2f} / {ssim(x, truth).mean():.3f}"


def gains(x: Tensor, source: Tensor, truth: Tensor) -> str:
    return f"{psnr(x, truth).mean() - psnr(source, truth).mean():+.2f} / {ssim(x, truth).mean() - ssim(source, truth).mean():+.3f}"


def sheet(sets: dict[str, Tensor], restore: Callable[[Tensor], Tensor]) -> Tensor:
    """Faces down, and across: input and restored under each degradation, then the truth."""
    faces, *clips = sets.values()
    truth = torch.cat([faces[:: max(1, len(faces) // 4)][:4], *(clip[:1] for clip in clips)])
    columns = []
    for degradation in JUDGED:
        source = judged(degradation, truth, seed=1)
        columns += [source, at_native(restore(source), source)]
    return torch.stack([*columns, truth], 1)


if __name__ == "__main__":
    main()
