"""Builds detectors and pasters, and finds weights and methods, from names and settings, in the host's model folders."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path, PureWindowsPath
from typing import Any

import torch

from . import host
from .faces import Detector, Paster, load_detector, load_parser
from .faces.compositing.parsing import Parser
from .faces.compositing.strength import Gates
from .methods.registry import method, methods
from .models import embedded
from .models.architectures import architectures
from .models.checkpoints.catalogue import CATALOGUE, OURS, RESTORER_FOLDERS, find, licence_line, missing_message, named, published_as
from .models.checkpoints.load import peek
from .models.checkpoints.state_dict import notes_of
from .models.device import fast_in_bfloat16
from .models.upscaling import Upscaler, load_upscaler
from .options import parse_settings

DEDICATED_FOLDERS = (OURS, "facerestore_models")
"""Folders only for face restorers; the others hold other models as well."""
RESTORERS = re.compile(r"codeformer|keep[-_]|dicface|gfpgan|restoreformer|(bfr|color|inpainting)_100k|swinir_(gan|restoration)", re.IGNORECASE)

PRIORS = re.compile(r"flair|difface|ddpm|diffusion[-_]prior", re.IGNORECASE)


EMBEDDED = {"flair": "embedded face prior"} | {known.kind: known.embedded for known in architectures() if known.embedded}
"""Menu names of each method's embedded weights."""
EMBEDDED_TASKS = {(known.kind, mode): name for known in architectures() for mode, name in known.embedded_tasks.items()}
"""The same for modes other than "restore", by method and mode."""


PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Precisions of decoders, by menu name."""
UNCHANGED = "bfloat16 where pictures stay the same"
"""Name of the precision None, by which each network chooses; `resolved_precision` resolves `AUTO` to this or float32."""


def resolved_precision(precision: str, device: torch.device) -> str:
    """A precision's name, with `AUTO` resolved for a device; a job's workers use what was resolved at planning."""
    if precision != AUTO:
        return precision
    return UNCHANGED if fast_in_bfloat16(device) else "float32"


def find_weights(name: str) -> Path | None:
    """The file of a catalogued checkpoint if it is in one of the host's model folders."""
    return find(named(name), host.model_folders())


def weights_for(name: str, settings: Mapping[str, str]) -> Path | None:
    """The weights of a method: the published ones if a model folder has them, else the embedded; None for a method that needs none.

    Raises:
        ValueError: if there is no such method.
        FileNotFoundError: if its weights are neither installed nor embedded, with where to get them.
    """
    wanted = method(name).checkpoint(settings)
    found = None if wanted is None else find_weights(wanted)
    mode = settings.get("mode", "restore")
    if found is None:
        title = EMBEDDED.get(name) if mode == "restore" else EMBEDDED_TASKS.get((name, mode))
        found = embedded.listed(embedded.RESTORERS | embedded.PRIORS).get(title or "")
    if found is None and wanted is not None:
        if "mode" in settings:
            parse_settings(method(name).options(), {"mode": mode}, name)  # an unknown mode is reported first
        raise FileNotFoundError(missing_message(named(wanted), host.model_folders()))
    return found


def chosen_detector(name: str, rotate: str = "auto") -> Detector:
    """The detector of this name with installed weights; "auto" falls back to BlazeFace, with a message, if RetinaFace's package fails."""
    try:
        return load_detector(name, weights=find_weights("retinaface"), device=host.device(), placed=host.managed, rotate=rotate)
    except ImportError as error:
        if name != "auto" or find_weights("retinaface") is None:
            raise
        host.say(f"faces are found by BlazeFace instead of RetinaFace: {error}")
        return load_detector("blazeface", device=host.device(), rotate=rotate)


def chosen_paster(gates: str = "", **known: Any) -> Paster:
    """A paster, with ParseNet if its weights are installed. gates: see `Gates.parse`; `known`: its other attributes."""
    return Paster(parser=chosen_parser(), gates=Gates.parse(gates), **known)


UPSCALE_MODELS = "upscale_models"
"""ComfyUI's folder for upscale models."""


def named_upscaler(text: str | None) -> Upscaler | None:
    """The upscale model of a command line: a file, or a name in the host's folder; None for none. Raises FileNotFoundError."""
    if not text:
        return None
    path = Path(text)
    if not path.is_file():
        try:
            path = host.model_path(PureWindowsPath(text).name, UPSCALE_MODELS)  # takes both kinds of slashes
        except FileNotFoundError:
            raise FileNotFoundError(
                f"--upscale-model {text} is no file here, and none of that name is in the model folder {UPSCALE_MODELS}; give the path of one"
            ) from None
    return load_upscaler(path, device=host.device(), check_interrupt=host.check_interrupt)


def chosen_parser() -> Parser | None:
    """ParseNet if its weights are installed; None, with a message, if its package fails."""
    weights = find_weights("parsenet")
    try:
        return load_parser(weights, device=host.device(), placed=host.managed) if weights else None
    except ImportError as error:
        host.say(f"faces are masked without a parser: {error}")
        return None


AUTO = "auto"
"""Name of the automatic choice (`chosen_method`) in menus and `--method`."""


def chosen_method(described: bool, weights: str | None = None) -> tuple[str, str]:
    """The method chosen for footage, and the reason.

    Args:
        described: whether the degradation is described.
        weights: as for `named_weights`; if given, they determine the method.
    """
    file = named_weights(weights) if weights else None
    if weights and file is None:
        return "flair", "it needs no weights"
    if file is not None:
        own = next((name for name, title in EMBEDDED.items() if title == weights), None)
        kind = own or peek(file) or notes_of(file).get("network")  # a file that builds on another does not reveal its kind
        if PRIORS.search(file.name) or kind in ("flair", "prior"):
            return "flair", f"{file.name} is a diffusion prior"
        return (kind if kind in methods() else "per-frame"), f"{file.name} is its checkpoint"
    if described:
        return "flair", "the degradation is described, so data consistency applies"
    if find_weights("keep") is not None:
        return "keep", "KEEP's published weights are installed"
    return "blind", "the damage is not described, and no published weights are installed"


def named_weights(text: str) -> Path | None:
    """Resolves weights of a command line: a file, an embedded name ("embedded keep"), or "none".

    Raises:
        ValueError: for an unknown embedded name.
        FileNotFoundError: for the name of a published file that is missing, with how to get it.
    """
    if text == "none":
        return None
    if text.startswith("embedded"):
        known = embedded.listed(embedded.RESTORERS | embedded.PRIORS)
        if text not in known:
            raise ValueError(f"no weights are called {text!r}; there are {', '.join(known) or 'none in this installation'}")
        return known[text]
    path, published = Path(text), published_as(text)
    if published is not None and not path.is_file():
        found = find_weights(published.name)
        if found is not None:
            raise FileNotFoundError(f"--weights {text} is no file here; give its path {found}, or leave --weights out where its method takes it")
        fetched = f" `fvr models fetch {published.name}` downloads it." if published.direct else ""
        raise FileNotFoundError(f"--weights {text} is no file here: {missing_message(published, host.model_folders())}{fetched}")
    return path


def restorer_files() -> dict[str, Path]:
    """Files that may be face restorers, by menu name, embedded ones first; of duplicate names the first folder's counts.

    Detectors and parsers in these folders are excluded, and in folders of other models everything but likely names.
    """
    others = {checkpoint.file.lower() for checkpoint in CATALOGUE if "facedetection" in checkpoint.folders}

    def likely(folder: str, file: str) -> bool:
        return file.lower() not in others and not PRIORS.search(file) and (folder in DEDICATED_FOLDERS or bool(RESTORERS.search(file)))

    return embedded.listed(embedded.RESTORERS) | _files(likely)


def prior_files() -> dict[str, Path]:
    """Files that may be diffusion priors, by their names; see `restorer_files`."""
    return embedded.listed(embedded.PRIORS) | _files(lambda folder, file: bool(PRIORS.search(file)))


def licence_of(path: Path) -> str:
    """The licence in one line: from the catalogue, else from the file, else unknown."""
    published = published_as(path.name)
    return licence_line(published) if published else notes_of(path).get("licence", "licence unknown, the catalogue has no file of this name")


def fingerprint(path: Path | None) -> tuple[str, int, int] | None:
    """Path, modification time (ns) and size, which change with the file; None for no or a missing file."""
    try:
        status = path.stat() if path is not None else None
    except OSError:
        return None
    return (str(path), status.st_mtime_ns, status.st_size) if status else None


def fingerprints(*names: str) -> list[tuple[str, int, int] | None]:
    """Fingerprints of the files of catalogued checkpoints, which change when one is installed, replaced or removed."""
    return [fingerprint(find_weights(name)) for name in names]


def _files(likely: Callable[[str, str], bool]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in RESTORER_FOLDERS:
        for name in host.list_models(folder):
            if likely(folder, name.rpartition("/")[2]):
                with suppress(FileNotFoundError):  # a file may vanish after listing, which must not fail a menu
                    found.setdefault(name, host.model_path(name, folder))
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))
