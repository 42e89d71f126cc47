"""Devices, dtypes and memory management of networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import comfyui

if TYPE_CHECKING:
    import torch

_chosen_device: torch.device | None = None


def device() -> torch.device:
    """Where networks run: what `set_device` chose, else ComfyUI's choice, else cuda, mps or cpu, the first there is."""
    import torch

    if _chosen_device is not None:
        return _chosen_device
    if comfyui.inside_comfyui():
        return comfyui.model_management().get_torch_device()
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def set_device(name: str | torch.device | None) -> None:
    """Overrides the choice of `device` for this process; None removes the override. Raises ValueError for a device that is not usable here."""
    global _chosen_device
    import torch

    if name is None:
        _chosen_device = None
        return
    try:
        chosen = torch.device(name)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {str(name)!r} is not usable here ({str(error).splitlines()[0]}); try cpu, cuda, cuda:1 or mps") from error
    _chosen_device = chosen


def free_memory(needed: int) -> None:
    """Asks ComfyUI to free `needed` bytes on `device()` by unloading its own models; does nothing elsewhere."""
    if comfyui.inside_comfyui():
        comfyui.model_management().free_memory(needed, device())


def managed(network: Any) -> Callable[[int], torch.device]:
    """Puts a network under the host's memory management, and returns its placement.

    The placement is called with the bytes of working memory that the next piece of work needs. It moves the network to its device, for which ComfyUI
    may unload other models, and returns the device. Between uses ComfyUI may unload this network too. `network` may also be a model patcher from one
    of ComfyUI's own loaders.
    """
    import torch

    patcher = network if hasattr(network, "load_device") else None
    if not comfyui.inside_comfyui() or (_chosen_device is not None and patcher is None):

        def moved(working: int) -> torch.device:
            place = device()
            with torch.inference_mode(False):  # or parameters that move would be lost to training
                (patcher.model if patcher is not None else network).to(place)
            return place

        return moved

    management = comfyui.model_management()
    if patcher is None:
        import comfy.model_patcher

        patches = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)  # looked up now: the host rebinds it
        patcher = patches(network, load_device=device(), offload_device=management.unet_offload_device())

    dynamic = getattr(patcher, "is_dynamic", lambda: False)()

    def loaded(working: int) -> torch.device:
        management.load_models_gpu([patcher], memory_required=working)
        if not dynamic and _left_behind(patcher.model, patcher.load_device):
            patcher.load(patcher.load_device, full_load=True)
        return patcher.load_device

    return loaded


def _left_behind(network: torch.nn.Module, place: torch.device) -> bool:
    """Whether weights of plain PyTorch layers are not on the device `place`.

    When memory is short, and always under --novram, ComfyUI leaves weights on the offload device, from where its own layers fetch them as they run
    (`comfy_cast_weights`). Plain layers of PyTorch cannot do that, and would fail for tensors on two devices.
    """
    plain = (part for part in network.modules() if not hasattr(part, "comfy_cast_weights"))
    weights = (weight for part in plain for weight in part.parameters(recurse=False))
    return any(weight.device.type != place.type or place.index not in (None, weight.device.index) for weight in weights)


def intermediate_device() -> torch.device:
    """Where IMAGE batches between nodes live: the CPU, unless ComfyUI runs with --gpu-only."""
    import torch

    return comfyui.model_management().intermediate_device() if comfyui.inside_comfyui() else torch.device("cpu")


def intermediate_dtype() -> torch.dtype:
    """The dtype of IMAGE batches between nodes: float32, unless ComfyUI runs with --fp16-intermediates."""
    import torch

    choose = getattr(comfyui.model_management(), "intermediate_dtype", None) if comfyui.inside_comfyui() else None
    return choose() if choose is not None else torch.float32
