"""Seed-space MAP: a clip restored through a Stable Diffusion checkpoint or a pixel-space prior."""

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
from ..methods.seed_map import (
    OPTIONAL,
    LatentGenerator,
    PixelGenerator,
    SeedGenerator,
    SeedMapOptions,
    check_optional,
    estimate,
    guides,
    leading_times,
    plot,
    seed_map,
    summary,
    to_json,
)
from ..motion.dis import DisFlow
from ..motion.flow import FlowSource
from ..motion.raft import RaftFlow
from ..physics import Degradation, Identity, Inpaint
from ..priors.base import Prior
from .sockets import CATEGORY, DegradationSocket, PriorSocket, seed_input, tucked

UNSET = -1.0
"""What a widget shows for None."""


def preset_inputs() -> list:
    """The method's parameters as widgets that start at its defaults."""
    start = SeedMapOptions()

    def number(kind: Any, name: str, low: float, high: float, tooltip: str, **more: Any) -> Any:
        default = getattr(start, name)
        return kind.Input(name, default=UNSET if default is None else default, min=low, max=high, tooltip=tooltip, **more)

    fine = {"step": 0.0001, "advanced": True}
    return [
        number(io.Int, "iterations", 1, 100_000, "Steps of the optimisation; time grows in proportion."),
        number(io.Int, "steps", 2, 10, "Diffusion steps from the seed to the picture; the paper takes 4."),
        number(
            io.Int,
            "rank",
            0,
            512,
            "Freedom of each frame beyond the shared seed; 32 takes 67 MB a frame with Stable Diffusion at 512, 16 half of that. 0 chooses: 32, or "
            "all there is for a prior on pixels.",
        ),
        number(io.Float, "radius", 0.001, 1000, "How far a frame may leave the shared picture; the paper takes 1.", step=0.001),
        number(io.Float, "warp_weight", 0, 1000, "How strongly neighbouring frames must agree along their motion; 0 leaves it out.", step=0.01),
        number(io.Float, "warp_start", -1, 1, "When that begins, as a share of the iterations; -1 waits until the motion is steady.", step=0.01),
        number(io.Float, "residual_rate", 0, 1, "Learning rate of the frames' residuals; the paper takes 0.001.", **fine),
        number(io.Float, "seed_rate", 0, 1, "Learning rate of the shared seed.", **fine),
        number(io.Float, "rate_floor", 0, 1, "Both learning rates fall to this share by the end; 1 keeps them constant.", step=0.01, advanced=True),
        number(io.Int, "warp_every", 1, 10_000, "Iterations between two estimates of the motion.", advanced=True),
        number(io.Float, "flow_decay", 0, 0.999, "How much of the earlier motion is kept at each estimate.", step=0.01, advanced=True),
        number(
            io.Float,
            "residual_init",
            -1,
            10,
            "How fast frames leave the shared picture: more follows the input sooner and flickers more where it shows nothing. "
            "-1 chooses by the degradation: 0.1, or 3 where it mixes frames.",
            **fine,
        ),
        io.Combo.Input("loss", options=["mse", "l1"], default=start.loss, tooltip="How differences count: squared, or as they are.", advanced=True),
        io.Boolean.Input(
            "noise_prior",
            default=start.noise_prior,
            tooltip="One seed for all frames. Off gives each frame its own, which flickers and takes N times as long.",
            advanced=True,
        ),
        io.Boolean.Input(
            "guided",
            default=start.guided,
            tooltip="Shows the input to a prior that was trained to look at damaged faces (the embedded one, FLAIR's). Off, it draws out of nothing.",
            advanced=True,
        ),
        number(
            io.Float,
            "start",
            0.01,
            1,
            "With guided: how much noise the drawing begins with. Less stays near the input, 1 begins at noise alone.",
            step=0.01,
            advanced=True,
        ),
    ]


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
                *tucked(preset_inputs(), "rank", "radius", "warp_start"),
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
                io.Custom("OPTICAL_FLOW").Input(
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
    def execute(
        cls,
        frames,
        seed=0,
        degradation=None,
        mask=None,
        model=None,
        vae=None,
        positive=None,
        prior=None,
        optical_flow=None,
        **widgets,
    ):
        y = from_image(frames)
        operator = whole_operator(degradation, mask, y)
        options = options_of(widgets).settled(operator)
        size = (y.shape[-2] * operator.factor, y.shape[-1] * operator.factor)
        check_sources(model, vae, prior)
        shown = None if prior is None or not (options.guided and prior.conditional) else guides(y, operator, size, prior.upsampling)
        with generator_of(model, vae, positive, prior, optical_flow, size, options, shown) as (generator, flow):
            cost = estimate(generator, len(y), options, flow, host.check_interrupt)
            host.say(f"{len(y)} frames of {size[1]} x {size[0]}, {options.iterations} iterations: {cost}.")
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


def options_of(widgets: dict[str, Any]) -> SeedMapOptions:
    """What the widgets say, with None where they say `UNSET`.

    Raises:
        ValueError: for a value out of its range, in the words of the widgets.
    """
    given: dict[str, Any] = {name: None if name in OPTIONAL and value == UNSET else value for name, value in widgets.items()}
    for name in OPTIONAL:
        check_optional(name, given.get(name), unset=f"{UNSET:g}")
    return SeedMapOptions(**given)


def whole_operator(degradation: Degradation | None, mask: Tensor | None, y: Tensor) -> Degradation:
    """The wired degradation, then the pixels that the mask takes away.

    Raises:
        ValueError: if neither is wired, or the mask has another number of frames.
    """
    if mask is None:
        if degradation is None:
            raise ValueError(
                "Seed-Space MAP Optimize needs to know what damaged the frames; wire a degradation (Describe Degradation), a mask, or both"
            )
        return degradation
    hidden = from_mask(mask)
    if len(hidden) not in (1, len(y)):
        raise ValueError(f"the mask has {len(hidden)} frames and the clip {len(y)}; give one mask for all frames or one for each")
    known = fitted_mask(hidden, (y.shape[-2], y.shape[-1])) < 0.5
    return Inpaint(known[0, 0] if len(known) == 1 else known) @ (degradation or Identity())


def check_sources(model: Any, vae: Any, prior: Prior | None) -> None:
    """Raises ValueError unless there is either a model with its VAE or a prior."""
    wired = [name for name, value in (("model", model), ("vae", vae), ("prior", prior)) if value is not None]
    if wired not in (["model", "vae"], ["prior"]):
        raise ValueError(
            f"Seed-Space MAP Optimize takes a model with its vae, or a prior, and got {' and '.join(wired) or 'none of them'}; "
            "wire Load Checkpoint's MODEL and VAE, or Load Diffusion Prior"
        )


def networks_of(prior: Prior) -> list[nn.Module]:
    """What of a prior has weights."""
    network = getattr(prior, "network", None)
    return [network] if isinstance(network, nn.Module) else modules_of(prior)


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
    """D o R for what is wired, and the source of the motion; valid inside the block. A pixel prior is shown the frames `shown`, if any."""

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
            networks = networks_of(prior)
            stack.enter_context(interruptible_layers(*networks, check_interrupt=host.check_interrupt))
            with torch.no_grad():  # brings its network to where it runs, which must not happen while its weights are exchanged
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
