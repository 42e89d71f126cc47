"""Implementation of Pseudo-Target Fine-tune, imported when it runs: it loads the training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import host, plots
from ..assembly import PRIORS
from ..finetune.base_model import Base, base_of
from ..finetune.checkpoint import stored_dtype, validated_name
from ..finetune.dataset import Pairs, as_bytes
from ..finetune.options import FineTune, HeldOut, Perceptual
from ..finetune.run import CURVES, SHEET, FineTuned, fine_tune, fingerprint, options_for, precision_for
from ..finetune.stage import FineTuneStage
from ..host.images import from_image, to_image
from ..methods.registry import restorer_from
from ..models.checkpoints.load import load_network
from ..models.checkpoints.state_dict import notes_of
from ..training.engine import Run

WORK = "fine-tune"
"""Subfolder of the host's output for states, curves and sheets."""
NETWORK_COPIES = 6
"""Tensors per parameter in memory during training: weight, its average, its gradient, Adam's two moments, and the frozen base."""
FULL_SIZE_MAPS = 60
"""Full-size float32 feature maps of 64 channels per pair with gradients; a rough estimate."""


def fine_tuned(
    restorer: Any,
    inputs: Tensor,
    targets: Tensor,
    out: Path,
    *,
    plan: str = "short",
    recipe: str = "auto",
    steps: int = 0,
    learning_rate: float = 0.0,
    batch: int = 0,
    held_out: float = 0.15,
    block: int = 0,
    precision: str = "auto",
    seed: int = 0,
    overwrite: bool = False,
    save_as: str = "float32",
    perceptual: Perceptual = "auto",
    adversary: float = -1.0,
    checkpointing: bool = False,
    clean_faces: Tensor | None = None,
) -> tuple[Any, Tensor, Tensor, str]:
    """(fine-tuned restorer, curves IMAGE, sheet IMAGE, report). Pictures are IMAGEs, the other arguments the node's widgets."""
    with torch.inference_mode(False), torch.enable_grad():  # the host runs nodes in inference mode, without gradients
        base = base_of(restorer)
        options = options_for(base, plan=plan, recipe=recipe, steps=steps, rate=learning_rate, batch=batch)
        options = replace(options, held_out=HeldOut(held_out, block), perceptual_by=perceptual, checkpointing=checkpointing)
        if adversary >= 0:
            options = replace(options, adversary=adversary)
        pairs = Pairs.of_images(from_image(inputs), from_image(targets), base.side)
        reals = None if clean_faces is None else as_bytes(from_image(clean_faces), base.side)
        device = host.device()
        run = Run(Path(), seed, str(device), save_every=max(50, options.plan.steps // 20), precision=precision_for(precision, device))
        mark = fingerprint(base, pairs, options, run, reals)
        run = replace(run, folder=host.output_directory() / WORK / f"{out.stem}-{mark}")
        text = existing_report(out, mark, save_as, run.folder, overwrite)
        if text is None:
            text = run_fine_tuning(base, pairs, options, run, out, save_as == "float16", reals, mark).text
    loaded = load_network(out)
    tuned = restorer_from(loaded, restorer.options, place=host.managed(loaded.network))
    curves, sheet = (to_image(picture(run.folder / name)) for name in (CURVES, SHEET))
    return tuned, curves, sheet, f"{text}\nwritten to {out}"


def report_of(path: Path) -> dict[str, Any]:
    """Provenance of a fine-tuned file from its metadata, with the held-out metrics before and after as numbers."""
    notes = notes_of(path)
    said = {name: notes[name] for name in ("licence", "base_file", "base_sha256", "recipe", "pairs", "pairs_sha256", "run")}
    figures = json.loads(notes["held_out"], parse_constant=str)  # JSON has no infinite numbers
    return {"file": path.name, "folder": str(path.parent), **said, "steps": int(notes["steps"]), "seed": int(notes["seed"]), "held_out": figures}


def output_path(name: str) -> Path:
    """Path of a file of this name in our models folder.

    Raises:
        ValueError: if the name is invalid, or the restorer menu would not list it.
    """
    bare = validated_name(name)
    if PRIORS.search(bare):
        raise ValueError(f"{bare} would be listed as a diffusion prior, by its name; choose one without {PRIORS.search(bare)[0]}")  # type: ignore[index]
    return host.model_folders()["face_video_restoration"][0] / bare


def existing_report(out: Path, mark: str, numbers: str, folder: Path, overwrite: bool) -> str | None:
    """The report in the file's metadata if a run with exactly these settings wrote it, else None.

    Args:
        mark: the run's.
        numbers: the file's dtype, "float32" or "float16".
        folder: of the run, with its pictures unless deleted.

    Raises:
        ValueError: if a different file exists and `overwrite` is off.
    """
    if not out.is_file():
        return None
    notes = metadata_or_empty(out)
    if notes.get("run") == mark and "report" in notes and stored_dtype(out) == numbers:
        gone = [shown for shown, name in (("curves", CURVES), ("before_after", SHEET)) if not (folder / name).is_file()]
        missing = f"\n{' and '.join(gone)} of that run are no longer in {folder}; delete the file to have all made again" if gone else ""
        return notes["report"] + missing
    if not overwrite:
        raise ValueError(f"{out} exists and was made with other settings; choose another file_name, or switch overwrite on")
    return None


def metadata_or_empty(path: Path) -> dict[str, str]:
    """A file's metadata; empty if it cannot be read."""
    try:
        return notes_of(path)
    except ValueError:
        return {}


def run_fine_tuning(base: Base, pairs: Pairs, options: FineTune, run: Run, out: Path, half: bool, reals: Tensor | None, mark: str) -> FineTuned:
    """`fine_tune` with the host's progress bar, previews and interruption."""
    host.free_memory(memory_estimate(base, options))
    stages: list[FineTuneStage] = []
    reached = [0]
    shown: list[Tensor | None] = [None]
    with stop_notice(run.folder, reached, options.plan.steps), host.progress(options.plan.steps, "fine-tune") as progress:

        def tick(stage: str, done: int, steps: int, losses: dict[str, float]) -> None:
            sheet = stages[0].sheet
            preview = None
            if sheet is not None and sheet is not shown[0]:
                shown[0], preview = sheet, torch.cat(list(sheet[0]), -1)
            advance, reached[0] = done - reached[0], done
            progress(advance, preview)

        return fine_tune(
            base, pairs, options, run, out, half=half, reals=reals, mark=mark, tick=tick, check_interrupt=host.check_interrupt, on_stage=stages.append
        )


@contextmanager
def stop_notice(folder: Path, reached: list[int], steps: int) -> Iterator[None]:
    """On interruption, tells the user where the state is and how to resume."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) or "Interrupt" in type(error).__name__:  # an ordinary exception in older hosts
            host.say(f"Stopped after {reached[0]} of {steps} steps; the state is in {folder}, and the same settings go on from there.")
        raise


def memory_estimate(base: Base, options: FineTune) -> int:
    """Estimated memory of training on the device, in bytes."""
    weights = sum(value.nbytes for value in base.network.state_dict().values())
    return NETWORK_COPIES * weights + options.plan.batch * FULL_SIZE_MAPS * 64 * base.side**2 * 4 // (4 if options.checkpointing else 1)


def picture(path: Path) -> Tensor:
    """A picture file as frames (1, 3, H, W) in [0, 1]; a page that says so if it is missing."""
    found = plots.decode_image(path.read_bytes()) if path.is_file() else None
    if found is None:
        page = plots.blank(48, 480)
        plots.draw_text(page, f"{path.name} is gone: see the report", (8, 30), (60, 60, 60), 0.6)
        found = plots.page_to_tensor(page)
    return found[None]
