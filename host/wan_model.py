"""ComfyUI's MODEL and VAE of Wan 2.1 as a one-step model: latents in, velocities out, under ComfyUI's own memory management."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .. import host

LATENT_CHANNELS = 16
TOKENS, WIDTH = 512, 4096
"""Of the text that Wan sees."""
TRAIN_STEPS = 1000
DIGESTED_TENSORS = 64
"""Tensors whose first values identify a network."""


@dataclass(frozen=True, eq=False)
class WanModel:
    """See methods/wan.py.

    Attributes:
        model: a ModelPatcher of Wan 2.1 text to video, whatever its weights are stored in.
        vae: Wan 2.1's.
        conditioning: of the empty prompt; None is zeros in its place.

    Raises:
        ValueError: for any other model or VAE.
    """

    model: Any
    vae: Any
    conditioning: Any = None
    weights: str = field(init=False)

    def __post_init__(self) -> None:
        check_wan(self.model, self.vae, self.conditioning)
        object.__setattr__(self, "weights", weights_digest(self.model, self.vae))

    def encode(self, frames: Tensor) -> Tensor:
        with torch.inference_mode():
            latents = self.vae.encode(frames.movedim(1, -1))
            return self.model.model.process_latent_in(latents.float())

    def velocity(self, latents: Tensor, timestep: float) -> Tensor:
        """By one Euler step of ComfyUI's own sampler from sigma to 0, which gives x - sigma v, with all that patches do to a model."""
        sample, samplers = host.comfy("comfy.sample"), host.comfy("comfy.samplers")
        sigma = timestep / TRAIN_STEPS
        sigmas = torch.tensor([sigma, 0.0])
        text = self.conditioning or [[torch.zeros(1, TOKENS, self.model.model.model_config.unet_config.get("text_dim", WIDTH)), {}]]
        nothing = torch.zeros_like(latents)
        with torch.inference_mode():  # the sampler starts at sigma noise + (1 - sigma) latents
            out = sample.sample_custom(
                self.model, latents / sigma, 1.0, samplers.sampler_object("euler"), sigmas, text, text, nothing, disable_pbar=True
            )
            return (latents - self.model.model.process_latent_in(out.float().to(latents.device))) / sigma

    def decode(self, latents: Tensor) -> Tensor:
        with torch.inference_mode():
            images = self.vae.decode(self.model.model.process_latent_out(latents))
            return images.flatten(0, -4).movedim(-1, 1)


def check_wan(model: Any, vae: Any, conditioning: Any) -> None:
    """Raises ValueError unless both are Wan 2.1's, text to video, and the conditioning has one entry."""
    network = model.model
    config = getattr(getattr(network, "model_config", None), "unet_config", {})
    kind = f"{type(network).__name__}{' ' + config['model_type'] if 'model_type' in config else ''}"
    if config.get("image_model") != "wan2.1" or config.get("model_type") != "t2v" or network.latent_format.latent_channels != LATENT_CHANNELS:
        raise ValueError(
            f"Wan Face Restorer takes Wan 2.1 text to video with VividFace's weights, and the wired model is {kind}; load vividface with Load "
            "Diffusion Model"
        )
    if getattr(vae, "latent_dim", 2) != 3 or getattr(vae, "latent_channels", 0) != LATENT_CHANNELS or vae.downscale_ratio[1:] != (8, 8):
        raise ValueError(
            f"Wan Face Restorer takes the VAE of Wan 2.1, and the wired one is {type(vae.first_stage_model).__name__} of {vae.latent_channels} "
            "channels; load wan_2.1_vae.safetensors"
        )
    if conditioning is not None and len(conditioning) != 1:
        raise ValueError(f"Wan Face Restorer takes CONDITIONING of one entry, got {len(conditioning)}; wire one CLIP Text Encode with no text")


def weights_digest(model: Any, vae: Any) -> str:
    """A digest of the weights' names, shapes and first values, and of patches over them: changes if another file is loaded."""
    digest = hashlib.sha256()
    for module in (model.model.diffusion_model, vae.first_stage_model):
        named = list(module.named_parameters())
        digest.update(repr([(name, tuple(value.shape), str(value.dtype)) for name, value in named]).encode())
        for _, value in named[:: max(1, len(named) // DIGESTED_TENSORS)]:
            digest.update(value.detach().reshape(-1)[:256].cpu().contiguous().view(torch.uint8).numpy().tobytes())
    patches = getattr(model, "patches", {})
    digest.update(repr([(name, [patch[0] for patch in patches[name]]) for name in sorted(patches)]).encode())
    return digest.hexdigest()[:12]
