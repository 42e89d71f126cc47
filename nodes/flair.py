"""FLAIR: the sampler, and the prior it samples from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .. import host
from ..assembly import PRECISIONS, chosen_parser, fingerprint, fingerprints, licence_of, prior_files
from ..headless.io import io
from ..methods.base import Restorer
from ..methods.flair.options import PRESETS
from ..methods.flair.sampler import FlairOptions, FlairRestorer
from ..methods.registry import embedded_blind
from ..physics import Degradation
from ..priors.base import Prior
from ..priors.flair_video import FlairPrior
from ..priors.load import EMBEDDED, TASKS, load_prior, prior_from_file
from .choices import check_choice
from .faces import crops_image, restored_text
from .restoring import restore_people
from .sockets import ABSENT, CATEGORY, DegradationSocket, Faces, PriorSocket, RestorerSocket, seed_input


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
            inputs=[
                io.Combo.Input(
                    "prior",
                    options=[*prior_files(), *EMBEDDED],
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
    """The two switches, a preset with all its inputs, and the sockets that go with them."""
    return [
        io.Boolean.Input("data_consistency", default=True, tooltip="Pulls every step towards frames that, damaged again, give the input."),
        io.Boolean.Input("enhance", default=True, tooltip="Blends in the wired enhancer inside the face; no effect without one."),
        io.DynamicCombo.Input(
            "preset",
            options=[io.DynamicCombo.Option(name, preset_inputs(preset)) for name, preset in PRESETS.items()],
            tooltip="default suits the prior without weights, embedded the embedded one with embedded codeformer as its enhancer; the others are "
            "FLAIR's published settings, -demo those of its code. "
            "Each knob can be changed.",
        ),
        DegradationSocket.Input("degradation", optional=True, tooltip="What damaged the frames. Without it that is estimated for each person."),
        RestorerSocket.Input("enhancer", optional=True, tooltip="Any face restorer, for the enhancement stage."),
    ]


NOISE_OF_THE_DEGRADATION = -1.0
"""What the noise_level widget shows for None."""


def preset_inputs(preset: FlairOptions) -> list:
    """The numbers and choices of a preset as widgets that start at its values; a prompt may leave any of them out."""

    def number(kind: Any, name: str, low: float, high: float, tooltip: str, **more: Any) -> Any:
        default = getattr(preset, name)
        return kind.Input(
            name, default=NOISE_OF_THE_DEGRADATION if default is None else default, min=low, max=high, tooltip=tooltip, optional=True, **more
        )

    def choice(name: str, words: list[str], tooltip: str) -> Any:
        return io.Combo.Input(name, options=words, default=getattr(preset, name), tooltip=tooltip, optional=True, advanced=True)

    def switch(name: str, tooltip: str) -> Any:
        return io.Boolean.Input(name, default=getattr(preset, name), tooltip=tooltip, optional=True, advanced=True)

    fine = {"step": 0.001, "advanced": True}
    return [
        number(io.Int, "steps", 2, 1000, "Sampling steps K; time grows in proportion."),
        number(io.Float, "start", 0.001, 1, "Where sampling begins, as a share of the noise schedule; 1 is pure noise.", **fine),
        number(io.Float, "rho", 0, 1, "Share of the noise that each step draws anew: 0 is deterministic.", **fine),
        number(io.Float, "temperature", 0, 1, "Strength of the noise that is drawn; 0 gives the most likely picture, 1 a sample.", **fine),
        switch("self_condition", "Each step takes the last estimate as its condition; for the prior without weights."),
        choice("consistency", ["damped", "pinv"], "damped allows for noise in the input; pinv is the published, exact form."),
        number(io.Float, "trust", 0.001, 1000, "With damped: more follows the prior, less the input.", **fine),
        number(io.Float, "zeta", -1, 1_000_000, "How much noise in the input weakens data consistency; -1 never.", **fine),
        choice("zeta_reading", ["code", "paper"], "How zeta is read: code has the noise in levels of 0 to 255, paper in units of 0 to 1."),
        number(io.Float, "noise_level", -1, 255, "Noise of the input in levels of 0 to 255; -1 takes the degradation's own.", **fine),
        number(io.Float, "w", 0, 1, "Weight in the enhancement stage, read as w_reading says.", **fine),
        choice(
            "w_reading", ["data", "enhancement"], "data: w weighs the frame against the enhancer (code); enhancement: w weighs the enhancer (paper)."
        ),
        number(io.Int, "tau", 0, 1000, "The enhancer rests in the last tau steps.", advanced=True),
        number(io.Int, "window", 1, 100, "Frames sampled together.", advanced=True),
        number(io.Int, "overlap", 0, 99, "Frames that a window shares with the one before it; less than window.", advanced=True),
        choice("overlap_mode", ["blend", "impose"], "blend slides from one window to the next; impose keeps the earlier one's frames (code)."),
        number(io.Float, "guidance", 0, 20, "Classifier-free guidance; 1 is none.", **fine),
        switch("shared_noise", "All frames get the same noise, so that a still scene stays still."),
        choice(
            "solver",
            ["ddpm", "ddim", "dpm++2m"],
            "How steps are taken: ddpm as published; ddim (rho is its eta) and dpm++2m (deterministic) need only 10 to 25 steps.",
        ),
        choice("spacing", ["auto", "uniform", "log-snr"], "Where the steps lie on the noise schedule; auto suits the solver."),
        choice(
            "mask_every",
            ["window", "step"],
            "With parsing_parsenet.pth in a model folder: how often it finds the face to enhance; the code does at every step.",
        ),
        choice("where", ["face", "crop"], "Where the enhancer acts: in the face only, or in all of the crop."),
        number(io.Int, "samples", 1, 100, "Samples that are averaged: nearer to the truth, less sharp; time grows with it.", advanced=True),
    ]


def flair(
    prior: Prior, preset: dict | None = None, degradation: Degradation | None = None, enhancer: Restorer | None = None, **switches: Any
) -> FlairRestorer:
    """The restorer that the widgets describe. Its enhancer is masked by ParseNet where that is in a model folder, else by an ellipse."""
    enhancer = getattr(enhancer, "otherwise", enhancer)  # of a restorer that chooses: FLAIR within FLAIR is not meant
    changes = {name: value for name, value in (preset or {"preset": "default"}).items() if value is not None}
    if changes.get("noise_level") == NOISE_OF_THE_DEGRADATION:
        changes["noise_level"] = None
    options = replace(PRESETS[changes.pop("preset")], **changes, **switches)
    wanted = enhancer is not None and options.enhance and options.where == "face"
    carries = isinstance(prior, FlairPrior) and prior.background < 1  # eq. 17: what is carried fades outside the face
    parser = chosen_parser() if wanted or carries else None
    if isinstance(prior, FlairPrior) and carries and parser is not None:
        prior = prior.configured(mask=parser)
    mask = parser if wanted else None
    floor = embedded_blind(host.managed) if prior.native() is not prior else None  # small networks need one
    return FlairRestorer(prior, degradation, options, enhancer=enhancer, mask=mask, floor=floor, device=host.device())


def fingerprints_of_masking(enhancer: object) -> list:
    """Changes with the weights of the enhancer's mask, if one is wired (None; an unwired socket is absent)."""
    return [] if enhancer is ABSENT else fingerprints("parsenet")


class FlairSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRFlairSampler",
            display_name="FLAIR Sampler",
            category=f"{CATEGORY}/restore",
            description="Restores aligned faces by conditional diffusion with data consistency (FLAIR). "
            "Wire faces, or a batch of aligned frames of one person.",
            search_aliases=["flair", "diffusion restore", "DDNM", "data consistency", "face restoration", "deblur face"],
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
            outputs=[
                Faces.Output("faces", tooltip="Restored faces, for Paste Back."),
                io.Image.Output("frames", tooltip="The restored crops, person after person, 512 x 512."),
            ],
        )

    @classmethod
    def validate_inputs(cls, prior=None, preset=None):
        return check_choice(cls, "preset", preset)

    @classmethod
    def fingerprint_inputs(cls, enhancer=ABSENT, **others):
        return fingerprints_of_masking(enhancer)

    @classmethod
    def execute(cls, prior, seed=0, faces=None, frames=None, **options):
        restored, _ = restore_people(flair(prior, **options), faces, frames, seed=seed)
        return io.NodeOutput(restored, crops_image(restored), ui={"text": (restored_text(restored),)})


class FlairRestorerNode(io.ComfyNode):
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
    def validate_inputs(cls, prior=None, preset=None):
        return check_choice(cls, "preset", preset)

    @classmethod
    def fingerprint_inputs(cls, enhancer=ABSENT, **others):
        return fingerprints_of_masking(enhancer)

    @classmethod
    def execute(cls, prior, **options):
        return io.NodeOutput(flair(prior, **options))
