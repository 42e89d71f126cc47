"""A tiny Wan 2.1 of ComfyUI's own classes with random weights, also as a node pack: FVRTestTinyWan gives MODEL and VAE."""

from __future__ import annotations

import torch

from .tiny_sd import _seeded

TEXT = 32


def tiny_wan(seed: int = 0):
    """MODEL: text to video, two layers of width 48."""
    import comfy.model_base
    import comfy.model_management as management
    import comfy.model_patcher
    from comfy.supported_models import WAN21_T2V

    config = WAN21_T2V(
        {
            "image_model": "wan2.1",
            "model_type": "t2v",
            "dim": 48,
            "ffn_dim": 64,
            "num_heads": 2,
            "num_layers": 2,
            "freq_dim": 16,
            "text_dim": TEXT,
            "in_dim": 16,
            "out_dim": 16,
            "dtype": torch.float32,
        }
    )
    model = comfy.model_base.WAN21(config, device=torch.device("cpu"))
    _seeded(model.diffusion_model, seed)
    patches = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return patches(model, load_device=management.get_torch_device(), offload_device=management.unet_offload_device())


def tiny_wan_vae(seed: int = 1):
    """VAE: Wan 2.1's, eight channels wide."""
    import comfy.sd
    from comfy.ldm.wan.vae import WanVAE

    made = WanVAE(dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, temperal_downsample=[False, True, True])
    _seeded(made, seed)
    return comfy.sd.VAE(sd=made.state_dict())


class TinyWan:
    """The node."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "load", ("MODEL", "VAE")

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def load(self):
        return tiny_wan(), tiny_wan_vae()


NODE_CLASS_MAPPINGS = {"FVRTestTinyWan": TinyWan}
