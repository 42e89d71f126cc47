"""A tiny SeedVR2 inside ComfyUI, its transformer and VAE at random: ComfyUI's own classes with fewer layers and channels.

A ComfyUI node pack of its own, for tests through the server: FVRTestTinySeedVR2 gives MODEL and VAE.
"""

from __future__ import annotations

from unittest.mock import patch

import torch

LAYERS = {"vid_dim": 128, "heads": 1, "num_layers": 2, "mm_layers": 1, "norm_eps": 1e-5, "mlp_type": "swiglu", "vid_out_norm": True}
CHANNELS = (32, 32, 32, 32)


def seeded(module: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / max(1, tensor[0].numel() if tensor.ndim else 1) ** 0.5)


def tiny_model():
    """MODEL: a patcher around the transformer."""
    import comfy.model_base
    import comfy.model_management as management
    import comfy.model_patcher
    from comfy.supported_models import SeedVR2

    config = SeedVR2({"image_model": "seedvr2", **LAYERS})
    config.unet_config["dtype"] = torch.float32
    model = comfy.model_base.SeedVR2(config, device=torch.device("cpu"))
    seeded(model.diffusion_model, 0)
    return comfy.model_patcher.CoreModelPatcher(model, load_device=management.get_torch_device(), offload_device=management.unet_offload_device())


def tiny_vae():
    """VAE: the causal video autoencoder, narrow."""
    import comfy.ldm.seedvr.vae as vae
    import comfy.sd

    with patch.object(vae, "BYTEDANCE_BLOCK_OUT_CHANNELS", CHANNELS):
        made = vae.VideoAutoencoderKLWrapper()
        seeded(made, 1)
        return comfy.sd.VAE(sd=made.state_dict())


class TinySeedVR2:
    """The node."""

    CATEGORY, FUNCTION = "test", "load"
    RETURN_TYPES = ("MODEL", "VAE")

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def load(self):
        return tiny_model(), tiny_vae()


NODE_CLASS_MAPPINGS = {"FVRTestTinySeedVR2": TinySeedVR2}
