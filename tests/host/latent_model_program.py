"""Asks host.latent_model everything, inside ComfyUI and under inference mode, as nodes run; test_latent_model.py reads the answers."""

# ruff: noqa: E402, I001, T201

import json
from helpers.tiny_sd import without_sound

without_sound()

from fvr import host
from fvr.host import latent_model
from fvr.host.latent_model import LatentModel

host.comfy("comfy.model_management")

import comfy.model_management as management
import nodes
import torch
from helpers.tiny_sd import tiny_conditioning, tiny_model, tiny_vae

said = {}


def times(length):
    return [1 + i * (length // 4) for i in range(4)]


def weights(*modules):
    return {
        f"{n}.{name}": (id(t), t.is_inference(), float(t.double().sum()))
        for n, m in enumerate(modules)
        for name, t in m.state_dict(keep_vars=True).items()
    }


def sampled(model, vae, conditioning):
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    (out,) = nodes.common_ksampler(model, 7, 3, 2.0, "euler", "normal", conditioning, conditioning, latent)
    return vae.decode(out["samples"])


def gradient(m: LatentModel):
    """d |h|^2 / dz through all four steps and the decoder."""
    z = torch.randn(m.seed_shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    x = z
    for i in range(3, -1, -1):
        x0 = torch.utils.checkpoint.checkpoint(m.estimate, x, i, use_reentrant=False)
        alpha_bar, before = m.alpha_bars[i], m.alpha_bars[i - 1] if i else 1.0
        x = before**0.5 * x0 + (1 - before) ** 0.5 * (x - alpha_bar**0.5 * x0) / (1 - alpha_bar) ** 0.5
    h = m.decode(x)
    assert tuple(h.shape[1:]) == m.feature_shape
    return x.detach(), h.detach(), torch.autograd.grad(h.square().mean(), z)[0]


with torch.inference_mode():
    model, vae, conditioning = tiny_model(), tiny_vae(), tiny_conditioning()
    before_image = sampled(model, vae, conditioning)
    before = weights(model.model, vae.first_stage_model)
    said["made of inference tensors"] = all(inference for _, inference, _ in before.values())

    with latent_model.latent_model(model, vae, conditioning, size=(64, 64), times=times) as m:
        said["modes inside"] = [torch.is_inference_mode_enabled(), torch.is_grad_enabled(), getattr(management, "in_training", True)]
        inside = weights(model.model, vae.first_stage_model.decoder)
        said["none inside"] = not any(inference for _, inference, _ in inside.values())
        z0, h, g = gradient(m)
        said["gradient"] = [bool(g.isfinite().all()), float(g.abs().max()) > 0]
        said["levels"] = [round(alpha_bar, 4) for alpha_bar in m.alpha_bars]
        pixels = torch.nn.functional.conv2d(h, m.weight, m.bias, padding=1)

    said["modes after"] = [torch.is_inference_mode_enabled(), getattr(management, "in_training", False)]
    said["same tensors after"] = weights(model.model, vae.first_stage_model) == before
    theirs = vae.first_stage_model.decode(model.model.process_latent_out(z0))
    said["the tail is the decoder's"] = float((theirs - pixels).abs().max() / theirs.abs().max()) < 1e-5
    said["same image after"] = torch.equal(sampled(model, vae, conditioning), before_image)
    said["blocks after"] = [name for name, part in vae.first_stage_model.decoder.named_modules() if "forward" in vars(part)]

    # The four steps are DDIM as ComfyUI itself samples it.
    import comfy.sample
    import comfy.samplers

    sigmas = torch.FloatTensor([float(model.model.model_sampling.sigmas[t]) for t in reversed(times(1000))] + [0.0])
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    euler = comfy.samplers.sampler_object("euler")
    x = z * (1 + sigmas[0] ** 2) ** 0.5 / sigmas[0]
    negative = conditioning
    out = comfy.sample.sample_custom(model, x, 1.0, euler, sigmas, conditioning, negative, torch.zeros(1, 4, 8, 8), disable_pbar=True)
    ours = model.model.process_latent_out(z0)
    said["steps are ComfyUI's"] = float((out - ours).norm() / out.norm())

    # An attention kernel that cannot go backwards is put aside, and only meanwhile.
    def forbidden(*args, **kwargs):
        raise RuntimeError("an inference-only kernel was asked")

    fast = model.clone()
    fast.model_options["transformer_options"]["optimized_attention_override"] = forbidden
    with latent_model.latent_model(fast, vae, conditioning, size=(64, 64), times=times) as m:
        said["same gradient without the kernel"] = torch.allclose(gradient(m)[2], g, rtol=1e-4, atol=1e-9)
    said["kernel is back"] = fast.model_options["transformer_options"]["optimized_attention_override"] is forbidden

    # No conditioning, odd sizes, v-prediction, SDXL's second conditioning, half precision.
    with latent_model.latent_model(model, vae, None, size=(60, 50), times=times) as m:
        said["odd size"] = [list(m.seed_shape), list(m.feature_shape), bool(gradient(m)[2].isfinite().all())]
    for name, other in (("v", tiny_model("v")), ("sdxl", tiny_model("sdxl")), ("bf16", tiny_model("eps", torch.bfloat16))):
        with latent_model.latent_model(other, vae, None if name == "sdxl" else conditioning, size=(64, 64), times=times) as m:
            g2 = gradient(m)[2]
            said[name] = [bool(g2.isfinite().all()), float(g2.abs().max()) > 0]
        if name == "bf16":
            said["bf16 is near"] = float(torch.nn.functional.cosine_similarity(g2.flatten(), g.flatten(), 0)) > 0.9

    # Interrupted in the middle of a backward pass: everything is as before.
    management.interrupt_current_processing()
    try:
        with latent_model.latent_model(model, vae, conditioning, size=(64, 64), times=times, check_interrupt=host.check_interrupt) as m:
            gradient(m)
        said["interrupted"] = "no"
    except BaseException as stopped:
        said["interrupted"] = type(stopped).__name__
    management.interrupt_current_processing(False)
    counted = [0]

    def late():
        counted[0] += 1
        if counted[0] == 60:
            raise KeyboardInterrupt

    try:
        with latent_model.latent_model(model, vae, conditioning, size=(64, 64), times=times, check_interrupt=late) as m:
            gradient(m)
    except KeyboardInterrupt:
        said["interrupted late"] = counted[0]
    said["same after interruption"] = [
        weights(model.model, vae.first_stage_model) == before,
        torch.equal(sampled(model, vae, conditioning), before_image),
    ]

    refused = {}
    tests = {
        "flow": lambda: (tiny_model("flow"), vae, conditioning),
        "latents": lambda: (model, tiny_vae(channels=16), conditioning),
        "two entries": lambda: (model, vae, conditioning * 2),
        "control": lambda: (model, vae, [[conditioning[0][0], {"control": object()}]]),
    }
    for name, make in tests.items():
        try:
            with latent_model.latent_model(*make(), size=(64, 64), times=times):
                refused[name] = "accepted"
        except ValueError as error:
            refused[name] = str(error)
    said["refused"] = refused

print(json.dumps(said))
