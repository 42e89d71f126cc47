"""Pseudo-Target Fine-tune: adapts a loaded restorer to new footage, inside the host."""

from __future__ import annotations

from .. import host
from ..finetune.options import PERCEPTUAL, PLANS, PRECISIONS, RECIPES
from ..headless.io import io, ui
from .restoring import require
from .sockets import CATEGORY, RestorerSocket, seed_input


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
                    tooltip="Keeps less in memory and computes it again: one more forward pass a step.",
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
        """Runs before pairs are made, which may take hours; wired inputs are None.

        Whether an earlier run's file may be reused depends on settings that are known later.
        """
        from .fine_tuning import metadata_or_empty, output_path

        try:
            if file_name is not None:
                out = output_path(file_name)
                if overwrite is False and out.is_file() and "run" not in metadata_or_empty(out):
                    return host.user_message(f"{out} exists and is no run's of this node; choose another file_name, or switch overwrite on")
        except ValueError as error:
            return host.user_message(str(error))
        return True

    @classmethod
    def execute(cls, restorer, inputs, targets, file_name="my-restorer", **settings):
        from .fine_tuning import fine_tuned, output_path, report_of

        require(restorer, hasattr(restorer, "use"), "Pseudo-Target Fine-tune trains a network", "wire Load Face Restorer")
        out = output_path(file_name)
        given = {name: value for name, value in settings.items() if value is not None}
        tuned, curves, sheet, text = fine_tuned(restorer, inputs, targets, out, **given)
        shown = {**ui.PreviewImage(sheet, cls=cls).as_dict(), "text": (text,), "report": (report_of(out),)}
        return io.NodeOutput(tuned, curves, sheet, text, ui=shown)
