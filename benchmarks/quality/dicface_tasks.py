"""DicFace's small weights for colours and holes, on faces and clips that they never saw: python benchmarks/quality/dicface_tasks.py FACES512 CLIPS

FACES512 has a folder `val` of aligned portraits. Colours: the error of colour differences (RGB less luma) as a share of a grey picture's, and the hue
and saturation of the middle of the face, for clips of its first frame. Holes: PSNR inside brush strokes over a fifth of the picture, ours and
OpenCV's Telea.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from fvr.assembly import weights_for
from fvr.colour import luma
from fvr.faces.align import align
from fvr.faces.detection.detectors import load_detector
from fvr.faces.tracking.tracks import find_tracks
from fvr.methods.base import restore_frames
from fvr.methods.registry import build_restorer
from fvr.physics.linear.inpaint import brush_mask
from fvr.training.data.faces import FEDERAL, Faces
from fvr.video import open_source

CLIPS = ("clean_face_512.mp4", "clean_face_480_tone.mp4", "scene_720p_clean.mp4")


def embedded(mode: str):
    return build_restorer("dicface", weights=weights_for("dicface", {"mode": mode}), settings={"mode": mode})


def first_face(path: Path) -> Tensor:
    """The aligned face of a clip's first frame, (1, 3, 512, 512)."""
    frames = next(open_source(path, count=3).chunks(3)).frames
    return align(frames, find_tracks([(0, frames)], load_detector("blazeface"))[0], 0)[:1]


def colours(name: str, truth: Tensor) -> None:
    grey = luma(truth).expand_as(truth)
    result = restore_frames(embedded("colourise"), grey)
    share = [(picture - luma(picture) - truth + luma(truth)).square().mean().sqrt() for picture in (result, grey)]
    shown = []
    for picture in (result, truth):
        skin = picture[0, :, 260:400, 200:312].mean((1, 2)).clamp(0, 1)
        hue, saturation, _ = cv2.cvtColor(skin.view(1, 1, 3).numpy(), cv2.COLOR_RGB2HSV)[0, 0]
        shown.append(f"{hue:.0f}, {saturation:.2f}")
    print(f"| {name} | {share[0] / share[1]:.2f} | {' | '.join(shown)} |", flush=True)


def holes(name: str, truth: Tensor, seed: int) -> tuple[float, float]:
    hole = (~brush_mask((512, 512), 0.2, 0.08, seed)).float()[None, None]
    result = restore_frames(embedded("inpaint"), torch.where(hole > 0, 1.0, truth), masks=hole)
    picture = np.ascontiguousarray((255 * truth[0].permute(1, 2, 0).numpy()).round().astype(np.uint8))
    filled = cv2.inpaint(picture, (hole[0, 0].numpy() > 0).astype(np.uint8), 3, cv2.INPAINT_TELEA)
    telea = torch.from_numpy(filled).permute(2, 0, 1)[None] / 255
    hidden = (hole > 0).expand_as(truth)
    ours, theirs = (10 * torch.log10(1 / (one - truth)[hidden].square().mean()).item() for one in (result, telea))
    print(f"| {name} | {ours:.2f} | {theirs:.2f} | {ours - theirs:+.2f} |", flush=True)
    return ours, theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--people", type=int, default=8)
    options = parser.parse_args()
    faces = Faces(options.faces, "val", 512, FEDERAL, in_memory=0)
    people = {f"portrait {number}": faces.face(6 * number)[None] for number in range(options.people)}
    clips = {name.removesuffix(".mp4"): first_face(options.clips / name) for name in CLIPS}
    print("| face | error of colour differences, of grey's | hue, saturation: ours | truth |\n| --- | --- | --- | --- |")
    for name, truth in (people | clips).items():
        colours(name, truth)
    print("\n| face | holes, dB | Telea, dB | ours less Telea's |\n| --- | --- | --- | --- |")
    both = [holes(name, truth, seed) for seed, (name, truth) in enumerate((people | clips).items())]
    for title, some in (("portraits", both[: len(people)]), ("clips", both[len(people) :])):
        ours, theirs = (sum(column) / len(some) for column in zip(*some, strict=True))
        print(f"mean of {title}: {ours:.2f} and {theirs:.2f} dB, {ours - theirs:+.2f}")


if __name__ == "__main__":
    main()
