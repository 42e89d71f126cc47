"""The seam to the host: what ComfyUI offers, and the same without it.

The only room of the package that imports `comfy*` or `folder_paths`, and only inside functions: importing it costs nothing, not even PyTorch.
"Inside ComfyUI" means that `comfy_api` can be imported.
"""

from __future__ import annotations

from .comfyui import comfy as comfy
from .comfyui import comfy_api as comfy_api
from .comfyui import inside_comfyui as inside_comfyui
from .devices import device as device
from .devices import free_memory as free_memory
from .devices import intermediate_device as intermediate_device
from .devices import intermediate_dtype as intermediate_dtype
from .devices import managed as managed
from .devices import offload_device as offload_device
from .devices import set_device as set_device
from .folders import check_output as check_output
from .folders import file_fingerprint as file_fingerprint
from .folders import input_directory as input_directory
from .folders import input_files as input_files
from .folders import list_models as list_models
from .folders import model_folders as model_folders
from .folders import model_path as model_path
from .folders import next_output_path as next_output_path
from .folders import output_directory as output_directory
from .folders import output_folder as output_folder
from .folders import resolve_input as resolve_input
from .folders import temp_directory as temp_directory
from .folders import user_error as user_error
from .folders import user_message as user_message
from .graph import Nothing as Nothing
from .graph import graph_tags as graph_tags
from .graph import is_nothing as is_nothing
from .graph import nothing as nothing
from .graph import video_components as video_components
from .graph import video_from_file as video_from_file
from .graph import video_source as video_source
from .local_paths import OWN_MODELS as OWN_MODELS
from .local_paths import workspace as workspace
from .progress_bar import Interrupted as Interrupted
from .progress_bar import Tick as Tick
from .progress_bar import check_interrupt as check_interrupt
from .progress_bar import clear_interrupt as clear_interrupt
from .progress_bar import interrupt as interrupt
from .progress_bar import interrupts_between_layers as interrupts_between_layers
from .progress_bar import on_page as on_page
from .progress_bar import progress as progress
from .progress_bar import say as say
from .progress_bar import show_work as show_work
