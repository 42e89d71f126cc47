"""The seam to the host: what ComfyUI offers, and the same without it.

The only room of the package that imports `comfy*` or `folder_paths`, and only inside functions: importing it costs nothing, not even PyTorch.
"Inside ComfyUI" means that `comfy_api` can be imported.
"""

from __future__ import annotations

import importlib
import json
import logging
import mimetypes
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from . import local_paths, signals
from .local_paths import MODEL_FOLDERS, OWN_MODELS
from .local_paths import workspace as workspace
from .user_messages import both_forms, plain, without_folders
from .video_file import VideoFile

if TYPE_CHECKING:
    import torch

WEIGHTS = frozenset({".ckpt", ".pt", ".pth", ".bin", ".safetensors", ".sft"})
VIDEO_SUFFIXES = frozenset({".mts", ".m2ts", ".ts", ".vob", ".mxf", ".3gp", ".mkv", ".mov", ".mp4", ".webm", ".avi", ".mpg", ".wmv", ".flv"})
"""Endings of clips whatever the system's table of MIME types says of them."""

_chosen_device: torch.device | None = None


class Interrupted(KeyboardInterrupt):
    """Raised by `check_interrupt` outside ComfyUI after `interrupt()`; like Ctrl-C, no `except Exception` swallows it."""


class Tick(Protocol):
    """`n` more units are done; `preview` is a frame (3, H, W) in [0, 1] to show, or None. Raises when the user asked to stop."""

    def __call__(self, n: int = 1, preview: torch.Tensor | None = None) -> None: ...


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


def _model_management() -> ModuleType:
    """comfy.model_management. Imported outside a server on a machine without an accelerator it must be told so first, or it fails."""
    import torch

    if "comfy.model_management" not in sys.modules and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        from comfy.cli_args import args

        args.cpu = True
    import comfy.model_management

    return comfy.model_management


def comfy(name: str) -> ModuleType:
    """One of ComfyUI's own modules by its full name, such as "comfy.samplers", for rooms that must not import it themselves.

    Raises:
        RuntimeError: without ComfyUI.
    """
    if not inside_comfyui():
        raise RuntimeError(f"{name} is a part of ComfyUI, and this process has none; run this inside ComfyUI")
    management = _model_management()  # first: it settles the device for all others
    return management if name == "comfy.model_management" else importlib.import_module(name)


# ---------------------------------------------------------------- devices


def device() -> torch.device:
    """Where networks run: what `set_device` chose, else ComfyUI's choice, else cuda, mps or cpu, the first there is."""
    import torch

    if _chosen_device is not None:
        return _chosen_device
    if inside_comfyui():
        return _model_management().get_torch_device()
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def set_device(name: str | torch.device | None) -> None:
    """Overrides the choice of `device` for this process; None gives the choice back.

    Raises:
        ValueError: if there is no such device here.
    """
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


def offload_device() -> torch.device:
    """Where networks wait between uses: ComfyUI's offload device, else where they run."""
    return _model_management().unet_offload_device() if inside_comfyui() and _chosen_device is None else device()


def free_memory(needed: int) -> None:
    """Asks ComfyUI to make room for `needed` bytes on `device()` by unloading its own models; nothing to do elsewhere."""
    if inside_comfyui():
        _model_management().free_memory(needed, device())


def managed(network: Any) -> Callable[[int], torch.device]:
    """Puts a network under the host's memory management.

    What comes back is called with the bytes of working memory that a piece of work needs; it brings the network to where it runs, letting
    ComfyUI move others out, and returns that device. Between uses ComfyUI may move it out again. `network` may also be a model patcher
    from one of ComfyUI's own loaders.
    """
    import torch

    patcher = network if hasattr(network, "load_device") else None
    if not inside_comfyui() or (_chosen_device is not None and patcher is None):

        def moved(working: int) -> torch.device:
            place = device()
            with torch.inference_mode(False):  # or parameters that move would be lost to training
                (patcher.model if patcher is not None else network).to(place)
            return place

        return moved

    management = _model_management()
    if patcher is None:
        import comfy.model_patcher

        patches = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)  # looked up now: the host rebinds it
        patcher = patches(network, load_device=device(), offload_device=management.unet_offload_device())

    def loaded(working: int) -> torch.device:
        management.load_models_gpu([patcher], memory_required=working)
        return patcher.load_device

    return loaded


def intermediate_device() -> torch.device:
    """Where IMAGE batches between nodes live: the CPU, unless ComfyUI runs with --gpu-only."""
    import torch

    return _model_management().intermediate_device() if inside_comfyui() else torch.device("cpu")


def intermediate_dtype() -> torch.dtype:
    """The dtype of IMAGE batches between nodes: float32, unless ComfyUI runs with --fp16-intermediates."""
    import torch

    choose = getattr(_model_management(), "intermediate_dtype", None) if inside_comfyui() else None
    return choose() if choose is not None else torch.float32


# ---------------------------------------------------------------- progress and interruption


def check_interrupt() -> None:
    """Raises the host's interrupt exception when the user asked to stop; call it between units of work."""
    if signals.requested.is_set():
        raise Interrupted("stopped on request")
    if inside_comfyui():
        _model_management().throw_exception_if_processing_interrupted()


def interrupt() -> None:
    """Asks the work in progress to stop at its next check_interrupt; for signal handlers and other threads."""
    signals.requested.set()


def clear_interrupt() -> None:
    """Forgets a request to stop, before new work."""
    signals.requested.clear()


BETWEEN_LAYERS = 0.1
"""Seconds between checks for an interrupt while networks run."""


@contextmanager
def interrupts_between_layers() -> Iterator[None]:
    """Inside, the layers of whatever network this thread runs call `check_interrupt`: one pass of a large one takes many seconds on a CPU.

    A hook on all modules, since networks are also those of other packages, and nested in restorers in ways that the host does not know.
    """
    import torch
    from torch.nn.modules.module import register_module_forward_hook

    thread, last = threading.get_ident(), [0.0]

    def beat(*layer: Any) -> None:
        if torch.compiler.is_compiling() or threading.get_ident() != thread or time.monotonic() - last[0] < BETWEEN_LAYERS:
            return
        last[0] = time.monotonic()
        check_interrupt()

    hook = register_module_forward_hook(beat)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def progress(total: int | None, desc: str = "") -> Iterator[Tick]:
    """A progress bar over `total` units (0 or None: unknown), which is also what makes a loop interruptible, between the layers of networks too.

    In ComfyUI the bar of the node that runs, with `preview` shown on it; elsewhere tqdm on stderr, silent when that is not a terminal.
    """
    check_interrupt()
    with interrupts_between_layers(), _bar(total, desc) as tick:
        yield tick


@contextmanager
def _bar(total: int | None, desc: str) -> Iterator[Tick]:
    if inside_comfyui():
        _model_management()
        from comfy.utils import ProgressBar

        bar = ProgressBar(max(total or 0, 1))
        shown = [0.0]

        def tick(n: int = 1, preview: torch.Tensor | None = None) -> None:
            picture = None
            if preview is not None and time.monotonic() - shown[0] > 0.25:
                shown[0] = time.monotonic()
                picture = ("JPEG", _picture(preview), 512)
            bar.update_absolute(bar.current + n, preview=picture)
            check_interrupt()

        yield tick
        return

    from tqdm import tqdm

    with tqdm(total=total or None, desc=desc or None, file=sys.stderr, disable=None) as line:

        def tick(n: int = 1, preview: torch.Tensor | None = None) -> None:
            line.update(n)
            check_interrupt()

        yield tick


def say(text: str) -> None:
    """Shows a line while a node runs: on the node inside ComfyUI's server, on stderr elsewhere."""
    if inside_comfyui() and "server" in sys.modules:
        text = user_message(text)
        context, server = comfy("comfy_execution.utils").get_executing_context(), getattr(sys.modules["server"].PromptServer, "instance", None)
        if context is not None and server is not None:
            server.send_progress_text(text, context.node_id)
    logging.getLogger("fvr").info(text)
    if not inside_comfyui():
        print(text, file=sys.stderr)  # noqa: T201


def user_message(text: str) -> str:
    """A sentence as people at ComfyUI's page should read it, without the server's folders; as it is elsewhere."""
    return without_folders(text, _named_folders()) if inside_comfyui() else text


def user_error(error: Exception) -> Exception:
    """An error as people at ComfyUI's page should read it (`user_messages.plain`); as it is elsewhere."""
    return plain(error, _named_folders()) if inside_comfyui() else error


def _named_folders() -> dict[Path, str]:
    """ComfyUI's folders by the names that its users know."""
    import folder_paths

    named: dict[Path, str] = {Path.home(): "~"}
    named |= dict.fromkeys(both_forms(folder_paths.base_path), "ComfyUI")
    named |= dict.fromkeys(both_forms(folder_paths.models_dir), "models")
    for name, places in model_folders().items():
        named |= {path: f"models/{name}" for place in places if place != local_paths.models_root() for path in both_forms(place)}
    for kind in ("input", "output", "temp"):
        named |= dict.fromkeys(both_forms(_directory(kind)), kind)
    return named


def _picture(frame: torch.Tensor) -> Any:
    import torch
    from PIL import Image

    pixels = frame.detach().float().cpu().clamp(0, 1).mul(255).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


# ---------------------------------------------------------------- outputs that have nothing to give


class Nothing:
    """What `nothing` gives where there is no ComfyUI; `fvr run` treats it as ComfyUI does its own."""


def nothing() -> Any:
    """For an output that has nothing to give, such as the crops of no faces: nodes that take it do not run, all others do.

    An IMAGE without frames would fail in whatever shows or saves it.
    """
    if not inside_comfyui():
        return Nothing()
    blocker = getattr(importlib.import_module("comfy_execution.graph_utils"), "ExecutionBlocker", None)  # the other module imports much more
    return (blocker or importlib.import_module("comfy_execution.graph").ExecutionBlocker)(None)


def is_nothing(value: Any) -> bool:
    """Whether a value came from `nothing`, or is any other ExecutionBlocker of ComfyUI."""
    return type(value).__name__ in (Nothing.__name__, "ExecutionBlocker")


# ---------------------------------------------------------------- folders


def model_folders() -> dict[str, list[Path]]:
    """Every folder that is searched for weights, by name; the first of "face_video_restoration" is where ours belong.

    In ComfyUI our own name is registered on first use, merged with what extra_model_paths.yaml says, and its folder made, so that
    people see it. Names that no pack registered are looked for below ComfyUI's models folder. Last come the folders that are searched
    without ComfyUI, where `fvr models fetch` puts its files.
    """
    if not inside_comfyui():
        return local_paths.model_folders()
    import folder_paths

    names = folder_paths.folder_names_and_paths
    models = Path(folder_paths.models_dir)
    paths, extensions = names.get(OWN_MODELS, ([], set()))
    if str(models / OWN_MODELS) not in paths or not extensions:
        with suppress(OSError):  # a read-only models folder only means that ours is not seen
            (models / OWN_MODELS).mkdir(parents=True, exist_ok=True)
        names[OWN_MODELS] = (list(dict.fromkeys([*paths, str(models / OWN_MODELS)])), set(folder_paths.supported_pt_extensions))
    theirs = {name: [Path(p) for p in names[name][0]] if name in names else [models / name] for name in MODEL_FOLDERS}
    return {name: list(dict.fromkeys([*theirs[name], *places])) for name, places in local_paths.model_folders().items()}


def list_models(folder: str = OWN_MODELS) -> list[str]:
    """The weight files in a model folder, sorted, as names relative to it with forward slashes; what a combo offers."""
    found: set[str] = set()
    for root in _folders(folder):
        found.update(local_paths.files_below(root, WEIGHTS, deep=root != local_paths.models_root()))
    return sorted(found)


def model_path(name: str, folder: str = OWN_MODELS) -> Path:
    """The file behind a name from `list_models`. The name must not leave its folder; links in it may, as people link weights from other disks.

    Raises:
        FileNotFoundError: if no folder of that name holds it.
    """
    roots = _folders(folder)
    for root in roots:
        path = Path(os.path.abspath(root / name))  # noqa: PTH100 (resolve would follow links)
        if path.is_relative_to(os.path.abspath(root)) and os.path.isfile(path):  # noqa: PTH100, PTH113 (Path.is_file raises for some names)
            return path
    raise FileNotFoundError(f"model {name!r} is not in {' or '.join(map(str, roots))}; put it there or choose another")


def _folders(folder: str) -> list[Path]:
    folders = model_folders()
    if folder not in folders:
        raise ValueError(f"model folder {folder!r} is unknown; choose one of {', '.join(folders)}")
    return folders[folder]


def input_directory() -> Path:
    """Where `resolve_input` looks first."""
    return _directory("input")


def output_directory() -> Path:
    """Below which results are written."""
    return _directory("output")


def temp_directory() -> Path:
    """For previews; made when missing."""
    directory = _directory("temp")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _directory(kind: str) -> Path:
    chosen = local_paths.current(kind)
    if chosen is None and inside_comfyui():
        import folder_paths

        return Path(folder_paths.get_directory_by_type(kind))
    return chosen if chosen is not None else local_paths.default(kind)


def input_files(kind: str = "video") -> list[str]:
    """Names of the files of a kind ("video", "image", "audio") directly in the input directory, sorted; what a combo offers."""
    directory = input_directory()
    try:
        names = os.listdir(directory)  # noqa: PTH208
    except OSError:
        return []
    return sorted(name for name in names if _kind_of(name) == kind and os.path.isfile(directory / name))  # noqa: PTH113


def _kind_of(name: str) -> str:
    """What is in a file by its ending: "video", "image", "audio" or something else."""
    if os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES:  # noqa: PTH122
        return "video"
    return (mimetypes.guess_type(name)[0] or "").partition("/")[0]


def resolve_input(name: str) -> Path:
    """The file or folder behind a name: "clip.mp4", "sub/clip.mp4", or with a place behind it as in "clip.mp4 [output]".

    Outside ComfyUI an absolute path, or one relative to the current directory, is taken as well. Inside, nothing outside the three
    directories is ever opened.

    Raises:
        ValueError: if the name leaves its directory.
        FileNotFoundError: if nothing is there.
    """
    bare, place = local_paths.annotated(name)
    root = _directory(place or "input")
    free = not inside_comfyui() and place is None
    candidates = [root / bare, Path(bare).expanduser()] if free else [root / bare]
    for path in candidates:
        if not free and not path.resolve().is_relative_to(root.resolve()):
            raise ValueError(f"input {name!r} leads out of {root}; copy the file into it")
        if bare and os.path.exists(path):  # noqa: PTH110 (Path.exists raises for some names)
            return path
    raise FileNotFoundError(f"input {name if len(name) <= 200 else f'{name[:200]}...'!r} is not in {root}; upload it or choose another")


def file_fingerprint(name: str | None) -> tuple[int | str, int] | None:
    """Changes whenever what is behind a name does; None when there is nothing.

    Of a file its modification time (ns) and its size; of a folder a hash of the names, times and sizes of its files, and their number.
    """
    try:
        path = resolve_input(name) if name else None
        if path is None:
            return None
        if path.is_dir():
            return local_paths.folder_fingerprint(path)
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_size


def next_output_path(prefix: str, suffix: str, *, kind: str = "output", width: int = 0, height: int = 0) -> tuple[Path, str, str]:
    """The next free numbered file, "video/restored" giving <output>/video/restored_00001_.mp4: (path, subfolder, file name).

    `prefix` may hold %year% %month% %day% %hour% %minute% %second% %width% %height%; its folder is made. Nothing is reserved.

    Raises:
        ValueError: if the prefix leads out of the directory.
    """
    root = _directory(kind)
    local_paths.check_prefix(prefix, root)
    if inside_comfyui():
        import folder_paths

        folder, stem, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, str(root), width, height)
    else:
        folder, stem, counter, subfolder = local_paths.next_number(prefix, root, width, height)
    filename = f"{stem}_{counter:05}_{suffix}"
    return Path(folder) / filename, subfolder, filename


def output_folder(name: str) -> Path:
    """The folder of that name below the output folder; nothing is made.

    Raises:
        ValueError: if the name leads out of it.
    """
    root = _directory("output")
    local_paths.check_prefix(name, root)
    return Path(root) / name


def check_output(prefix: str) -> None:
    """Raises ValueError for a prefix that `next_output_path` would refuse."""
    local_paths.check_prefix(prefix, _directory("output"))


def graph_tags(hidden: Any) -> dict[str, str]:
    """What a saved clip tells of the graph that made it, as ComfyUI's own nodes do: dropped on the page it opens that graph again.

    Args:
        hidden: a node's `cls.hidden` with its prompt and extra_pnginfo, as far as they are there; None outside a graph.

    Returns:
        "prompt" and, from the page, "workflow" (and what else it sends along), each as JSON; nothing under --disable-metadata.
    """
    if inside_comfyui():
        from comfy.cli_args import args

        if args.disable_metadata:
            return {}
    prompt = getattr(hidden, "prompt", None)
    tags = {**(getattr(hidden, "extra_pnginfo", None) or {}), **({"prompt": prompt} if prompt is not None else {})}
    return {str(name): json.dumps(value, default=str) for name, value in tags.items()}


# ---------------------------------------------------------------- VIDEO


def video_from_file(path: str | os.PathLike[str]) -> Any:
    """A value for a VIDEO output: ComfyUI's, else a `VideoFile`."""
    if not inside_comfyui():
        return VideoFile(Path(path))
    from comfy_api.latest import InputImpl

    return InputImpl.VideoFromFile(os.fspath(path))


def video_source(video: Any) -> tuple[Any, tuple[float, float]]:
    """What to open behind a VIDEO input, a path or a BytesIO, and its window (start, duration) in seconds; duration 0: to the end.

    A video made of frames (see `video_components`) is encoded by ComfyUI for this, with loss.
    """
    window = getattr(video, "get_active_trim_window", None)
    if window is None:  # older hosts keep the window to themselves
        start, duration = (getattr(video, f"_{type(video).__name__}__{name}", 0.0) for name in ("start_time", "duration"))
        return video.get_stream_source(), (float(start), float(duration))
    return video.get_stream_source(), window()


def video_components(video: Any) -> Any:
    """The frames, rate and sound of a VIDEO that is held in memory (`.images`, `.frame_rate`, `.audio`), or None for one with a file.

    Opening such a video through `video_source` would compress it first; take its frames instead.
    """
    if not inside_comfyui():
        return None
    from comfy_api.latest import InputImpl

    return video.get_components() if isinstance(video, InputImpl.VideoFromComponents) else None
