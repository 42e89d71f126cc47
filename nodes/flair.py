"""FLAIR's sampler and the loader of its prior."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .. import host
from ..assembly import PRECISIONS, chosen_parser, fingerprint, fingerprints, licence_of, prior_files
from ..headless.io import io, newer
from ..methods.base import Restorer
from ..methods.flair.options import PRESETS
from ..methods.flair.sampler import FlairOptions, FlairRestorer
from ..methods.registry import flair_precleaner
from ..physics import Degradation
from ..priors.base import Prior
from ..priors.load import NO_WEIGHTS, TASKS, load_prior, prior_from_file
from .choices import check_choice
from .faces import crops_image
from .restoring import check_wiring, face_outputs, restore_people, result_ui
from .sockets import ABSENT, CATEGORY, DegradationSocket, Faces, PriorSocket, RestorerSocket, first_fault, seed_input
from .widgets import from_widgets, widgets


class LoadDiffusionPrior(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRLoadDiffusionPrior",
            display_name="Load Diffusion Prior",
            category=f"{CATEGORY}/models",
            description="Gives the diffusion model that FLAIR samples from: the embedded one needs no download; FLAIR's own video networks "
            "and DifFace's face network are recognised by what their files hold.",
            search_aliases=["diffusion model", "denoiser", "ddpm", "flair checkpoint", "difface"],
            **newer(has_intermediate_output=True),
            inputs=[
                io.Combo.Input(
                    "prior",
                    options=[*prior_files(), NO_WEIGHTS],
                    tooltip="embedded face prior is a small network that comes with this pack; gaussian is a wavelet denoiser without weights, which "
                    "removes noise and blur but invents nothing. Files are looked for in models/face_video_restoration and checkpoints.",
                ),
                io.Combo.Input(
                    "task",
                    options=["auto", *TASKS],
                    default="auto",
                    optional=True,
                    tooltip="What a FLAIR file was trained for; auto reads it off the file name. Choose the preset of the same name in the sampler.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    default="float32",
                    optional=True,
                    tooltip="Of the convolutions of FLAIR's networks: half the memory; motion and statistics stay float32.",
                ),
            ],
            outputs=[PriorSocket.Output("prior", tooltip="For FLAIR Sampler.")],
        )

    @classmethod
    def fingerprint_inputs(cls, prior=None, **others):
        return fingerprint(prior_files().get(prior))

    @classmethod
    def execute(cls, prior, task=None, precision=None):
        path = prior_files().get(prior)
        if path is None:
            return io.NodeOutput(load_prior(prior))
        chosen = None if task in (None, "auto") else task
        loaded = prior_from_file(path, task=chosen, dtype=PRECISIONS[precision or "float32"], placed=host.managed)
        return io.NodeOutput(loaded, ui={"text": (f"{path.name}: {licence_of(path)}",)})


def option_inputs() -> list:
    """Two switches, the preset with all its inputs, and their sockets."""
    return [
        *widgets(FlairOptions(), "data_consistency", "enhance", optional=False),
        io.DynamicCombo.Input(
            "preset",
            options=[io.DynamicCombo.Option(name, widgets(preset, *WIDGETS)) for name, preset in PRESETS.items()],
            tooltip="default suits the prior without weights, embedded the embedded one with embedded codeformer as its enhancer; the others are "
            "FLAIR's published settings, -demo those of its code. "
            "Each value can be changed.",
        ),
        DegradationSocket.Input("degradation", optional=True, tooltip="What damaged the frames. Without it that is estimated for each person."),
        RestorerSocket.Input("enhancer", optional=True, tooltip="Any face restorer, for the enhancement stage."),
    ]


WIDGETS = (
    "steps", "start", "rho", "temperature", "self_condition", "consistency", "trust", "zeta", "zeta_reading", "noise_level", "w", "w_reading",
    "tau", "window", "overlap", "overlap_mode", "guidance", "shared_noise", "solver", "spacing", "mask_every", "where", "samples",
)  # fmt: skip
"""The parameters a preset sets, in widget order."""


def flair(
    prior: Prior, preset: dict | None = None, degradation: Degradation | None = None, enhancer: Restorer | None = None, **switches: Any
) -> FlairRestorer:
    """The restorer for these widgets. Its enhancer is masked by ParseNet if that is in a model folder, else by an ellipse."""
    enhancer = getattr(enhancer, "otherwise", enhancer)  # of an automatic restorer: FLAIR cannot enhance itself
    changes = from_widgets(FlairOptions, preset or {"preset": "default"})
    options = replace(PRESETS[changes.pop("preset")], **changes, **switches)
    wanted = enhancer is not None and options.enhance and options.where == "face"
    parser = chosen_parser() if wanted or prior.background < 1 else None  # eq. 17: what is carried fades outside the face
    if parser is not None:
        prior = prior.masked(parser)
    mask = parser if wanted else None
    precleaner = flair_precleaner(host.managed) if prior.native() is not prior else None  # small networks need one
    return FlairRestorer(prior, degradation, options, enhancer=enhancer, mask=mask, precleaner=precleaner, device=host.device())


class WithOptions(io.ComfyNode):
    """Validation shared by both FLAIR nodes."""

    @classmethod
    def validate_inputs(cls, prior=None, preset=None):
        return check_choice(cls, "preset", preset)

    @classmethod
    def fingerprint_inputs(cls, **others):
        """Changes with the weights of the enhancer's mask and FLAIR's own networks; wired values are not known yet."""
        return fingerprints("parsenet")


class FlairSampler(WithOptions):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRFlairSampler",
            display_name="FLAIR Sampler",
            category=f"{CATEGORY}/restore",
            description="Restores aligned faces by conditional diffusion with data consistency (FLAIR). "
            "Wire faces, or a batch of aligned frames of one person.",
            search_aliases=["flair", "diffusion restore", "DDNM", "data consistency", "face restoration", "deblur face"],
            **newer(has_intermediate_output=True),
            inputs=[
                PriorSocket.Input("prior", tooltip="From Load Diffusion Prior."),
                seed_input(),
                *option_inputs(),
                Faces.Input("faces", optional=True, tooltip="From Face Align."),
                io.Image.Input(
                    "frames",
                    optional=True,
                    tooltip="Aligned frames of one person, 512 x 512 or as small as the degradation made them, instead of faces.",
                ),
            ],
            outputs=face_outputs(),
        )

    @classmethod
    def validate_inputs(cls, prior=None, preset=None, faces=ABSENT, frames=ABSENT):
        return first_fault(super().validate_inputs(prior, preset), check_wiring(cls, faces, frames))

    @classmethod
    def execute(cls, prior, seed=0, faces=None, frames=None, **options):
        restored, _ = restore_people(flair(prior, **options), faces, frames, seed=seed)
        return io.NodeOutput(restored, crops_image(restored), ui=result_ui(cls, restored, faces, frames))


class FlairRestorerNode(WithOptions):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRFlairRestorer",
            display_name="FLAIR Restorer",
            category=f"{CATEGORY}/restore",
            description="FLAIR with its settings as one wire, for Restore Video and wherever any restorer fits.",
            search_aliases=["flair", "diffusion restorer", "restorer settings"],
            inputs=[PriorSocket.Input("prior", tooltip="From Load Diffusion Prior."), *option_inputs()],
            outputs=[RestorerSocket.Output("restorer", tooltip="For Restore Video.")],
        )

    @classmethod
    def execute(cls, prior, **options):
        return io.NodeOutput(flair(prior, **options))
