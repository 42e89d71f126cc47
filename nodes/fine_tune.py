"""Pseudo-Target Fine-tune: a loaded restorer learns footage that it was not trained for, inside the host."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from .. import host, plots
from ..assembly import PRIORS, restorer_files
from ..finetune.base_model import Base, base_of
from ..finetune.checkpoint import checked_name, saved_as
from ..finetune.dataset import HeldOut, Pairs, as_bytes
from ..finetune.options import PERCEPTUAL, PLANS, RECIPES, FineTune
from ..finetune.run import CURVES, PRECISIONS, SHEET, FineTuned, fine_tune, fingerprint, options_for, precision_for
from ..finetune.stage import FineTuneStage
from ..headless.io import io, ui
from ..host.images import from_image, to_image
from ..methods.registry import restorer_from
from ..models.load import load_network
from ..models.state_dict import notes_of
from ..training.engine import Run
from .restorers import expect
from .sockets import CATEGORY, RestorerSocket, seed_input

WORK = "fine-tune"
"""Folder below the host's output for states, curves and sheets."""
PASSES = 6
"""Networks that are in memory while one learns: itself, its average, its gradient, Adam's two moments, and the frozen one."""
MAPS = 60
"""Full-size maps of 64 channels, float32, that one pair takes while gradients are kept; a rough guess for making room."""


class PseudoTargetFineTune(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRPseudoTargetFineTune",
            display_name="Pseudo-Target Fine-tune",
            category=f"{CATEGORY}/models",
            description="Teaches a restorer one camera, archive or film: from its degraded crops and the targets made of them, both aligned and in "
            "the same order. Writes a file for Load Face Restorer and gives the restorer at once. Takes minutes to hours.",
            is_output_node=True,
            search_aliases=["train restorer", "adapt", "pseudo target", "finetune codeformer", "training"],
            inputs=[
                RestorerSocket.Input("restorer", tooltip="From Load Face Restorer; it stays as it is, and a copy learns."),
                io.Image.Input("inputs", tooltip="Degraded aligned crops, 512 x 512: the footage to learn."),
                io.Image.Input("targets", tooltip="What they should become, in the same order; from Pseudo-Target Generate, or clean faces."),
                io.String.Input("file_name", default="my-restorer", tooltip="Of the file in models/face_video_restoration, without a folder."),
                io.Combo.Input(
                    "plan",
                    options=list(PLANS),
                    default="short",
                    tooltip="short is a few hundred steps that end by themselves; paper is the published schedule.",
                ),
                io.Combo.Input(
                    "recipe",
                    options=list(RECIPES),
                    default="auto",
                    advanced=True,
                    tooltip="codes learns what the network itself sees in the targets; image compares pictures; auto takes what suits the restorer.",
                ),
                io.Int.Input("steps", default=0, min=0, max=1_000_000, tooltip="Of the optimiser; 0 takes the plan's."),
                io.Float.Input(
                    "learning_rate", default=0.0, min=0.0, max=0.1, step=0.00001, round=False, advanced=True, tooltip="0 takes the plan's."
                ),
                io.Int.Input(
                    "batch",
                    default=0,
                    min=0,
                    max=64,
                    advanced=True,
                    tooltip="Pairs at once; fewer take less memory and more passes a step; 0 takes the plan's.",
                ),
                io.Float.Input(
                    "held_out",
                    default=0.15,
                    min=0.01,
                    max=0.5,
                    step=0.01,
                    advanced=True,
                    tooltip="Share of the pairs, the last ones, that only judge.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    default="auto",
                    advanced=True,
                    tooltip="Of the computing; auto takes what the device does well.",
                ),
                seed_input(),
                io.Boolean.Input("overwrite", default=False, tooltip="Replaces a file of this name."),
                io.Combo.Input(
                    "save_as", options=["float32", "float16"], default="float32", optional=True, advanced=True, tooltip="Of the file's numbers."
                ),
                io.Int.Input(
                    "block",
                    default=0,
                    min=0,
                    max=10_000,
                    optional=True,
                    advanced=True,
                    tooltip="Frames in a block, of which every few are held out, spread over the footage; 0 holds out its end.",
                ),
                io.Combo.Input(
                    "perceptual",
                    options=list(PERCEPTUAL),
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip="Recipe image: auto is LPIPS if its weights are on this machine, else the restorer's own first features.",
                ),
                io.Float.Input(
                    "adversary",
                    default=-1.0,
                    min=-1.0,
                    max=10.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="Recipe image: weight of a discriminator, for sharper pictures in long runs; -1 takes the plan's.",
                ),
                io.Boolean.Input(
                    "checkpointing",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Keeps less in memory and computes it again: a third slower.",
                ),
                io.Image.Input(
                    "clean_faces", optional=True, tooltip="Aligned clean faces that the discriminator takes for real; else the targets are."
                ),
            ],
            outputs=[
                RestorerSocket.Output("restorer", tooltip="The fine-tuned restorer, with the settings of the one that came in."),
                io.Image.Output("curves", tooltip="Losses and held-out figures over the steps."),
                io.Image.Output("before_after", tooltip="Held-out crops: input, before, after, target."),
                io.String.Output("report", tooltip="The held-out figures before and after, the file, its licence."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file_name=None, overwrite=False):
        """Before the pairs are made, which may take hours; what comes by a wire is None.

        Whether a file that a run left may be taken up again is known when that run's settings are.
        """
        try:
            if file_name is not None:
                out = place_of(file_name)
                if overwrite is False and out.is_file() and "run" not in notes_or_none(out):
                    return host.user_message(f"{out} exists and is no run's of this node; choose another file_name, or switch overwrite on")
        except ValueError as error:
            return host.user_message(str(error))
        return True

    @classmethod
    def execute(
        cls,
        restorer,
        inputs,
        targets,
        file_name="my-restorer",
        plan="short",
        recipe="auto",
        steps=0,
        learning_rate=0.0,
        batch=0,
        held_out=0.15,
        precision="auto",
        seed=0,
        overwrite=False,
        save_as=None,
        block=None,
        perceptual=None,
        adversary=None,
        checkpointing=None,
        clean_faces=None,
    ):
        expect(restorer, hasattr(restorer, "use"), "Pseudo-Target Fine-tune trains a network", "wire Load Face Restorer")
        out = place_of(file_name)
        with torch.inference_mode(False), torch.enable_grad():  # the host runs everything in inference mode, where nothing can be learnt
            base = base_of(restorer, restorer_files().values())
            options = options_for(base, plan=plan, recipe=recipe, steps=steps, rate=learning_rate, batch=batch)
            options = replace(
                options,
                held_out=HeldOut(held_out, block or 0),
                perceptual_by=perceptual or "auto",
                adversary=options.adversary if adversary is None or adversary < 0 else adversary,
                checkpointing=bool(checkpointing),
            )
            pairs = Pairs.of_images(from_image(inputs), from_image(targets), base.side)
            reals = None if clean_faces is None else as_bytes(from_image(clean_faces), base.side)
            device = host.device()
            run = Run(Path(), seed, str(device), save_every=max(50, options.plan.steps // 20), **precision_for(precision, device))
            mark = fingerprint(base, pairs, options, run, reals)
            run = replace(run, folder=host.output_directory() / WORK / f"{out.stem}-{mark}")
            text = already_there(out, mark, save_as or "float32", run.folder, overwrite)
            if text is None:
                text = learnt(base, pairs, options, run, out, save_as == "float16", reals, mark).text
        text += f"\nwritten to {out}"
        loaded = load_network(out)
        tuned = restorer_from(loaded, restorer.options, place=host.managed(loaded.network))
        curves, sheet = (to_image(picture(run.folder / name)) for name in (CURVES, SHEET))
        shown = {**ui.PreviewImage(sheet, cls=cls).as_dict(), "text": (text,), "report": (report_of(out),)}
        return io.NodeOutput(tuned, curves, sheet, text, ui=shown)


def report_of(path: Path) -> dict[str, Any]:
    """Where a fine-tuned file comes from, as its own metadata has it, with the held-out figures before and after as numbers."""
    notes = notes_of(path)
    said = {name: notes[name] for name in ("licence", "base_file", "base_sha256", "recipe", "pairs", "pairs_sha256", "run")}
    figures = json.loads(notes["held_out"], parse_constant=str)  # JSON has no number for an infinite one
    return {"file": path.name, "folder": str(path.parent), **said, "steps": int(notes["steps"]), "seed": int(notes["seed"]), "held_out": figures}


def place_of(name: str) -> Path:
    """Where a file of this name is written: our own models folder.

    Raises:
        ValueError: for a name that will not do, or one that the menu of restorers would not show.
    """
    bare = checked_name(name)
    if PRIORS.search(bare):
        raise ValueError(f"{bare} would be listed as a diffusion prior, by its name; choose one without {PRIORS.search(bare)[0]}")  # type: ignore[index]
    return host.model_folders()["face_video_restoration"][0] / bare


def already_there(out: Path, mark: str, numbers: str, folder: Path, overwrite: bool) -> str | None:
    """What the file says of itself, if a run with these very settings wrote it; None if it has to be run.

    Args:
        mark: the run's.
        numbers: what the file's are to be, "float32" or "float16".
        folder: the run's, where its pictures are, if nobody deleted them.

    Raises:
        ValueError: if the file is another one's and may not be replaced.
    """
    if not out.is_file():
        return None
    notes = notes_or_none(out)
    if notes.get("run") == mark and "report" in notes and saved_as(out) == numbers:
        gone = [shown for shown, name in (("curves", CURVES), ("before_after", SHEET)) if not (folder / name).is_file()]
        missing = f"\n{' and '.join(gone)} of that run are no longer in {folder}; delete the file to have all made again" if gone else ""
        return notes["report"] + missing
    if not overwrite:
        raise ValueError(f"{out} exists and was made with other settings; choose another file_name, or switch overwrite on")
    return None


def notes_or_none(path: Path) -> dict[str, str]:
    """What a file says of itself; nothing if it is no whole file."""
    try:
        return notes_of(path)
    except ValueError:
        return {}


def learnt(base: Base, pairs: Pairs, options: FineTune, run: Run, out: Path, half: bool, reals: Tensor | None, mark: str) -> FineTuned:
    """`fine_tune` with the host's progress bar, its previews and its way of stopping."""
    host.free_memory(needed(base, options))
    stages: list[FineTuneStage] = []
    reached = [0]
    shown: list[Tensor | None] = [None]
    with stopping_told(run.folder, reached, options.plan.steps), host.progress(options.plan.steps, "fine-tune") as progress:

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
def stopping_told(folder: Path, reached: list[int], steps: int) -> Iterator[None]:
    """Says, when the user stops the work, where it is kept and how it goes on."""
    try:
        yield
    except Exception as error:
        if "Interrupt" in type(error).__name__:  # an ordinary exception in older hosts
            host.say(_kept(folder, reached[0], steps))
        raise
    except BaseException:
        host.say(_kept(folder, reached[0], steps))
        raise


def _kept(folder: Path, done: int, steps: int) -> str:
    return f"Stopped after {done} of {steps} steps; the state is in {folder}, and the same settings go on from there."


def needed(base: Base, options: FineTune) -> int:
    """Bytes that learning takes on the device, roughly."""
    weights = sum(value.nbytes for value in base.network.state_dict().values())
    return PASSES * weights + options.plan.batch * MAPS * 64 * base.side**2 * 4 // (4 if options.checkpointing else 1)


def picture(path: Path) -> Tensor:
    """A picture file as frames (1, 3, H, W) in [0, 1]; a page that says so where it is gone, as the report does."""
    if not path.is_file():
        page = plots.blank(48, 480)
        plots.write(page, f"{path.name} is gone: see the report", (8, 30), (60, 60, 60), 0.6)
        return plots.picture(page)[None]
    pixels: Any = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    return torch.from_numpy(np.ascontiguousarray(pixels[..., ::-1])).permute(2, 0, 1)[None] / 255
