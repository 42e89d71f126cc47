"""Small networks of kinds that spandrel loads, with PyTorch's own weights."""

from __future__ import annotations

from torch import nn


def small_swinir() -> nn.Module:
    from spandrel.architectures.SwinIR import SwinIR

    sizes = dict(img_size=64, embed_dim=16, depths=(1, 2), num_heads=(2, 2), window_size=8, mlp_ratio=2.0, upscale=1, upsampler="", img_range=1.0)
    return SwinIR(**sizes, drop_path_rate=0.3)


def small_denoiser() -> nn.Module:
    from spandrel.architectures.DnCNN import DnCNN

    return DnCNN(in_nc=3, out_nc=3, nc=16, nb=10, act_mode="R", mode="DnCNN")
