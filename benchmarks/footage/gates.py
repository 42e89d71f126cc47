"""Where restoring a face stops helping, for the defaults of the gates: PSNR over the face before and after, by size, blur and pose.

    OMP_NUM_THREADS=1 python benchmarks/footage/gates.py CLIPS [METHOD]

CLIPS: the folder of clean clips; METHOD: blind, unless another is named. The truth is the clip as it is, shrunk where size counts. Damage is
noise of 4 grey levels and JPEG at quality 35; for blur and pose a Gaussian blur of 1 % of the face before it. Faces are pasted at full
strength, gates open, along the tracks of the undamaged clip. Gains are means over frames, the worst frame in brackets. The score is FaceMesh's.
No clip has a face turned far aside, up or down: `turned_aside` turns them, by their own meshes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import Delaunay
from torch import Tensor

from fvr.assembly import EMBEDDED, named_weights
from fvr.faces import FaceTrack, Paster, align, find_tracks, load_detector
from fvr.faces.detection.blazeface import BlazeFaceDetector
from fvr.faces.detection.mesh_tracking import region_of
from fvr.faces.geometry import side
from fvr.faces.tracking.appearance import chip, sharpness
from fvr.methods.base import Restorer, restore_frames
from fvr.methods.registry import build_restorer
from fvr.video import read_frames

CLIPS = ("clean_face_480_tone.mp4", "clean_face_512.mp4", "scene_720p_clean.mp4")
POSED = (*CLIPS, "multiface_2people_480x270.mp4", "edge_rotation90_flag.mp4")
SIZES = (8, 12, 16, 20, 24, 32, 48, 96)
BLURS = (0.0, 0.02, 0.04, 0.08, 0.16)
"""Standard deviations as shares of the face's side."""
COUNT, STRIDE = 3, 24
TURNS = (0, 20, 40, 50, 60, 70, 80)
"""Degrees by which the clips' faces, which look into the camera, are turned aside, up and down."""
BINS = ((0, 10), (10, 20), (20, 30), (30, 40), (40, 90))


def damaged(frames: Tensor, blur: float = 0.0) -> Tensor:
    """Blurred by a deviation of `blur` pixels, with noise, as JPEG."""
    rng, out = torch.Generator().manual_seed(0), []
    for frame in frames:
        pixels = frame.permute(1, 2, 0).numpy()
        if blur > 0.2:
            pixels = cv2.GaussianBlur(pixels, (0, 0), blur)
        pixels = pixels + 4 / 255 * torch.randn(pixels.shape, generator=rng).numpy()
        coded = cv2.imencode(".jpg", (pixels.clip(0, 1) * 255).round().astype(np.uint8)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 35])[1]
        out.append(torch.from_numpy(cv2.imdecode(coded, cv2.IMREAD_COLOR)[:, :, ::-1].copy()).permute(2, 0, 1).float() / 255)
    return torch.stack(out)


def canvas(height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """What occluders are drawn with: x and y of every pixel, and a texture in [0, 1], all (height, width)."""
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    noise = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(3))
    return x, y, F.interpolate(noise, (height, width), mode="bicubic")[0, 0].clamp(0, 1)


def shrunk(frames: Tensor, track: FaceTrack, factor: float) -> tuple[Tensor, FaceTrack]:
    """Frames and their track at another size."""
    small = F.interpolate(frames, scale_factor=factor, mode="area")
    zoom = torch.tensor([small.shape[-1] / frames.shape[-1], small.shape[-2] / frames.shape[-2]])
    matrices = track.matrices.clone()
    matrices[:, :, :2] /= zoom
    matrices[:, :, 2] = track.matrices[:, :, 2] + (track.matrices[:, :, :2] @ (0.5 / zoom - 0.5)[:, None])[..., 0]
    boxes = (track.boxes + 0.5) * zoom.repeat(2) - 0.5
    landmarks = (track.landmarks + 0.5) * zoom - 0.5
    return small, replace(track, boxes=boxes, landmarks=landmarks, matrices=matrices, frame_size=(small.shape[-2], small.shape[-1]))


def gains(truth: Tensor, shown: Tensor, track: FaceTrack, restorer) -> list[float]:
    """By how many dB each frame's face comes nearer to the truth."""
    crops = align(shown, track, 0)
    pasted, _ = Paster(fade=False).paste(shown, 0, [(track, restore_frames(restorer, crops, track), crops)])
    out = []
    for k, box in enumerate(track.boxes):
        x0, y0, x1, y1 = (round(float(v)) for v in box)
        rows, columns = slice(max(y0, 0), y1 + 1), slice(max(x0, 0), x1 + 1)
        errors = [float((clip[k, :, rows, columns] - truth[k, :, rows, columns]).square().mean()) for clip in (shown, pasted)]
        out.append(10 * float(np.log10(errors[0] / max(errors[1], 1e-10))))
    return out


def turned_aside(frame: Tensor, mesh: np.ndarray, degrees: float, axis: int = 0) -> Tensor:
    """A frame (3, H, W) whose face, a mesh (468, 3) in pixels, is turned along its x (axis 0: aside) or y (axis 1: up and down), before the
    frame's own blurred picture.

    Every pixel shows what the triangle nearest to the camera shows there: hidden cheeks vanish, as in a real turn; hair and ears stay behind.
    """
    height, width = frame.shape[1:]
    corners = Delaunay(mesh[:, :2]).simplices
    middle, angle = mesh.mean(0), np.deg2rad(degrees)
    along, z = mesh[:, axis] - middle[axis], mesh[:, 2] - middle[2]
    moved = mesh.copy()
    moved[:, axis] = np.cos(angle) * along + np.sin(angle) * z + middle[axis]
    moved[:, 2] = np.cos(angle) * z - np.sin(angle) * along
    across, down = (np.full((height, width), -1, np.float32) for _ in range(2))
    for triangle in sorted(corners.tolist(), key=lambda t: -moved[t, 2].mean()):  # FaceMesh's depth grows away from the camera
        place = moved[triangle, :2]
        (x0, y0), (x1, y1) = np.floor(place.min(0)).astype(int).clip(0), np.ceil(place.max(0)).astype(int)
        x1, y1 = min(x1, width - 1), min(y1, height - 1)
        edges = np.stack([place[1] - place[0], place[2] - place[0]], 1)
        if x1 < x0 or y1 < y0 or np.linalg.det(edges) * np.linalg.det(np.diff(mesh[triangle, :2], axis=0)) <= 1e-6:
            continue  # it shows its back
        pixels = np.stack(np.meshgrid(np.arange(x0, x1 + 1), np.arange(y0, y1 + 1)), -1)
        shares = (pixels - place[0]) @ np.linalg.inv(edges).T
        inside = (shares >= -1e-3).all(-1) & (shares.sum(-1) <= 1 + 1e-3)
        source = mesh[triangle[0], :2] + shares @ (mesh[triangle[1:], :2] - mesh[triangle[0], :2])
        across[y0 : y1 + 1, x0 : x1 + 1][inside], down[y0 : y1 + 1, x0 : x1 + 1][inside] = source[inside].T
    picture = frame.permute(1, 2, 0).numpy()
    face = cv2.remap(picture, across, down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    over = cv2.GaussianBlur((across >= 0).astype(np.float32), (0, 0), 0.7)[..., None] * (across >= 0)[..., None]
    behind = cv2.GaussianBlur(picture, (0, 0), float(np.ptp(mesh[:, 0])) / 12)
    return torch.from_numpy((over * face + (1 - over) * behind).clip(0, 1)).permute(2, 0, 1).float()


def tracks_of(path: Path, detector: BlazeFaceDetector, first: int) -> tuple[Tensor, list[FaceTrack]]:
    """COUNT frames from `first` on, and everybody in all of them."""
    frames = read_frames(path, start=first, count=COUNT)[0]
    return frames, [track for track in find_tracks([(0, frames)], detector, recognise=False) if len(track) == COUNT == len(frames)]


def turning(known: Sequence[tuple[Tensor, FaceTrack]], detector: BlazeFaceDetector, restorer: Restorer, axis: int) -> None:
    """The table of faces that are turned by their meshes, to both sides of an axis."""
    way, (own, other) = (("aside", ("yaw", "pitch")), ("up or down", ("pitch", "yaw")))[axis]
    print(f"\n| turned {way}, degrees | gain, dB | faces | {own} that FaceMesh sees | {other} | not found |\n|{' --- |' * 6}")
    for degrees in TURNS:
        found, seen, missed = [], [], 0
        for frames, track in known:
            truth, small = shrunk(frames, track, min(1.0, 192 / float(side(track.boxes).median())))
            mesh, _ = detector.search.mesh_estimator(truth[0].numpy(), region_of(small.boxes[0].reshape(2, 2), 0.0))
            for sign in (-1, 1):
                away = turned_aside(truth[0], mesh.double().numpy(), sign * degrees, axis)[None]
                tracks = find_tracks([(0, away)], detector, recognise=False)
                missed += not tracks
                for found_track in tracks[:1]:
                    found += gains(away, damaged(away, 0.01 * float(side(found_track.boxes).median())), found_track, restorer)
                    assert found_track.pose is not None
                    seen.append(found_track.pose[0].abs().tolist())
        if found:
            angles = np.mean(seen, 0)
            row(f"turned by {degrees}", found, f" {angles[axis]:.0f} | {angles[1 - axis]:.0f} | {missed} |")


def row(label: str, values: Sequence[float], more: str = "") -> None:
    print(f"| {label} | {np.mean(values):+.2f} ({min(values):+.2f}) | {len(values)} |{more}", flush=True)


def main(folder: Path, method: str) -> None:
    torch.set_num_threads(1)
    detector = load_detector("blazeface")
    assert isinstance(detector, BlazeFaceDetector)
    restorer = build_restorer(method, weights=named_weights(EMBEDDED[method]))
    known = [(frames, track) for name in CLIPS for frames, some in [tracks_of(folder / name, detector, 0)] for track in some]
    print("| face, px | gain, dB | frames | score |\n| --- | --- | --- | --- |")
    for size in SIZES:
        found, scores = [], []
        for frames, track in known:
            truth, small = shrunk(frames, track, size / float(side(track.boxes).median()))
            shown = damaged(truth)
            found += gains(truth, shown, small, restorer)
            for picture, box in zip(shown, small.boxes, strict=True):
                placed = detector.search.refine(picture.numpy(), region_of(box.reshape(2, 2), 0.0))
                scores.append(0.0 if placed is None else placed.score)
        row(str(size), found, f" {np.mean(scores):.2f} |")
    print("\n| blur of the last frame | gain, dB | frames | sharpness, share |\n| --- | --- | --- | --- |")
    for blur in BLURS:
        found, ratios = [], []
        for frames, track in known:
            truth, small = shrunk(frames, track, 128 / float(side(track.boxes).median()))
            shown = damaged(truth, 1.28)
            shown[-1:] = damaged(truth[-1:], 128 * max(blur, 0.01))
            found.append(gains(truth, shown, small, restorer)[-1])
            sharp = [sharpness(chip(frame, five)) for frame, five in zip(shown, small.landmarks, strict=True)]
            ratios.append(sharp[-1] / max(sharp[0], 1e-6))
        row(f"{blur:.2f} of the face", found, f" {np.mean(ratios):.2f} |")
    print("\n| pose, degrees | gain, dB | frames |\n| --- | --- | --- |")
    by: dict[tuple[str, tuple[int, int]], list[float]] = {}
    for name in POSED:
        for first in (0, STRIDE):
            frames, some = tracks_of(folder / name, detector, first)
            for track in some:
                truth, small = shrunk(frames, track, min(1.0, 128 / float(side(track.boxes).median())))
                found = gains(truth, damaged(truth, 0.01 * float(side(small.boxes).median())), small, restorer)
                assert track.pose is not None
                for axis, angles in zip(("yaw", "pitch"), track.pose.abs().unbind(1), strict=True):
                    for angle, gain in zip(angles.tolist(), found, strict=True):
                        by.setdefault((axis, next(b for b in BINS if b[0] <= angle < b[1])), []).append(gain)
    for axis, (low, high) in sorted(by):
        row(f"{axis} {low} to {high}", by[axis, (low, high)])
    for way in range(2):
        turning(known, detector, restorer, way)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "blind")
