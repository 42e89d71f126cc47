"""A tiny Stable Diffusion 1.5 inside ComfyUI: its UNet, VAE and conditioning at random, made as loader nodes make them.

Also a ComfyUI node pack of its own, for tests through the server: FVRTestTinySD gives MODEL, VAE and CONDITIONING.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch

CONTEXT = 64


def without_sound() -> None:
    """Lets ComfyUI be imported where torchaudio is missing or was built for another CUDA than torch: it serves sounds only."""
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        for name in ("torchaudio", "torchaudio.functional", "torchaudio.transforms"):
            empty = ModuleType(name)
            empty.__spec__, empty.__path__ = ModuleSpec(name, None), []
            sys.modules[name] = empty


def tiny_model(prediction: str = "eps", dtype: torch.dtype = torch.float32, seed: int = 0):
    """MODEL: a ModelPatcher around the UNet. `prediction` is eps, v or flow."""
    import comfy.model_base
    import comfy.model_management as management
    import comfy.model_patcher
    from comfy.supported_models import SD15, SDXL

    unet = {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 32,
        "num_res_blocks": [1, 1],
        "channel_mult": [1, 2],
        "transformer_depth": [1, 1],
        "transformer_depth_middle": 1,
        "transformer_depth_output": [1, 1, 1, 1],
        "use_spatial_transformer": True,
        "context_dim": CONTEXT,
        "num_heads": 4,
        "num_head_channels": -1,
        "use_linear_in_transformer": False,
        "legacy": False,
        "adm_in_channels": None,
        "use_temporal_attention": False,
        "dtype": dtype,
    }
    kinds = {"eps": "EPS", "v": "V_PREDICTION", "flow": "FLOW"}
    if prediction == "sdxl":
        config = SDXL({**unet, "num_classes": "sequential", "adm_in_channels": 2816})
    else:
        config = SD15(unet)
    config.unet_config.update(num_heads=4, num_head_channels=-1)
    kind = getattr(comfy.model_base.ModelType, kinds.get(prediction, "EPS"))
    base = comfy.model_base.SDXL if prediction == "sdxl" else comfy.model_base.BaseModel
    model = base(config, kind, device=torch.device("cpu"))
    _seeded(model.diffusion_model, seed)
    patches = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return patches(model, load_device=management.get_torch_device(), offload_device=management.unet_offload_device())


def tiny_vae(seed: int = 1, channels: int = 4):
    """VAE: a small AutoencoderKL."""
    import comfy.sd
    from comfy.ldm.models.autoencoder import AutoencoderKL

    ddconfig = {
        "double_z": True,
        "z_channels": channels,
        "resolution": 64,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 1, 2, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    made = AutoencoderKL(ddconfig=ddconfig, embed_dim=channels)
    _seeded(made, seed)
    return comfy.sd.VAE(sd=made.state_dict(), config={"params": {"ddconfig": ddconfig, "embed_dim": channels}})


def tiny_conditioning(seed: int = 2):
    """CONDITIONING of one entry."""
    return [[torch.randn(1, 77, CONTEXT, generator=torch.Generator().manual_seed(seed)), {"pooled_output": torch.zeros(1, 1280)}]]


def _seeded(module: torch.nn.Module, seed: int) -> None:
    """Weights that keep signals of size 1 about that size."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        values = drawn / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 1 + 0.05 * drawn
        parameter.data.copy_(values)
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            parameter.data.zero_()


class TinySD:
    """The node."""

    CATEGORY, FUNCTION = "test", "load"
    RETURN_TYPES = ("MODEL", "VAE", "CONDITIONING")

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"prediction": (["eps", "v", "flow", "sdxl"],)}}

    def load(self, prediction):
        return tiny_model(prediction), tiny_vae(), tiny_conditioning()


NODE_CLASS_MAPPINGS = {"FVRTestTinySD": TinySD}
