"""Records that make a run reproducible: version, command, weights, seed, device, settings, and results."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import host
from .faces import Detector, Paster
from .methods.base import Restorer
from .models.checkpoints.fetch import sha256_of
from .models.checkpoints.origin import Origin, origins
from .pipeline import Summary

DISTRIBUTION = "face-video-restoration"


def run_record(
    summary: Summary,
    restorer: Restorer,
    *,
    command: str,
    clips: Mapping[str, str],
    seed: int,
    frames: Mapping[str, Any],
    encoding: Mapping[str, Any],
    finding: Mapping[str, Any] | None = None,
    detector: Detector | None = None,
    paster: Paster | None = None,
    degradation: str | None = None,
) -> dict[str, Any]:
    """The report of one restored clip, ready for JSON.

    Args:
        command: the command line, or the node.
        clips: "input" and "output", by name.
        frames, encoding: frame selection and encoding, by option names.
        finding: face selection; None, as `detector` and `paster`, for aligned input.
        degradation: the user's text; None for the restorer's, if it has one.
    """
    own = getattr(restorer, "degradation", None)
    return {
        "version": {"fvr": version(), "python": platform.python_version(), "torch": torch.__version__},
        "command": command,
        **clips,
        **summary.to_dict(),
        "seed": seed,
        "device": device_name(host.device()),
        "weights": weights_of(restorer=restorer, detector=detector, paster=paster),
        "degradation": degradation or (None if own is None else str(own)),
        "settings": {
            "restorer": described(restorer),
            "frames": dict(frames),
            "finding": None if finding is None else {**finding, "detector": getattr(detector, "name", None)},
            "pasting": None if paster is None else {**paster_settings(paster), "gates": asdict(paster.gates)},
            "encoding": dict(encoding),
        },
    }


def job_identity(settings: Mapping[str, Any], restorer: Restorer, detector: Detector, paster: Paster) -> dict[str, Any]:
    """Everything but the clip that must be the same when a job is resumed; ready for JSON."""
    known = getattr(restorer, "degradation", None)
    return {
        "version": version(),
        "settings": dict(settings),
        "degradation": None if known is None else str(known),
        "restorer": described(restorer),
        "pasting": paster_settings(paster),
        "weights": weights_of(restorer=restorer, detector=detector, paster=paster),
    }


def paster_settings(paster: Paster) -> dict[str, Any]:
    """The paster's plain fields, whether it has a parser, and its upscaler's name."""
    values = {field.name: getattr(paster, field.name) for field in fields(paster)}
    plain = {name: value for name, value in values.items() if value is None or isinstance(value, (bool, int, float, str))}
    return {**plain, "parser": paster.parser is not None, "upscaler": paster.upscaler.name if paster.upscaler else None}


def version() -> str:
    """This package's version, from pyproject.toml if present (as in ComfyUI, without installation), else from the installed metadata."""
    project = Path(__file__).with_name("pyproject.toml")
    found = re.search(r'^version = "(.+?)"', project.read_text(encoding="utf-8"), re.MULTILINE) if project.is_file() else None
    return found[1] if found else metadata.version(DISTRIBUTION)


def device_name(device: torch.device) -> str:
    """For instance "cpu" or "cuda:0 (NVIDIA H100)"."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def described(restorer: Restorer) -> dict[str, Any]:
    """A restorer's method and options, with those of its enhancer and of its pre-cleaner (under the key "floor")."""
    options = getattr(restorer, "options", None)
    info = {"method": restorer.name, **(asdict(options) if is_dataclass(options) and not isinstance(options, type) else {})}
    info |= {"fingerprint": restorer.fingerprint} if restorer.fingerprint else {}
    used = {"enhancer": getattr(restorer, "enhancer", None), "floor": getattr(restorer, "precleaner", None)}
    return info | {name: described(other) for name, other in used.items() if other is not None}


def weights_of(**holders: Any) -> list[dict[str, Any]]:
    """The weights files of each holder's networks, and their base files; empty for networks without a file."""
    info = []
    for used_by, holder in holders.items():
        for network, origin in origins(holder).items():
            files = [origin, *([] if origin.base is None else [replace(origin, path=origin.base)])]
            info += [{"used_by": used_by, **file_record(file), "precision": precision_of(network)} for file in files]
    return info


def file_record(origin: Origin) -> dict[str, Any]:
    """Name, SHA-256 and licence of a weights file; no SHA-256 if the file is gone, as finished work must not fail."""
    try:
        status = origin.path.stat()
        digest = _cached_sha256(origin.path, status.st_mtime_ns, status.st_size)
    except OSError:
        digest = None
    return {"file": origin.path.name, "sha256": digest, "licence": origin.licence}


@lru_cache(maxsize=64)
def _cached_sha256(path: Path, modified: int, size: int) -> str:
    """Cached while the file is unchanged, as a server restores many clips with it."""
    return sha256_of(path, host.check_interrupt)


def precision_of(network: nn.Module) -> str:
    """The dtypes of a network's weights, for instance "float32" or "bfloat16, float32"."""
    return ", ".join(sorted({str(value.dtype).removeprefix("torch.") for value in network.parameters() if value.is_floating_point()}))
