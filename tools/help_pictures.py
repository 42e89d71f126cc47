"""The pictures of the help pages, made by the package itself from a public-domain portrait (scikit-image's astronaut, NASA).

    python tools/help_pictures.py [--only restored.jpg ...]

Writes web/docs/pictures/*.jpg. Pictures of the page (graph_*.jpg) are screenshots and not made here.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fvr.assembly import EMBEDDED
from fvr.demo import moving_portrait, run_demo
from fvr.faces import FaceTrack, Thumbnails, contact_sheet, crop_clip, find_tracks, load_detector, select_tracks
from fvr.faces.compositing.paste import Paster
from fvr.faces.geometry import crop_corners
from fvr.methods.base import restore_frames
from fvr.methods.flair.options import PRESETS
from fvr.methods.flair.sampler import FlairRestorer
from fvr.methods.pseudo_target.algorithm import PRESETS as TARGETS
from fvr.methods.pseudo_target.generate import TargetMaker
from fvr.methods.registry import build_restorer
from fvr.methods.seed_map.conditioning import guides
from fvr.methods.seed_map.generator import PixelGenerator
from fvr.methods.seed_map.optimise import seed_map
from fvr.methods.seed_map.options import SeedMapOptions
from fvr.metrics.evaluate import evaluate
from fvr.metrics.plot import PANEL_HEIGHT, plot
from fvr.metrics.temporal_profile import column_over_time
from fvr.models.embedded import PRIORS, RESTORERS, listed
from fvr.motion.dis import DisFlow
from fvr.physics import KINDS, Degradation, RandomInpaint, parse
from fvr.priors.load import load_prior, prior_from_file
from fvr.training.data.degradations import BENCHMARK
from fvr.video import FrameTimes, ShotCutDetector, open_source, read_frames
from fvr.video.comparison.compare import CompareOptions, compare_picture

FOLDER = Path(__file__).resolve().parents[1] / "web" / "docs" / "pictures"
MOST_BYTES = 115_000
"""The help panel loads one with every page."""
LISTED = listed(PRIORS | RESTORERS)
WHITE, GREEN, ORANGE = (255, 255, 255), (90, 220, 120), (255, 160, 40)
DAMAGE = "gaussian_blur(sigma=1.6) + noise(sigma=0.03)"
DETAIL = (slice(30, 200), slice(75, 245))
"""Rows and columns of the demo's frames that show the face."""


def pixels(frame: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] to RGB bytes (H, W, 3)."""
    return np.ascontiguousarray((frame.detach().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())


def sized(picture: np.ndarray, side: int) -> np.ndarray:
    """A square picture at `side`; pixels stay visible when it grows."""
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA if picture.shape[0] > side else cv2.INTER_NEAREST)


def titled(picture: np.ndarray, text: str) -> np.ndarray:
    """The picture under a dark line of text."""
    bar = np.full((26, picture.shape[1], 3), 32, np.uint8)
    cv2.putText(bar, text, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, WHITE, 1, cv2.LINE_AA)
    return np.vstack([bar, picture])


def row(*pictures: np.ndarray) -> np.ndarray:
    """Pictures of one height beside each other, with a gap."""
    gap = np.full((pictures[0].shape[0], 6, 3), 32, np.uint8)
    return np.hstack([part for picture in pictures for part in (picture, gap)][:-1])


def grid(cells: list[np.ndarray], columns: int) -> np.ndarray:
    """Pictures of one size in rows: the help panel is narrow."""
    blank = [np.full_like(cells[0], 32)] * (-len(cells) % columns)
    filled = [*cells, *blank]
    return np.vstack([row(*filled[start : start + columns]) for start in range(0, len(filled), columns)])


def restored() -> np.ndarray:
    """What `fvr demo` damages and restores, at the face."""
    with tempfile.TemporaryDirectory() as folder:
        run_demo(Path(folder), frames=9)
        names = {"damaged": "damaged.mkv", "restored with the embedded weights": "restored_00001_.mp4", "truth": "truth.mkv"}
        frames = {name: read_frames(open_source(Path(folder) / file))[0][4] for name, file in names.items()}
    return row(*(titled(sized(pixels(frame[:, DETAIL[0], DETAIL[1]]), 300), name) for name, frame in frames.items()))


def followed(frames: Tensor) -> FaceTrack:
    """The one person in the demo's frames."""
    return select_tracks(find_tracks([(0, frames)], load_detector("blazeface"), ShotCutDetector()), "all", 0)[0]


def aligned() -> np.ndarray:
    """A frame with its detection and the outline of its crop; the crop; the contact sheet."""
    frames = moving_portrait(12)
    track = followed(frames)
    scale = 1.25
    frame = cv2.resize(pixels(frames[2]), None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    x0, y0, x1, y1 = (round(float(v) * scale) for v in track.boxes[2])
    cv2.rectangle(frame, (x0, y0), (x1, y1), GREEN, 2)
    for point in track.landmarks[2]:
        cv2.circle(frame, (round(float(point[0]) * scale), round(float(point[1]) * scale)), 4, GREEN, -1, cv2.LINE_AA)
    corners = crop_corners(track.matrices[2].double())
    cv2.polylines(frame, [np.round(corners.numpy() * scale).astype(np.int32)], True, ORANGE, 2, cv2.LINE_AA)
    crop = sized(pixels(crop_clip(frames, track).crops[2]), frame.shape[0])
    thumbnails = Thumbnails([track], samples=4)
    thumbnails.push(0, frames)
    sheet = pixels(contact_sheet([track], thumbnails))
    top = row(titled(frame, "face found (green), what is cut out (orange)"), titled(crop, "the aligned crop, 512 x 512"))
    sheet = cv2.resize(sheet, (top.shape[1], round(sheet.shape[0] * top.shape[1] / sheet.shape[1])), interpolation=cv2.INTER_AREA)
    return np.vstack([top, titled(sheet, "the contact sheet: one row per person")])


def pasted() -> np.ndarray:
    """A crop without colour, so that one sees where it goes; the mask; the result."""
    frames = moving_portrait(12)
    track = followed(frames)
    crops = crop_clip(frames, track).crops
    grey = crops.mean(1, keepdim=True).expand_as(crops)
    out, mask = Paster(feather=24).paste(frames, 0, [(track, grey, crops)])
    shown = (pixels(grey[2]), pixels(mask[2][None].expand(3, -1, -1)), pixels(out[2]))
    names = ("a crop (made grey, to be seen)", "mask", "pasted back")
    return row(*(titled(sized(picture, 290), name) for picture, name in zip(shown, names, strict=True)))


def degradations() -> np.ndarray:
    """Every kind at its default, on one face."""
    frames = moving_portrait(24)[:9, :, 44:188, 88:232]
    stronger = {"motion_line": "motion_line(length=15)", "jpeg": "jpeg(quality=20)", "noise": "noise(sigma=0.1)", "h264": "h264(crf=44)"}
    stronger |= {"camera_noise": "camera_noise(iso=3200)", "temporal_blur": "temporal_blur(width=9)", "blind_video": "blind_video(level=mild)"}
    cells = [titled(sized(pixels(frames[4]), 158), "clean")]
    for name in KINDS:
        text = stronger.get(name, f"{name}()")
        damaged = parse(text).observe(frames, torch.Generator().manual_seed(0)).clamp(0, 1)[4]
        cells.append(titled(sized(pixels(damaged.expand(3, -1, -1)), 158), text.replace("()", "")))
    return grid(cells, 3)


def consistency() -> np.ndarray:
    """FLAIR with and without data consistency on a face four times too small."""
    truth = moving_portrait(6)[:3, :, 20:210, 65:255]
    truth = F.interpolate(truth, (512, 512), mode="bicubic", align_corners=False).clamp(0, 1)
    operator: Degradation = parse("gaussian_blur(sigma=2, factor=4) + noise(sigma=0.03)")
    low = operator.observe(truth, torch.Generator().manual_seed(0)).clamp(0, 1)
    shown = {"input, 128 x 128": F.interpolate(low, (512, 512), mode="nearest")}
    for name, on in (("data_consistency off", False), ("data_consistency on", True)):
        options = PRESETS["default"].__class__(data_consistency=on)
        shown[name] = restore_frames(FlairRestorer(load_prior("gaussian"), operator, options), low, seed=0)
    shown["truth"] = truth
    part = (slice(1, 2), slice(None), slice(100, 400), slice(100, 400))
    return grid([titled(sized(pixels(frames[part][0]), 270), name) for name, frames in shown.items()], 2)


def optimised() -> np.ndarray:
    """Seed-space MAP over the embedded prior: half of the pixels are gone."""
    truth = F.interpolate(moving_portrait(24)[:4, :, 20:212, 64:256], (128, 128), mode="bicubic", antialias=True).clamp(0, 1)
    operator = RandomInpaint(0.5, seed=0)
    observed = operator.observe(truth, torch.Generator().manual_seed(0))
    options = SeedMapOptions(iterations=120, steps=2, seed_rate=0.03)
    prior = prior_from_file(LISTED[EMBEDDED["flair"]])
    generator = PixelGenerator(prior, (128, 128), steps=2, guides=guides(observed, operator, (128, 128)), start=options.start)
    done = seed_map(observed, operator, generator, options, flow=DisFlow(), seed=0).frames
    shown = {"half of the pixels are known": observed, "restored, embedded prior": done, "truth": truth}
    return row(*(titled(sized(pixels(frames[1]), 288), name) for name, frames in shown.items()))


def embedded() -> np.ndarray:
    """The portrait at 128 x 128 under the three degradations that the embedded weights are judged by, and what each method makes of it."""
    frames = moving_portrait(12)[:5]
    crops = F.interpolate(crop_clip(frames, followed(frames)).crops, (128, 128), mode="area")
    rows = []
    for name, text in BENCHMARK.items():
        y = parse(text).observe(crops, torch.Generator().manual_seed(0)).clamp(0, 1)
        shown = F.interpolate(y, (128, 128), mode="bicubic", align_corners=False).clamp(0, 1)
        cells = [(name.replace(", noise 0.03", ", noise").replace("blur, noise, ", "noise, "), shown)]
        for method in ("flair", "keep", "codeformer"):
            weights = LISTED[EMBEDDED[method]]
            known = parse(f"average_pool(factor=4) + {text}") if method == "flair" else None
            found = restore_frames(build_restorer(method, weights=weights, degradation=known), y if method == "flair" else shown)
            cells.append((method, F.interpolate(found, (128, 128), mode="area")))
        rows.append(row(*(titled(pixels(clip[2]), title) for title, clip in [*cells, ("truth", crops)])))
    return np.vstack(rows)


def measured() -> np.ndarray:
    """Blurred and noisy, restored frame by frame by the embedded codebook: one column over time, and the first panels of the plot."""
    frames = moving_portrait(48)
    truth = F.interpolate(crop_clip(frames, followed(frames)).crops, (256, 256), mode="area")
    y = parse("gaussian_blur(sigma=3) + noise(sigma=0.06)").observe(truth, torch.Generator().manual_seed(0)).clamp(0, 1)
    restorer = build_restorer("codeformer", weights=LISTED["embedded codeformer"])
    found = F.interpolate(restore_frames(restorer, F.interpolate(y, (512, 512), mode="bilinear")), (256, 256), mode="area")
    slices = pixels(column_over_time({"restored": found, "observation": y, "reference": truth}, 96))
    panels = pixels(plot(evaluate(found, truth)))
    panels = panels[: PANEL_HEIGHT * 4]
    scale = panels.shape[0] / slices.shape[0]
    return row(cv2.resize(slices, (round(slices.shape[1] * scale), panels.shape[0]), interpolation=cv2.INTER_AREA), panels)


def pseudo_target() -> np.ndarray:
    """A crop through a camera at ISO 3200, what the embedded codebook makes of it, and the target that the embedded prior makes of that."""
    frames = moving_portrait(12)[2:3]
    crop = crop_clip(frames, followed(frames)).crops
    y = parse("bicubic(factor=4) + isp_noise(iso=3200)").observe(crop, torch.Generator().manual_seed(0)).clamp(0, 1)
    y = F.interpolate(y, crop.shape[-2:], mode="bicubic", align_corners=False).clamp(0, 1)
    restorer = build_restorer("codeformer", weights=LISTED["embedded codeformer"])
    made = TargetMaker(restorer, prior_from_file(LISTED["embedded face prior"]), TARGETS["embedded"]).make(y, [(0, 0, 0)], seed=0)
    parts = {"input, ISO 3200": y, "restored": made.initial, "target": made.targets}
    return row(*(titled(sized(pixels(part[0]), 300), name) for name, part in parts.items()))


def times() -> np.ndarray:
    """When frames are shown, before and after interpolation, for a rate that changes on the way."""
    lengths = [1, 1, 1, 1, 2, 2, 2, 2]
    before = FrameTimes(tuple(Fraction(sum(lengths[:i]), 24) for i in range(len(lengths))), Fraction(sum(lengths), 24))
    picture = np.full((190, 900, 3), 32, np.uint8)
    for top, name, shown in ((40, "8 frames, the rate changes", before), (125, "15 frames after interpolation, multiple 2", before.interpolated(2))):
        cv2.putText(picture, name, (20, top - 10), cv2.FONT_HERSHEY_SIMPLEX, 0.5, WHITE, 1, cv2.LINE_AA)
        for number, (start, end) in enumerate(zip(shown.starts, shown.ends, strict=True)):
            left, right = (20 + round(float(moment) * 24 * 71) for moment in (start, end))
            new = shown is not before and number % 2
            cv2.rectangle(picture, (left, top), (right - 3, top + 42), ORANGE if new else GREEN, -1)
    return picture


def compared() -> np.ndarray:
    """The three modes on one frame and the same frame damaged."""
    clean = moving_portrait(2)[1][:, 24:216, 64:256]
    worse = parse(DAMAGE).observe(clean[None], torch.Generator().manual_seed(0)).clamp(0, 1)[0]
    large = [F.interpolate(frame[None], (300, 300), mode="bicubic").clamp(0, 1)[0] for frame in (worse, clean)]
    shown = [compare_picture(large, 0.2, CompareOptions(mode, ("before", "after"))) for mode in ("side_by_side", "split", "difference")]
    tall = max(picture.shape[-2] for picture in shown)
    gap = torch.full((3, tall, 10), 0.13)
    padded = [F.pad(picture, (0, 0, 0, tall - picture.shape[-2]), value=0.13) for picture in shown]
    return pixels(torch.cat([padded[0], gap, padded[1], gap, padded[2]], -1))


DRAWERS = (restored, aligned, pasted, degradations, consistency, embedded, pseudo_target, measured, times, optimised, compared)
PICTURES: dict[str, Callable[[], np.ndarray]] = {f"{draw.__name__.replace('_', '-')}.jpg": draw for draw in DRAWERS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(PICTURES), default=list(PICTURES))
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in parser.parse_args().only:
        path = FOLDER / name
        picture = cv2.cvtColor(PICTURES[name](), cv2.COLOR_RGB2BGR)
        for quality in (82, 74, 66, 58):
            cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
            if path.stat().st_size <= MOST_BYTES:
                break
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
