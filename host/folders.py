"""Folders and files by the host's names for them: weights, inputs and outputs; and messages without the server's paths."""

from __future__ import annotations

import mimetypes
import os
from contextlib import suppress
from pathlib import Path

from . import comfyui, local_paths
from .local_paths import MODEL_FOLDERS, OWN_MODELS
from .user_messages import named_and_resolved, user_facing, without_folders

WEIGHTS = frozenset({".ckpt", ".pt", ".pth", ".bin", ".safetensors", ".sft"})
VIDEO_SUFFIXES = frozenset({".mts", ".m2ts", ".ts", ".vob", ".mxf", ".3gp", ".mkv", ".mov", ".mp4", ".webm", ".avi", ".mpg", ".wmv", ".flv"})
"""Endings of video files that a system's table of MIME types may not know."""


def model_folders() -> dict[str, list[Path]]:
    """Every folder that is searched for weights, by name; the first of "face_video_restoration" is where ours belong.

    In ComfyUI our own name is registered on first use, merged with what extra_model_paths.yaml says, and its folder made, so that
    people see it. Names that no pack registered are looked for below ComfyUI's models folder. Last come the folders that are searched
    without ComfyUI, where `fvr models fetch` puts its files.
    """
    if not comfyui.inside_comfyui():
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
    """The weight files in a model folder, sorted, as names relative to it with forward slashes; the options of a combo."""
    found: set[str] = set()
    for root in _folders(folder):
        found.update(local_paths.files_below(root, WEIGHTS, deep=root != local_paths.models_root()))
    return sorted(found)


def model_path(name: str, folder: str = OWN_MODELS) -> Path:
    """The path of a name from `list_models`. The name must not lead out of its folder; links may, as people link weights from other disks.

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
    if chosen is None and comfyui.inside_comfyui():
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
    free = not comfyui.inside_comfyui() and place is None
    candidates = [root / bare, Path(bare).expanduser()] if free else [root / bare]
    for path in candidates:
        if not free and not path.resolve().is_relative_to(root.resolve()):
            raise ValueError(f"input {name!r} leads out of {root}; copy the file into it")
        if bare and os.path.exists(path):  # noqa: PTH110 (Path.exists raises for some names)
            return path
    raise FileNotFoundError(f"input {name if len(name) <= 200 else f'{name[:200]}...'!r} is not in {root}; upload it or choose another")


def file_fingerprint(name: str | None) -> tuple[int | str, int] | None:
    """A value that changes with the file or folder that a name stands for; None when there is none.

    For a file its modification time (ns) and size; for a folder a hash of the names, times and sizes of its files, and their number.
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
    if comfyui.inside_comfyui():
        import folder_paths

        folder, stem, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, str(root), width, height)
    else:
        folder, stem, counter, subfolder = local_paths.next_number(prefix, root, width, height)
    filename = f"{stem}_{counter:05}_{suffix}"
    return Path(folder) / filename, subfolder, filename


def output_folder(name: str) -> Path:
    """The folder of that name below the output folder; nothing is made. Raises ValueError if the name leads out of it."""
    root = _directory("output")
    local_paths.check_prefix(name, root)
    return Path(root) / name


def check_output(prefix: str) -> None:
    """Raises ValueError for a prefix that `next_output_path` would refuse."""
    local_paths.check_prefix(prefix, _directory("output"))


def user_message(text: str) -> str:
    """A sentence for ComfyUI's page, without the paths of the server's folders; outside ComfyUI the sentence itself."""
    return without_folders(text, _named_folders()) if comfyui.inside_comfyui() else text


def user_error(error: Exception) -> Exception:
    """An error for ComfyUI's page (`user_messages.user_facing`); outside ComfyUI the error itself."""
    return user_facing(error, _named_folders()) if comfyui.inside_comfyui() else error


def _named_folders() -> dict[Path, str]:
    """ComfyUI's folders with the names under which its users know them."""
    import folder_paths

    named: dict[Path, str] = {Path.home(): "~"}
    named |= dict.fromkeys(named_and_resolved(folder_paths.base_path), "ComfyUI")
    named |= dict.fromkeys(named_and_resolved(folder_paths.models_dir), "models")
    for name, places in model_folders().items():
        named |= {path: f"models/{name}" for place in places if place != local_paths.models_root() for path in named_and_resolved(place)}
    for kind in ("input", "output", "temp"):
        named |= dict.fromkeys(named_and_resolved(_directory(kind)), kind)
    return named
