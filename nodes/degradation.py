"""Degradation nodes: applied to clean frames, described for degraded footage, or estimated from it."""

from __future__ import annotations

import torch

from .. import host
from ..headless.io import io, newer
from ..host.images import from_image, to_image
from ..physics import KINDS, Degradation, degradation, fit_degradation
from ..physics import shrink as shrink_frames
from .choices import check_choice, choice_made
from .sockets import CATEGORY, DegradationSocket, seed_input
from .widgets import widget

ADVANCED = ("stretch", "angle", "boundary")
"""Degradation parameters shown as advanced widgets."""


def kind_input() -> io.DynamicCombo.Input:
    """One option per kind of degradation, with its parameters."""
    return io.DynamicCombo.Input(
        "kind",
        options=[io.DynamicCombo.Option(kind.name, [parameter_input(parameter) for parameter in kind.parameters]) for kind in KINDS.values()],
        tooltip="What happens to the picture. Chain several nodes for several things.",
    )


def parameter_input(parameter):
    """The widget of one parameter of a degradation."""
    tooltip = f"{parameter.advice} Unit: {parameter.unit}." if parameter.unit else parameter.advice
    rare = {"advanced": True} if parameter.name in ADVANCED else {}
    return widget(parameter.name, parameter.default, parameter, optional=False, changed={"tooltip": tooltip} | rare)


def chosen_degradation(node: type[io.ComfyNode], kind: dict | None, before: Degradation | None) -> Degradation:
    """The widgets' degradation, applied after the wired one."""
    name, values = choice_made(node, "kind", kind)
    operator = degradation(name, **values)
    return operator if before is None else operator @ before


class Degrade(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRDegrade",
            display_name="Degrade",
            category=f"{CATEGORY}/degradation",
            description="Damages clean frames in a known way, to test a restorer against the truth. "
            "Gives the frames and the operator that made them.",
            search_aliases=["blur", "downscale", "add noise", "jpeg compress", "synthetic degradation"],
            inputs=[
                io.Image.Input("frames", tooltip="Clean frames, or the frames of another Degrade."),
                kind_input(),
                seed_input("Of the noise; the same seed gives the same pixels.", "noise_seed"),
                DegradationSocket.Input("degradation", optional=True, tooltip="What was already done to the frames, from another Degrade."),
            ],
            outputs=[
                io.Image.Output("frames", tooltip="The damaged frames; smaller where the operator scales down."),
                DegradationSocket.Output("degradation", tooltip="The operator from the clean frames to these, for FLAIR Sampler."),
            ],
        )

    @classmethod
    def validate_inputs(cls, frames=None, kind=None):
        return check_choice(cls, "kind", kind)

    @classmethod
    def execute(cls, frames, kind=None, seed=0, degradation=None):
        pictures = from_image(frames)
        operator = chosen_degradation(cls, kind, None)
        generator = torch.Generator().manual_seed(seed)
        with host.progress(len(operator.chain) * len(pictures), "degrade") as tick:
            damaged = operator.observe_in_steps(pictures, generator, tick).clamp(0, 1)
        return io.NodeOutput(to_image(damaged), operator if degradation is None else operator @ degradation)


class DescribeDegradation(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRDescribeDegradation",
            display_name="Describe Degradation",
            category=f"{CATEGORY}/degradation",
            description="Says what damaged footage has gone through, so that data consistency can respect it. Lengths are in pixels of the frame.",
            search_aliases=["blur kernel", "noise level", "operator", "physics"],
            **newer(has_intermediate_output=True),
            inputs=[
                kind_input(),
                DegradationSocket.Input("degradation", optional=True, tooltip="What happened before, from another Describe Degradation."),
            ],
            outputs=[DegradationSocket.Output("degradation", tooltip="For FLAIR Sampler."), io.String.Output("text", tooltip="The same in words.")],
        )

    @classmethod
    def validate_inputs(cls, degradation=None, kind=None):  # reported only if a degradation is wired; else `execute` raises
        return check_choice(cls, "kind", kind)

    @classmethod
    def execute(cls, kind=None, degradation=None):
        operator = chosen_degradation(cls, kind, degradation)
        return io.NodeOutput(operator, str(operator), ui={"text": (str(operator),)})


class FitDegradation(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRFitDegradation",
            display_name="Fit Degradation",
            category=f"{CATEGORY}/degradation",
            description="Estimates what footage of unknown origin went through: enlargement, blur, JPEG and noise. "
            "Takes the strongest damage that still explains the frames; check the result by eye.",
            search_aliases=["estimate blur", "blind deblur", "jpeg quality", "unknown operator", "describe degradation"],
            **newer(has_intermediate_output=True),
            inputs=[
                io.Image.Input("frames", tooltip="The damaged frames, as they were stored: not resized after decoding."),
                io.Boolean.Input(
                    "shrink",
                    default=True,
                    tooltip="Looks for footage that was enlarged and gives it back at its true size, for a restorer to enlarge properly.",
                ),
            ],
            outputs=[
                io.Image.Output("frames", tooltip="The frames, smaller where they had been enlarged; these are what the degradation leads to."),
                DegradationSocket.Output("degradation", tooltip="From clean frames to these, for FLAIR Sampler or Seed-Space MAP Optimize."),
                io.String.Output("text", tooltip="What was found, in words."),
            ],
        )

    @classmethod
    def execute(cls, frames, shrink=True):
        pictures = from_image(frames)
        with host.progress(1, "fit degradation") as tick:
            found = fit_degradation(pictures, enlarged=shrink)
            tick(1)
        text = found.describe()
        report = {name: getattr(found, name) for name in ("enlargement", "sigma", "quality", "noise")} | {"degradation": found.operator.describe()}
        shown = {"text": (text,), "report": (report,)}
        return io.NodeOutput(to_image(shrink_frames(pictures, found.enlargement).clamp(0, 1)), found.operator, text, ui=shown)
