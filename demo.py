"""`fvr demo`: a clip with known ground truth, degraded, restored by the bundled workflow without a description of the damage, and measured."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from . import headless, host
from .assembly import weights_for
from .faces.types import CROP
from .methods.registry import build_restorer
from .metrics.fidelity import psnr, ssim
from .nodes import registry
from .physics import Degradation, parse
from .plurals import counted
from .record import device_name, version
from .video import FrameTimes, open_sink, open_source, read_frames
from .workflows import bundled

SIDE = 320
"""Side of the demo's frames, in pixels."""
DAMAGE = "gaussian_blur(sigma=1.2) + noise(sigma=0.03) + h264(crf=28)"
"""A soft lens, a noisy sensor, a codec."""
REGIONS = {"face": (slice(36, 196), slice(80, 240)), "frame": (slice(None), slice(None))}
"""Rows and columns that are measured: the face region of all frames, and the whole frame."""
WORKFLOW = "restore_face_video"
CROPS_PER_FRAME = 3.0
"""Cost of a frame of the workflow, in restored crops; measured on a CPU, face detection and loading included."""


def run_demo(folder: Path, *, frames: int = 24, seed: int = 0, say: Callable[[str], None] = lambda line: None, began: float | None = None) -> str:
    """Writes truth.mkv, damaged.mkv, restored.mp4, side_by_side.mp4 and report.json to `folder`; returns the report as text.

    Args:
        say: gets a line for every step, the first with the expected duration.
        began: start time by time.monotonic(); None for now.

    Raises:
        ModuleNotFoundError: if scikit-image, which includes the portrait, is not installed.
    """
    began = time.monotonic() if began is None else began
    truth = moving_portrait(frames)
    wait, place = rounded_duration(expected_seconds(frames, host.device())), device_name(host.device())
    say(f"{counted(frames, 'frame takes', 'frames take')} about {wait} on {place} as busy as it is now")
    folder.mkdir(parents=True, exist_ok=True)
    times = FrameTimes.constant(frames, Fraction(25))
    operator = parse(DAMAGE)
    damaged = operator.observe(truth, torch.Generator().manual_seed(seed)).clamp(0, 1)
    for name, clip in (("truth.mkv", truth), ("damaged.mkv", damaged)):
        save(folder / name, clip, times, codec="ffv1", pixel_format="yuv444p")

    result = run_workflow(folder, seed, lambda step: say(f"{time.monotonic() - began:4.0f} s  step {step.position} of {step.total}: {step.title}"))
    restored, _ = read_frames(open_source(result.files[-1]))
    save(folder / "side_by_side.mp4", torch.cat([damaged, restored, truth], dim=-1), times)
    return summary(folder, operator, truth, damaged, restored, result, seed, time.monotonic() - began)


def expected_seconds(frames: int, device: torch.device) -> float:
    """Expected duration of the workflow on `frames` frames, from the time of one crop."""
    session = build_restorer("blind", weights=weights_for("blind", {}), device=device).open()
    for _ in range(2):  # the first includes initialisation
        start = time.monotonic()
        session.push(torch.zeros(1, 3, CROP, CROP))
        unit = time.monotonic() - start
    return CROPS_PER_FRAME * frames * unit


def rounded_duration(seconds: float) -> str:
    """Such as "20 seconds" or "3 minutes": rounded to the precision of an estimate."""
    if seconds < 90:
        return f"{max(5, 5 * round(seconds / 5))} seconds"
    return f"{round(seconds / 60)} minutes"


def moving_portrait(frames: int) -> Tensor:
    """(frames, 3, SIDE, SIDE): a slow pan, turn and zoom over scikit-image's astronaut (NASA, public domain)."""
    try:
        from skimage import data
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'the demo needs the portrait in scikit-image; install it with: pip install "face-video-restoration[standalone]"'
        ) from error
    portrait = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None] / 255
    side = portrait.shape[-1]
    phase = torch.linspace(0, 2 * torch.pi, frames + 1)[:-1]
    angle, zoom = 0.06 * torch.sin(phase), 1 + 0.05 * torch.sin(2 * phase)
    centre = torch.stack([224 + 8 * torch.sin(phase), 150 + 5 * torch.cos(phase)], -1) / side * 2 - 1
    scale = SIDE / 1.25 / side / zoom
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()], -1), torch.stack([angle.sin(), angle.cos()], -1)], -2)
    grid = F.affine_grid(torch.cat([turn * scale[:, None, None], centre[:, :, None]], -1), [frames, 3, SIDE, SIDE], align_corners=False)
    return F.grid_sample(portrait.expand(frames, -1, -1, -1), grid, mode="bicubic", padding_mode="border", align_corners=False).clamp(0, 1)


def run_workflow(folder: Path, seed: int, on_node: Callable[[headless.NodeStep], None] | None = None) -> headless.RunResult:
    """Runs the bundled workflow on damaged.mkv."""
    settings = [
        "FVRLoadVideoFrames.file=damaged.mkv",
        f"FVRRestoreFaces.seed={seed}",
        "FVRSaveVideoFrames.filename_prefix=restored",
        "FVRPasteBack.grain=off",  # the result is compared with the truth
    ]
    nodes = registry()
    prompt = headless.apply_overrides(headless.load_prompt(bundled(WORKFLOW)), settings, nodes)
    with host.workspace(input=folder, output=folder):
        return headless.run_prompt(prompt, nodes, on_node=on_node)


def save(path: Path, frames: Tensor, times: FrameTimes, **encoding: Any) -> None:
    """Writes a whole clip, replacing an older one."""
    with open_sink(path, None, size=(frames.shape[-2], frames.shape[-1]), overwrite=True, **encoding) as sink:
        sink.write(frames, times.starts, times.ends)


def summary(
    folder: Path, operator: Degradation, truth: Tensor, damaged: Tensor, restored: Tensor, result: headless.RunResult, seed: int, seconds: float
) -> str:
    """The report of the run and its quality as text, also written as report.json."""
    figures: dict[str, Any] = {
        "version": version(),
        "workflow": WORKFLOW,
        "seed": seed,
        "device": device_name(host.device()),
        "frames": len(restored),
        "degradation": str(operator),
        "faces": result.texts,
        "seconds": round(seconds, 1),
    }
    for name, clip in (("input", damaged), ("output", restored)):
        for where, (rows, columns) in REGIONS.items():
            x, y = clip[..., rows, columns], truth[..., rows, columns]
            figures[f"{name}_{where}"] = {"psnr": round(float(psnr(x, y).mean()), 3), "ssim": round(float(ssim(x, y).mean()), 4)}
    (folder / "report.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    lines = [
        f"Face Video Restoration: {counted(len(restored), 'frame')} of {SIDE} x {SIDE}, damaged by {operator}",
        *result.texts,
        "",
        f"{'':22}{'PSNR':>10}{'SSIM':>10}",
        *(
            f"{name + ', ' + where:22}{figures[f'{name}_{where}']['psnr']:>7.2f} dB{figures[f'{name}_{where}']['ssim']:>10.4f}"
            for where in REGIONS
            for name in ("input", "output")
        ),
        "",
        f"{seconds:.1f} s in all; left in {folder.resolve()}:",
        "  " + ", ".join([Path(result.files[-1]).name, "side_by_side.mp4 (damaged, restored, truth)", "damaged.mkv", "truth.mkv", "report.json"]),
    ]
    return "\n".join(lines)
