"""No-reference quality: MUSIQ, MANIQA and NIQE by the package pyiqa, where it and their weights are installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ..models.checkpoints.fill import fill
from .lpips import bounding_slices

Judge = Callable[[Tensor], float]
"""Maps a frame (1, 3, H, W) in [0, 1] to its score; NaN below the network's least side."""


@dataclass(frozen=True)
class Scale:
    """A no-reference score.

    Attributes:
        name: display name.
        file: of pyiqa's weights.
        least: least shorter side in pixels.
    """

    name: str
    file: str
    least: int


SCALES = {
    "musiq": Scale("MUSIQ", "musiq_koniq_ckpt-e95806b9.pth", 32),
    "maniqa": Scale("MANIQA", "ckpt_koniq10k.pt", 224),
    "niqe": Scale("NIQE", "niqe_modelparameters.mat", 192),
}
"""By report key and pyiqa name, with pyiqa's default weights: KonIQ-10k for MUSIQ and MANIQA, the model of natural images for NIQE. MANIQA uses
224 x 224 crops, NIQE patches of 96 x 96."""


def weights_file(key: str) -> Path:
    """The path where pyiqa stores the weights."""
    return Path(torch.hub.get_dir()) / "pyiqa" / SCALES[key].file


def missing(key: str) -> str | None:
    """A sentence on what is missing for a score; None if it is available."""
    scale, path = SCALES[key], weights_file(key)
    try:
        importlib.import_module("pyiqa")
    except ImportError as error:
        needs = f"the Python package pyiqa (non-commercial licence) and its {scale.file} in {path.parent}"
        return f"{scale.name} was left out: it needs {needs}; {error}."
    if not path.is_file():
        return f"{scale.name} was left out: its weights {scale.file} are not in {path.parent}; nothing is downloaded."
    return None


def load_judge(key: str, device: torch.device) -> Judge:
    """A score of SCALES.

    Raises:
        ImportError, FileNotFoundError: where `missing` reports something.
        ValueError: if the file cannot be read, or holds another network.
    """
    pyiqa: Any = importlib.import_module("pyiqa")
    scale, path = SCALES[key], weights_file(key)
    if path.suffix == ".mat":
        metric = pyiqa.create_metric(key, device=device, pretrained_model_path=str(path))
    else:
        metric = _untrained(pyiqa, key)
        fill(metric.net, path, scale.name, f"choose another score than {key}")
        metric.to(device)
    metric.eval().requires_grad_(False)

    @torch.no_grad()
    def judge(frame: Tensor) -> float:
        if min(frame.shape[-2:]) < scale.least:
            return float("nan")
        return float(metric(frame.to(device, torch.float32).clamp(0, 1)))

    return judge


def score_region(judge: Judge, frame: Tensor, region: Tensor | None = None) -> float:
    """Score of a frame (1, 3, H, W), or of the bounding box of the pixels of `region` (1, 1, H, W) above 1/2."""
    if region is None:
        return judge(frame)
    rows, columns = bounding_slices(region[0, 0])
    return judge(frame[..., rows, columns])


def _untrained(pyiqa: Any, key: str) -> Any:
    """The network without weights: pyiqa would unpickle them unsafely, and for MANIQA timm would download a backbone that the file replaces."""
    if key != "maniqa":
        return pyiqa.create_metric(key, device=torch.device("cpu"), pretrained=False)
    module: Any = importlib.import_module("pyiqa.archs.maniqa_arch")
    timm = module.timm
    module.timm = SimpleNamespace(create_model=lambda name, **options: timm.create_model(name, **{**options, "pretrained": False}))
    try:
        return pyiqa.create_metric(key, device=torch.device("cpu"), pretrained=False)
    finally:
        module.timm = timm
