"""The interface to the host: what ComfyUI offers, and a replacement without it.

The only part of the package that imports `comfy*` or `folder_paths`, and only inside functions: importing it does not even import PyTorch.
"Inside ComfyUI" means that `comfy_api` can be imported.
"""

from __future__ import annotations

from .comfyui import comfy, comfy_api, inside_comfyui
from .devices import device, free_memory, intermediate_device, intermediate_dtype, managed, set_device
from .folders import (
    check_output,
    file_fingerprint,
    input_directory,
    input_files,
    list_models,
    model_folders,
    model_path,
    next_output_path,
    output_directory,
    output_folder,
    resolve_input,
    temp_directory,
    user_error,
    user_message,
)
from .graph import Nothing, graph_tags, is_nothing, nothing, video_components, video_from_file, video_source
from .local_paths import OWN_MODELS, workspace
from .page_scripts import serve_scripts
from .progress_bar import Interrupted, Tick, check_interrupt, clear_interrupt, interrupt, interrupts_between_layers, on_page, progress, say, show_work
