"""Detection of ComfyUI, and access to its modules."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from types import ModuleType


def inside_comfyui() -> bool:
    """Whether ComfyUI's node API is there."""
    return comfy_api() is not None


@cache
def comfy_api() -> ModuleType | None:
    """`comfy_api.latest`, None without ComfyUI."""
    try:
        return importlib.import_module("comfy_api.latest")
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "comfy_api":
            raise
        return None


def model_management() -> ModuleType:
    """comfy.model_management. Outside a server, its import fails on a machine without an accelerator unless `args.cpu` is set first."""
    import torch

    if "comfy.model_management" not in sys.modules and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        from comfy.cli_args import args

        args.cpu = True
    import comfy.model_management

    return comfy.model_management


def comfy(name: str) -> ModuleType:
    """One of ComfyUI's own modules by its full name, such as "comfy.samplers", for parts of the package that must not import it themselves.

    Raises:
        RuntimeError: without ComfyUI.
    """
    if not inside_comfyui():
        raise RuntimeError(f"{name} is a part of ComfyUI, and this process has none; run this inside ComfyUI")
    management = model_management()  # first: it settles the device for all others
    return management if name == "comfy.model_management" else importlib.import_module(name)
