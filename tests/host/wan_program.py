"""Asks host.wan_model everything, inside ComfyUI and under inference mode, as nodes run; test_wan_model.py reads the answers."""

# ruff: noqa: E402, I001, T201

import json
from helpers.tiny_sd import tiny_model, tiny_vae, without_sound

without_sound()

from fvr import host
from fvr.host.wan_model import WanModel, weights_digest
from fvr.methods.base import restore_frames
from fvr.methods.wan import WanOptions, WanRestorer, one_step

host.comfy("comfy.model_management")

import torch
from helpers.tiny_wan import TEXT, tiny_wan, tiny_wan_vae

said = {}


def near(one, other):
    return float((one - other).abs().max() / other.abs().max()) < 1e-4


with torch.inference_mode():
    model, vae = tiny_wan(), tiny_wan_vae()
    text = [[torch.randn(1, 512, TEXT, generator=torch.Generator().manual_seed(2)), {}]]
    frames = torch.rand(9, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    wan = WanModel(model, vae, text)

    # Each part by ComfyUI's classes themselves: the VAE takes [-1, 1], latents are normalised by its published mean and deviation.
    form = model.model.latent_format
    raw = vae.first_stage_model.encode(frames.movedim(0, 1)[None] * 2 - 1)
    latents = (raw - form.latents_mean) / form.latents_std
    said["latents"] = [list(latents.shape), near(wan.encode(frames), latents)]
    velocity = model.model.diffusion_model(latents, torch.tensor([400.0]), context=text[0][0])
    said["velocity"] = near(wan.velocity(latents, 400), velocity)
    restored = latents - velocity
    decoded = vae.first_stage_model.decode(restored * form.latents_std + form.latents_mean)[0].movedim(1, 0)
    expected = ((decoded + 1) / 2).clamp(0, 1)
    said["formula"] = near(one_step(wan, frames), expected)
    said["moves"] = float((one_step(wan, frames) - vae.decode(raw)[0].movedim(-1, 1)).abs().mean()) > 0.01

    # Nothing wired stands for the empty prompt: zeros.
    zeros = model.model.diffusion_model(latents, torch.tensor([400.0]), context=torch.zeros(1, 512, TEXT))
    said["no text"] = near(WanModel(model, vae).velocity(latents, 400), zeros)

    small = WanRestorer(WanModel(model, vae), WanOptions(window=5, overlap=1))
    crops = torch.rand(2, 3, 512, 512)
    said["restorer"] = list(restore_frames(small, crops).shape)
    said["weights"] = [wan.weights == weights_digest(tiny_wan(), tiny_wan_vae()), wan.weights == weights_digest(tiny_wan(5), tiny_wan_vae())]

    refused = {}
    for name, (other, coder, words) in {
        "another model": (tiny_model(), vae, None),
        "another vae": (model, tiny_vae(), None),
        "two texts": (model, vae, text * 2),
    }.items():
        try:
            WanModel(other, coder, words)
            refused[name] = "accepted"
        except ValueError as error:
            refused[name] = str(error)
    said["refused"] = refused

print(json.dumps(said))
