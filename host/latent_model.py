"""A MODEL and a VAE of ComfyUI as a differentiable function: a context manager that removes what prevents gradients.

- Weights were made under inference mode: they are replaced by ordinary tensors over the same memory (plain_tensors).
- Dynamic VRAM and partial loading would remove weights before the backward pass: the model is loaded as a whole instead.
- Fast attention kernels (sage, flash, int8) have no backward pass: PyTorch's own is used, for these calls only.
- Some networks work in place at inference: `in_training` is set meanwhile.
- The decoder's activations would take too much memory: every block is checkpointed.

Everything is restored when the block ends, also after an error or an interruption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .. import host
from .plain_tensors import plain_tensors

CheckInterrupt = Callable[[], None]
ALL_MEMORY = 1e20
"""Bytes to request so that ComfyUI unloads all other models, as its own trainer does."""
TOKENS = 77
POOLED = 1280


@dataclass(frozen=True)
class LatentModel:
    """What seed-space MAP needs of both; valid only inside the block.

    Attributes:
        estimate: (x_t, i) -> E[z_0 | x_t], float32, x_t = sqrt(alpha_bar) z_0 + sqrt(1 - alpha_bar) eps at level i.
        alpha_bars: the levels, cleanest first.
        decode: z_0 (1, c, h, w) to the input of the decoder's last convolution, float32.
        weight, bias: that convolution's, float32.
        seed_shape: (1, c, h, w).
        feature_shape: (C, H, W), at least the size asked for.
        flow: the optical-flow network, loaded, or None.
        bytes: of all weights.
    """

    estimate: Callable[[Tensor, int], Tensor]
    alpha_bars: list[float]
    decode: Callable[[Tensor], Tensor]
    weight: Tensor
    bias: Tensor | None
    seed_shape: tuple[int, int, int, int]
    feature_shape: tuple[int, int, int]
    flow: nn.Module | None
    bytes: int


@contextmanager
def latent_model(
    model: Any,
    vae: Any,
    conditioning: Any = None,
    *,
    size: tuple[int, int],
    times: Callable[[int], Sequence[int]],
    flow: Any = None,
    check_interrupt: CheckInterrupt = lambda: None,
) -> Iterator[LatentModel]:
    """`model` and `vae` as ComfyUI's loaders give them, ready for gradients; inside the block autograd is on.

    Args:
        conditioning: CONDITIONING of one entry, or None for the zero prompt.
        size: (H, W) of the frames.
        times: the steps to take, cleanest first, as indices into a noise schedule of the length it is told.
        flow: OPTICAL_FLOW, loaded alongside, so that it does not push the others out.
        check_interrupt: called in every attention layer and decoder block; may raise to stop.

    Raises:
        ValueError: if the model or VAE is unsuitable.
    """
    _check(model, vae)
    entries = _conditioning(model, conditioning)
    management = host.comfy("comfy.model_management")
    patcher, coder = _without_dynamic_vram(model), _without_dynamic_vram(vae.patcher)
    flowing = [] if flow is None else [flow]
    management.load_models_gpu([patcher, coder, *flowing], memory_required=ALL_MEMORY, force_full_load=True)
    for loaded in (patcher, coder):
        if getattr(loaded.model, "model_lowvram", False):
            raise ValueError(
                f"{type(loaded.model).__name__} does not fit into memory as a whole, which gradients need; "
                "use smaller frames, a smaller checkpoint or another device"
            )
    network, first_stage = patcher.model, coder.model
    decoder = first_stage.decoder
    wide = torch.float32 if vae.vae_dtype == torch.float16 else vae.vae_dtype  # SDXL's decoder overflows in float16
    parts = [part for part in (decoder, getattr(first_stage, "post_quant_conv", None)) if isinstance(part, nn.Module)]
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(plain_tensors(network))
        stack.enter_context(plain_tensors(*parts, dtype=None if wide == vae.vae_dtype else wide))
        stack.enter_context(_training_mode(management))
        stack.enter_context(_checkpointed_blocks(decoder, check_interrupt))
        scale = vae.downscale_ratio
        low = tuple(-(-side // scale) for side in size)
        seed_shape = (1, network.latent_format.latent_channels, low[0], low[1])
        place = patcher.load_device
        sigmas = [float(network.model_sampling.sigmas[t]) for t in times(len(network.model_sampling.sigmas))]
        given = _model_conditions(network, entries, torch.zeros(seed_shape, device=place), place)
        options = _transformer_options(patcher, check_interrupt)
        tail = decoder.conv_out

        def estimate(x_t: Tensor, i: int) -> Tensor:
            sigma = torch.full((1,), sigmas[i], device=place)
            x = x_t.to(place) * (1 + sigmas[i] ** 2) ** 0.5
            return network.apply_model(x, sigma, transformer_options=options, **given).float().to(x_t.device)

        def decode(z0: Tensor) -> Tensor:
            caught: list[Tensor] = []
            hook = tail.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
            try:
                first_stage.decode(network.process_latent_out(z0).to(coder.load_device, wide))
            finally:
                hook.remove()
            return caught[0].float()

        yield LatentModel(
            estimate,
            [1 / (1 + sigma**2) for sigma in sigmas],
            decode,
            tail.weight.detach().float().clone(),
            None if tail.bias is None else tail.bias.detach().float().clone(),
            seed_shape,
            (tail.in_channels, low[0] * scale, low[1] * scale),
            None if flow is None else flow.model,
            sum(tensor.nbytes for module in (network, first_stage) for tensor in module.state_dict().values()),
        )


def _check(model: Any, vae: Any) -> None:
    """Raises ValueError without a noise schedule or 2-D decoder, or if the latent spaces differ."""
    sampling = host.comfy("comfy.model_sampling")
    kind = model.get_model_object("model_sampling")
    name = type(getattr(model.model, "model_config", model.model)).__name__
    if not (isinstance(kind, sampling.EPS) and not isinstance(kind, sampling.X0) and hasattr(kind, "sigmas")):
        flow = tuple(getattr(sampling, form) for form in ("CONST", "COSMOS_RFLOW") if hasattr(sampling, form))
        what = "is a flow-matching model" if isinstance(kind, flow) else "predicts neither"
        raise ValueError(
            f"seed-space MAP needs a model that predicts noise or v (Stable Diffusion 1.5, 2.x or SDXL), but this one ({name}) {what}; "
            "choose another checkpoint"
        )
    decoder: Any = getattr(vae.first_stage_model, "decoder", None)
    tail = getattr(decoder, "conv_out", None)
    if not isinstance(tail, nn.Conv2d) or tail.out_channels != 3 or not isinstance(vae.downscale_ratio, int) or getattr(decoder, "tanh_out", False):
        raise ValueError(
            f"seed-space MAP puts residuals before the last convolution of an image decoder, which {type(vae.first_stage_model).__name__} does not "
            "have; wire the VAE of a Stable Diffusion 1.5, 2.x or SDXL checkpoint"
        )
    channels = model.model.latent_format.latent_channels
    theirs = getattr(vae.first_stage_model, "post_quant_conv", decoder.conv_in).in_channels
    if theirs != channels:
        raise ValueError(f"this model works on {channels} latent channels and this VAE on {theirs}; wire the VAE that belongs to the model")


def _without_dynamic_vram(patcher: Any) -> Any:
    """The patcher itself, or one without dynamic VRAM for its model."""
    if not getattr(patcher, "is_dynamic", lambda: False)():
        return patcher
    try:
        return patcher.clone(disable_dynamic=True)
    except RuntimeError as error:
        raise ValueError(
            f"{type(patcher.model).__name__} is under ComfyUI's dynamic VRAM and its loader cannot load it again without; "
            "start ComfyUI with --disable-dynamic-vram, or use a core loader node"
        ) from error


def _conditioning(model: Any, conditioning: Any) -> list:
    """One CONDITIONING entry: the given one, or zeros of the network's width."""
    if conditioning is None:
        width = model.model.model_config.unet_config.get("context_dim") or 768
        return [[torch.zeros(1, TOKENS, width), {"pooled_output": torch.zeros(1, POOLED)}]]
    if len(conditioning) != 1:
        raise ValueError(f"seed-space MAP takes CONDITIONING of one entry, got {len(conditioning)}; wire one CLIP Text Encode without combining")
    extras = [name for name in ("control", "gligen", "hooks", "area", "mask") if name in conditioning[0][1]]
    if extras:
        raise ValueError(f"seed-space MAP takes plain CONDITIONING, got one with {', '.join(extras)}; wire CLIP Text Encode directly")
    return conditioning


def _model_conditions(network: Any, entries: list, noise: Tensor, device: torch.device) -> dict[str, Any]:
    """What apply_model takes besides x and sigma (c_crossattn; y of SDXL; concatenated latents of inpainting models), as ordinary tensors."""
    converted = host.comfy("comfy.sampler_helpers").convert_cond([[_cloned(entry[0]), _cloned(entry[1])] for entry in entries])
    samplers = host.comfy("comfy.samplers")
    with torch.no_grad():
        processed = samplers.process_conds(network, noise, {"positive": converted}, device, latent_image=torch.zeros_like(noise), seed=0)
    found = processed["positive"][0]["model_conds"]
    return {name: _cloned(value.process_cond(batch_size=1, area=None).cond) for name, value in found.items()}


def _cloned(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {name: _cloned(part) for name, part in value.items()}
    return [_cloned(part) for part in value] if isinstance(value, list) else value


def _transformer_options(patcher: Any, check_interrupt: CheckInterrupt) -> dict[str, Any]:
    """The model's own transformer options, with PyTorch's attention forced."""
    plain = host.comfy("comfy.ldm.modules.attention").attention_pytorch

    def attention(_: Any, *args: Any, **kwargs: Any) -> Tensor:
        check_interrupt()
        return plain(*args, **kwargs)

    return {**patcher.model_options.get("transformer_options", {}), "optimized_attention_override": attention}


@contextmanager
def _training_mode(management: Any) -> Iterator[None]:
    """ComfyUI's own flag against in-place shortcuts; older hosts have none."""
    if not hasattr(management, "in_training"):
        yield
        return
    before = management.in_training
    management.in_training = True
    try:
        yield
    finally:
        management.in_training = before


@contextmanager
def _checkpointed_blocks(decoder: nn.Module, check_interrupt: CheckInterrupt) -> Iterator[None]:
    """Checkpoints the decoder's residual, attention and upsampling blocks: peak memory is one block's activations."""
    blocks = [part for part in decoder.modules() if type(part).__name__ in ("ResnetBlock", "AttnBlock", "Upsample")]

    def held(block: nn.Module) -> Callable[..., Tensor]:
        forward = block.forward

        def run(*args: Any, **kwargs: Any) -> Tensor:
            check_interrupt()
            return forward(*args, **kwargs)

        def called(*args: Any, **kwargs: Any) -> Tensor:
            return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

        return called

    replaced = [block for block in blocks if "forward" not in vars(block)]
    for block in replaced:
        block.forward = held(block)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for block in replaced:
            del block.forward
