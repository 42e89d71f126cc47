"""Pseudo-Target Generate: training pairs for fine-tuning a restorer to new footage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import torch
from torch import Tensor

from .. import host
from ..headless.io import io, ui
from ..host.images import from_image, to_image
from ..methods.pseudo_target.algorithm import PRESETS
from ..methods.pseudo_target.frame_selection import Choice, ChoiceOptions, Mode
from ..plurals import counted
from .choices import check_choice
from .restoring import check_one_is_wired, check_wiring
from .sockets import ABSENT, CATEGORY, Faces, PriorSocket, RestorerSocket, first_fault, seed_input, verdict
from .widgets import widgets

if TYPE_CHECKING:
    from ..methods.pseudo_target.generate import Pairs, TargetMaker

Options = TypeVar("Options")

SHOWN = 4
"""Pairs in the preview."""
SIDE = 256
"""Side of a previewed face in pixels."""


def selection_inputs(mode: str) -> list:
    """The inputs of the frame selection."""
    return widgets(ChoiceOptions(), *(("every",) if mode == "every" else ()), "least", "poor")


class PseudoTargetGenerate(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRPseudoTargetGenerate",
            display_name="Pseudo-Target Generate",
            category=f"{CATEGORY}/models",
            description="Makes clean targets for footage that no restorer was trained for: a restorer's output, redrawn by a diffusion prior that is "
            "held to its coarse content. Pseudo-Target Fine-tune teaches the restorer with them. Takes seconds to minutes a face.",
            is_output_node=True,
            search_aliases=["pseudo ground truth", "training pairs", "adapt restorer", "unsupervised", "data set"],
            inputs=[
                RestorerSocket.Input("restorer", tooltip="The restorer that is to be adapted; CodeFormer with its fidelity at 0.5, as published."),
                PriorSocket.Input("prior", tooltip="From Load Diffusion Prior; it runs at the size it was trained for."),
                io.DynamicCombo.Input(
                    "preset",
                    options=[io.DynamicCombo.Option(name, widgets(preset, *vars(preset))) for name, preset in PRESETS.items()],
                    tooltip="embedded for the embedded weights; the others as published, by restorer: codeformer for footage shrunk about 4 times, "
                    "codeformer-x8 for worse.",
                ),
                io.DynamicCombo.Input(
                    "selection",
                    options=[io.DynamicCombo.Option(mode, selection_inputs(mode)) for mode in get_args(Mode)],
                    tooltip="every takes each n-th frame; diverse the best one, then those that differ most. Neither takes near-duplicates.",
                ),
                io.Int.Input(
                    "count", default=20, min=0, max=100_000, tooltip="At most so many targets; 0 for no limit. 20 gave most of the gain in our table."
                ),
                seed_input(),
                io.String.Input(
                    "folder",
                    default="",
                    tooltip="A folder in the output folder that pairs are written to one by one; the same settings go on where they stopped. "
                    "Empty keeps them in memory.",
                ),
                Faces.Input("faces", optional=True, tooltip="From Face Align: degraded faces."),
                io.Image.Input("frames", optional=True, tooltip="Degraded aligned frames of one person, instead of faces."),
            ],
            outputs=[
                io.Image.Output("targets", tooltip="The pseudo-targets, 512 x 512, for Pseudo-Target Fine-tune."),
                io.Image.Output("inputs", tooltip="The degraded crops they belong to, in the same order."),
                io.Image.Output("initial", tooltip="What the restorer made of them, to compare."),
                io.String.Output("report", tooltip="What was chosen and made, and how it differs from the restorer's output."),
            ],
        )

    @classmethod
    def validate_inputs(cls, folder="", preset=None, selection=None, faces=ABSENT, frames=ABSENT):
        choices = check_choice(cls, "preset", preset), check_choice(cls, "selection", selection)
        return first_fault(verdict(output_folder, folder or ""), *choices, check_wiring(cls, faces, frames))

    @classmethod
    def fingerprint_inputs(cls, folder="", **others):
        """Changes when pairs are added or deleted."""
        from ..methods.pseudo_target.dataset import PAIRS

        try:
            path = output_folder(folder or "")
        except ValueError:
            return None
        return (path / PAIRS).stat().st_mtime_ns if path is not None and (path / PAIRS).is_file() else None

    @classmethod
    def execute(cls, restorer, prior, preset=None, selection=None, count=20, seed=0, folder="", faces=None, frames=None):
        from ..methods.pseudo_target.dataset import PairFolder
        from ..methods.pseudo_target.generate import TargetMaker, faces_of, faces_of_frames, make_pairs, parameters_of, summary

        check_one_is_wired("Pseudo-Target Generate", faces, frames)
        options = _preset_with_changes(PRESETS, preset or {"preset": next(iter(PRESETS))}, "preset")
        modes = {mode: ChoiceOptions(mode=mode, count=count) for mode in get_args(Mode)}
        choosing = _preset_with_changes(modes, selection or {"selection": "every"}, "selection")
        crops = None if frames is None else from_image(frames)
        candidates = sum(len(clip.crops) for clip in faces or []) if crops is None else len(crops)
        chosen, choice = faces_of(faces or [], choosing) if crops is None else faces_of_frames(crops, choosing)
        if not chosen:
            raise ValueError(f"Pseudo-Target Generate got {candidates} faces and none of them can be used; wire faces or frames that show one")
        maker = TargetMaker(restorer, prior, options, device=host.device())
        path = output_folder(folder or "")
        held = None if path is None else PairFolder(path, parameters_of(maker, seed))
        with host.progress(len(chosen) * maker.steps, "pseudo-targets") as tick:
            pairs = make_pairs(
                chosen, maker, seed=seed, folder=held, check_interrupt=host.check_interrupt, on_step=lambda done, preview: tick(done, preview=preview)
            )
            tick(pairs.found * maker.steps)
        text = summary(pairs, choice, candidates, maker)
        if path is not None and held is not None:
            text += f" {counted(len(held), 'pair lies', 'pairs lie')} in {path}."
        host.say(text)
        report = report_of(pairs, [(face.source, face.frame) for face in chosen], choice, candidates, maker, path)
        shown = {**ui.PreviewImage(to_image(preview_of(pairs)), cls=cls).as_dict(), "text": (text,), "report": (report,)}
        return io.NodeOutput(to_image(pairs.targets), to_image(pairs.inputs), to_image(pairs.initial), text, ui=shown)


def report_of(
    pairs: Pairs, places: Sequence[tuple[str, int]], choice: Choice, candidates: int, maker: TargetMaker, folder: Path | None
) -> dict[str, Any]:
    """The report as JSON data; `places` are (clip or person, frame) of each pair, `sharper` and `drift` as in Targets."""
    lines = zip(places, pairs.sharper, pairs.drift, strict=True)
    return {
        "candidates": candidates,
        "near_duplicates": choice.duplicates,
        "poor": choice.poor,
        "found": pairs.found,
        "folder": None if folder is None else str(folder),
        "restorer": maker.restorer.name,
        "options": asdict(maker.options),
        "pairs": [{"source": source, "frame": frame, "sharper": sharper, "drift": drift} for (source, frame), sharper, drift in lines],
    }


def output_folder(name: str) -> Path | None:
    """That subfolder of the host's output folder; None for an empty name. Raises ValueError if it lies outside."""
    if not name.strip():
        return None
    root = host.output_directory()
    path = (root / name.strip()).resolve()
    if path == root.resolve() or not path.is_relative_to(root.resolve()):
        raise ValueError(f"the folder {name!r} leads out of {root}; give a name, or a path below it such as pairs/my-camera")
    return path


def preview_of(pairs: Pairs) -> Tensor:
    """(1, 3, H, W): degraded, restored and target side by side, a few pairs stacked."""
    from ..methods.pseudo_target.generate import at_side

    last = len(pairs.targets) - 1
    chosen = sorted({round(k * last / (SHOWN - 1)) for k in range(SHOWN)})
    columns = [torch.cat(list(at_side(part[chosen], SIDE)), -2) for part in (pairs.inputs, pairs.initial, pairs.targets)]
    return torch.cat(columns, -1)[None]


def _preset_with_changes(presets: dict[str, Options], values: dict[str, Any], name: str) -> Options:
    """A preset with the given widgets' values."""
    changes = {key: value for key, value in values.items() if value is not None}
    return replace(presets[changes.pop(name)], **changes)  # type: ignore[type-var]
