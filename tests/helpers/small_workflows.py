"""What the bundled workflows need to run in seconds: a tiny clip, small stand-ins for the weights they name, and few steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from fvr import headless
from fvr.demo import moving_portrait, save
from fvr.models import embedded
from fvr.models.blind import BlindRestorers, BlindSizes
from fvr.models.embedded import SIZES
from fvr.models.flair.bicubic import BicubicConfig, BicubicUNet
from fvr.nodes import registry
from fvr.video import FrameTimes
from fvr.workflows import FOLDER
from helpers.code_networks import small_codeformer, small_dicface
from helpers.flair_small import LIGHT, seeded
from helpers.seeded_weights import seed_weights
from helpers.small_keep import small_keep

API = sorted((FOLDER / "api").glob("*.json"))
PAGES = sorted(FOLDER.glob("*.json"))
NOTES = ("Note", "MarkdownNote")
"""What pages hold that no prompt does."""

FRAMES = 4
"""Of the tiny clip."""

STAND_INS: dict[str, Callable[[], nn.Module]] = {
    "codeformer": small_codeformer,
    "my-archive": small_codeformer,
    "KEEP": small_keep,
    "bfr": small_dicface,
    "flair_x8": lambda: seeded("bicubic", sizes=LIGHT),
    "flair_gaussian": lambda: seeded("blur", sizes=LIGHT),
}
"""What stands in for a file whose name begins so: the same network, small and with seeded weights."""

PLACES = {"model": "facerestore_models", "prior": "face_video_restoration"}
"""The model folder of what a widget names."""

TINY_PRIOR = BicubicConfig(side=32, channels=32, multipliers=(1, 1), res_blocks=1, attention=frozenset({1}), recurrence=frozenset(), head=32)

FEWER = {
    "FVRFlairSampler": {"preset.steps": 2},
    "FVRFlairRestorer": {"preset.steps": 2},
    "FVRSeedMapOptimize": {"iterations": 1, "steps": 2, "rank": 2},
    "FVRPseudoTargetGenerate": {"preset.steps": 40, "selection.every": 1, "selection.least": 0.0},
    "FVRPseudoTargetFineTune": {"steps": 2, "batch": 1, "held_out": 0.4},
    "KSampler": {"steps": 2},
}
"""Node by node what makes it quick; the pairs of the tiny clip are all taken, though they are much alike."""


def make_inputs(folder: Path) -> None:
    """A clip of a few frames with a face, the same 64 x 64, a picture of the first frame, a third of it masked."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    frames = moving_portrait(FRAMES)
    save(folder / "clip.mp4", frames, FrameTimes.constant(FRAMES, 25))
    save(folder / "small.mp4", nn.functional.interpolate(frames, (64, 64), mode="area"), FrameTimes.constant(FRAMES, 25))
    alpha = torch.ones(1, *frames.shape[-2:])
    alpha[:, : frames.shape[-2] // 3] = 0
    pixels = (torch.cat([frames[0], alpha]) * 255).round().to(torch.uint8)
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / "frame.png")


def make_models(folder: Path) -> None:
    """Every restorer and prior in a file that the workflows name, in a model folder."""
    for place in PLACES.values():
        (folder / place).mkdir(parents=True, exist_ok=True)
    nodes = [node["inputs"] for path in API for node in json.loads(path.read_text(encoding="utf-8")).values()]
    for widget, name in {(widget, node[widget]) for node in nodes for widget in PLACES if isinstance(node.get(widget), str)}:
        make = next((make for start, make in STAND_INS.items() if name.startswith(start)), None)
        if make is None:
            continue
        path = folder / PLACES[widget] / name
        if path.suffix == ".safetensors":
            save_file({key: value.contiguous() for key, value in make().state_dict().items()}, path)
        else:
            torch.save({"params_ema": make().state_dict()}, path)


def make_embedded(folder: Path) -> None:
    """A folder that stands in for the embedded weights where a checkout has none."""
    folder.mkdir(parents=True, exist_ok=True)
    stand_ins: dict[str, Callable[[], nn.Module]] = {
        embedded.BLIND: lambda: BlindRestorers(BlindSizes((8, 12, 16), (1, 2, 1))),
        embedded.CODEBOOK: small_codeformer,
        embedded.KEEP: small_keep,
        embedded.DICFACE: small_dicface,
    }
    for name, make in stand_ins.items():
        save_file({key: value.contiguous() for key, value in make().state_dict().items()}, folder / name)
    sizes = {name: sorted(value) if isinstance(value, frozenset) else value for name, value in asdict(TINY_PRIOR).items()}
    state = seed_weights(BicubicUNet(TINY_PRIOR), "small").state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, folder / embedded.PRIOR, {SIZES: json.dumps(sizes)})


def embedded_are_here() -> bool:
    """Whether this checkout has all weights that come with the package."""
    return len(embedded.listed(embedded.RESTORERS | embedded.PRIORS)) == len(embedded.RESTORERS | embedded.PRIORS)


def heavy(prompt: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a prompt has FLAIR's published networks, which work at 512 even when they are small."""
    return any(str(node["inputs"].get("prior")).endswith(".pt") for node in prompt.values())


def frames_of(prompt: Mapping[str, Mapping[str, Any]]) -> int:
    """How many frames `quick` takes: all for pairs to learn from and hold out, and where a clip is measured."""
    whole = {"FVRPseudoTargetGenerate", "FVRMeasureRestoration"} & {node["class_type"] for node in prompt.values()}
    return 1 if heavy(prompt) else FRAMES if whole else 2


def reporting(prompt: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The nodes that owe the history of a run data and not only words: those with a report or JSON among their outputs."""
    known = registry()
    given = {key: known[node["class_type"]].define_schema().outputs for key, node in prompt.items() if node["class_type"] in known}
    return [key for key, outputs in given.items() if {output.id for output in outputs} & {"report", "json"}]


def quick(path: Path) -> dict[str, dict[str, Any]]:
    """The workflow with the tiny clip and few steps."""
    prompt = headless.load_prompt(path)
    clip = "small.mp4" if path.stem == "flair_x8" else "clip.mp4"
    given = {"file": clip, "image": "frame.png", "max_frames": frames_of(prompt)}
    changes = {
        key: {name: value for name, value in given.items() if not isinstance(node["inputs"].get(name, []), list)} for key, node in prompt.items()
    }
    for key, node in prompt.items():
        changes[key] |= FEWER.get(node["class_type"], {})
    return headless.apply_overrides(prompt, [f"{key}.{name}={value}" for key, values in changes.items() for name, value in values.items()])
