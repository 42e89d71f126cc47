"""Seed-space MAP: restoration by a Stable Diffusion checkpoint or a pixel-space prior."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .. import host
from ..headless.io import io, newer, ui
from ..host.images import fitted_mask, from_image, from_mask, to_image
from ..host.latent_model import latent_model
from ..host.layer_interrupts import interruptible_layers
from ..host.plain_tensors import modules_of, plain_tensors
from ..methods.seed_map.conditioning import guides
from ..methods.seed_map.cost import estimate
from ..methods.seed_map.generator import LatentGenerator, PixelGenerator, SeedGenerator, leading_times
from ..methods.seed_map.optimise import seed_map
from ..methods.seed_map.options import SeedMapOptions
from ..methods.seed_map.report import plot, summary, to_json
from ..motion.dis import DisFlow
from ..motion.flow import FlowSource
from ..motion.raft import RaftFlow
from ..options import check
from ..physics import Degradation, Identity, Inpaint
from ..plurals import counted
from ..priors.base import Prior
from .sockets import ABSENT, CATEGORY, DegradationSocket, OpticalFlow, PriorSocket, advanced, seed_input, verdict, wired
from .widgets import from_widgets, widgets

WIDGETS = (
    "iterations", "steps", "rank", "radius", "warp_weight", "warp_start", "residual_rate", "seed_rate", "rate_floor", "warp_every", "flow_decay",
    "residual_init", "loss", "noise_prior", "guided", "start",
)  # fmt: skip
"""The method's parameters in widget order."""

NO_DAMAGE = "Seed-Space MAP Optimize needs to know what damaged the frames; wire a degradation (Describe Degradation), a mask, or both"


class SeedMapOptimize(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRSeedMapOptimize",
            display_name="Seed-Space MAP Optimize",
            category=f"{CATEGORY}/restore",
            description="Finds the clip that a diffusion model can draw and that, damaged as described, gives the input. Restores anything, not only "
            "faces: upscaling, inpainting, motion and temporal blur. Wire MODEL and VAE of Stable Diffusion 1.5, 2.x or SDXL, or a diffusion prior. "
            "Takes minutes.",
            search_aliases=["video inpainting", "video super-resolution", "deblur", "temporal deconvolution", "inverse problem", "DMPlug"],
            **newer(has_intermediate_output=True),
            inputs=[
                io.Image.Input("frames", tooltip="The damaged frames of one shot, in order."),
                seed_input(),
                *advanced(widgets(SeedMapOptions(), *WIDGETS, optional=False), "rank", "radius", "warp_start"),
                DegradationSocket.Input("degradation", optional=True, tooltip="What damaged the frames; from Degrade or Describe Degradation."),
                io.Mask.Input("mask", optional=True, tooltip="White where pixels are missing: one for all frames, or one per frame."),
                io.Model.Input("model", optional=True, tooltip="Stable Diffusion 1.5, 2.x or SDXL, with vae. Flow-matching models do not fit."),
                io.Vae.Input("vae", optional=True, tooltip="The VAE of that checkpoint."),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="A prompt for the model, from CLIP Text Encode. Not wired, the model gets zeros; for the usual empty prompt, wire a CLIP "
                    "Text Encode without text.",
                ),
                PriorSocket.Input("prior", optional=True, tooltip="A pixel-space prior from Load Diffusion Prior, instead of model and vae."),
                OpticalFlow.Input(
                    "optical_flow", optional=True, tooltip="RAFT from ComfyUI's Load Optical Flow Model; without it OpenCV's DIS finds the motion."
                ),
            ],
            outputs=[
                io.Image.Output("frames", tooltip="The restored frames."),
                io.Image.Output("plot", tooltip="The terms of the loss over the iterations."),
                io.String.Output("report", tooltip="Settings, every term, and how well each frame is explained, as JSON."),
            ],
        )

    @classmethod
    def validate_inputs(cls, frames=None, degradation=ABSENT, mask=ABSENT, model=ABSENT, vae=ABSENT, prior=ABSENT):
        """Checks the wiring before any run."""
        return NO_DAMAGE if degradation is mask is ABSENT else verdict(check_sources, *wired(model, vae, prior))

    @classmethod
    def execute(cls, frames, seed=0, degradation=None, mask=None, model=None, vae=None, positive=None, prior=None, optical_flow=None, **widgets):
        y = from_image(frames)
        operator = whole_operator(degradation, mask, y)
        options = options_of(widgets).resolved(operator)
        size = (y.shape[-2] * operator.factor, y.shape[-1] * operator.factor)
        check_sources(model, vae, prior)
        shown = None if prior is None or not (options.guided and prior.conditional) else guides(y, operator, size, prior.upsampling)
        with generator_of(model, vae, positive, prior, optical_flow, size, options, shown) as (generator, flow):
            cost = estimate(generator, len(y), options, flow, host.check_interrupt)
            host.say(f"{counted(len(y), 'frame')} of {size[1]} x {size[0]}, {options.iterations} iterations: {cost}.")
            with host.progress(options.iterations, "seed-space MAP") as tick:
                result = seed_map(
                    y,
                    operator,
                    generator,
                    options,
                    flow=flow,
                    seed=seed,
                    check_interrupt=host.check_interrupt,
                    on_iteration=lambda e, terms, frame: tick(1, preview=frame),
                )
        text, drawn = summary(result), to_image(plot(result)[None])
        host.say(text)
        report = to_json(result, options, operator, seed, size=size, expected=str(cost))
        panel = {**ui.PreviewImage(drawn, cls=cls).as_dict(), "text": (text,), "report": (json.loads(report),)}
        return io.NodeOutput(to_image(result.frames), drawn, report, ui=panel)


def options_of(values: dict[str, Any]) -> SeedMapOptions:
    """Options from the widgets. Raises ValueError, naming the widget, if a value is out of range."""
    given = from_widgets(SeedMapOptions, values)
    check(SeedMapOptions, given, none="-1")
    return SeedMapOptions(**given)


def whole_operator(degradation: Degradation | None, mask: Tensor | None, y: Tensor) -> Degradation:
    """The wired degradation, followed by the mask.

    Raises:
        ValueError: if neither is wired, or the mask's frame count differs.
    """
    if mask is None:
        if degradation is None:
            raise ValueError(NO_DAMAGE)
        return degradation
    hidden = from_mask(mask)
    if len(hidden) not in (1, len(y)):
        raise ValueError(f"the mask has {len(hidden)} frames and the clip {len(y)}; give one mask for all frames or one for each")
    known = fitted_mask(hidden, (y.shape[-2], y.shape[-1])) < 0.5
    return Inpaint(known[0, 0] if len(known) == 1 else known) @ (degradation or Identity())


def check_sources(model: Any, vae: Any, prior: Any) -> None:
    """Raises ValueError unless there is either a model with its VAE or a prior."""
    wired = [name for name, value in (("model", model), ("vae", vae), ("prior", prior)) if value is not None]
    if wired not in (["model", "vae"], ["prior"]):
        raise ValueError(
            f"Seed-Space MAP Optimize takes a model with its vae, or a prior, and got {' and '.join(wired) or 'none of them'}; "
            "wire Load Checkpoint's MODEL and VAE, or Load Diffusion Prior"
        )


@contextmanager
def generator_of(
    model: Any,
    vae: Any,
    positive: Any,
    prior: Prior | None,
    optical_flow: Any,
    size: tuple[int, int],
    options: SeedMapOptions,
    shown: Tensor | None = None,
) -> Iterator[tuple[SeedGenerator, FlowSource]]:
    """D o R for the wired inputs, and the motion source; valid inside the block. A pixel prior is conditioned on `shown`, if any."""

    def times(length: int) -> list[int]:
        return leading_times(length, options.steps)

    with ExitStack() as stack:
        if optical_flow is not None:
            stack.enter_context(interruptible_layers(optical_flow.model, check_interrupt=host.check_interrupt))
        if prior is not None:
            flow: FlowSource = DisFlow() if optical_flow is None else RaftFlow(optical_flow.model, host.managed(optical_flow))
            pixels = PixelGenerator(
                prior, size, steps=options.steps, guides=shown, start=options.start, device=host.device(), check_interrupt=host.check_interrupt
            )
            network = getattr(prior, "network", None)
            networks = [network] if isinstance(network, nn.Module) else modules_of(prior)
            stack.enter_context(interruptible_layers(*networks, check_interrupt=host.check_interrupt))
            with torch.no_grad():  # loads its network to the device, which must not happen while its weights are swapped
                prior.predict_x0(torch.zeros(pixels.seed_shape, device=host.device()), 0)
            stack.enter_context(plain_tensors(*networks))
            yield pixels, flow
            return
        loaded = stack.enter_context(
            latent_model(model, vae, positive, size=size, times=times, flow=optical_flow, check_interrupt=host.check_interrupt)
        )
        generator = LatentGenerator(
            loaded.estimate,
            loaded.alpha_bars,
            loaded.decode,
            loaded.weight,
            loaded.bias,
            seed_shape=loaded.seed_shape,
            feature_shape=loaded.feature_shape,
            size=size,
            check_interrupt=host.check_interrupt,
        )
        yield generator, DisFlow() if loaded.flow is None else RaftFlow(loaded.flow)
