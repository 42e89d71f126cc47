"""The methods by name: how the command line, the nodes and the benchmarks get a Restorer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ..models.architectures import architectures
from ..models.checkpoints.load import LoadedNetwork, load_network
from ..models.device import Placed, Placement, on
from ..models.embedded import BLIND, CODEBOOK, FOLDER, KEEP, PRIOR
from ..options import parse_settings
from ..physics.base import Degradation
from ..priors.base import Prior
from ..priors.load import prior_from_file, task_of
from ..priors.wiener import GaussianPrior
from .auto import AutoRestorer
from .base import NetworkRestorer, Restorer
from .blind.restorer import BlindOptions, BlindRestorer
from .flair.options import PRESETS, FlairOptions
from .flair.sampler import FlairRestorer
from .per_frame import PerFrameOptions, PerFrameRestorer

Build = Callable[[Path | None, Degradation | None, torch.device, Any, torch.dtype | None], Restorer]
"""(weights, degradation, device, options, precision) -> restorer."""


@dataclass(frozen=True)
class MethodSpec:
    """A method as menus show it and as `build_restorer` makes it.

    Attributes:
        name: what `--method` takes.
        summary: one line for help texts.
        options: the dataclass of its parameters, all with defaults.
        build: makes the restorer.
        presets: named sets of parameters, chosen with the setting "preset".
        preset_of: from a checkpoint's path to the preset that is used with it unless another is chosen.
        checkpoints: for each value of the setting "mode" ("restore" where a method has no modes), the catalogue's name of its weights.
    """

    name: str
    summary: str
    options: type
    build: Build
    presets: Mapping[str, Any] = field(default_factory=dict)
    preset_of: Callable[[Path], str | None] = lambda path: None
    checkpoints: Mapping[str, str] = field(default_factory=dict)

    def checkpoint(self, settings: Mapping[str, str]) -> str | None:
        """The catalogue's name of the weights for these settings, None for a method that needs none."""
        return self.checkpoints.get(settings.get("mode", "restore"), self.checkpoints.get("restore"))


def embedded_blind(placed: Placed, precision: torch.dtype | None = torch.float32) -> BlindRestorer | None:
    """The embedded blind restorer as a pre-cleaner, without look-ahead; None in an installation without its weights.

    Args:
        precision: that of the restorer it cleans for; None lets the pre-cleaner choose its own, anything else means float32.
    """
    if not (FOLDER / BLIND).is_file():
        return None
    network: Any = load_network(FOLDER / BLIND, None if precision is None else torch.float32).network
    return BlindRestorer(network, BlindOptions(ahead=False), place=placed(network))


def flair_precleaner(placed: Placed, precision: torch.dtype | None = torch.float32) -> BlindRestorer | None:
    """The pre-cleaner for FLAIR. It does without the self-ensemble: the noise that this would remove is left to the sampler."""
    precleaner = embedded_blind(placed, precision)
    return None if precleaner is None else precleaner.configured(twice=False)


def _embedded(name: str, placed: Placed, precision: torch.dtype | None = torch.float32) -> NetworkRestorer:
    """The restorer of an embedded file, without a pre-cleaner."""
    loaded = load_network(FOLDER / name, precision)
    return restorer_from(loaded, place=placed(loaded.network))


def with_precleaner(restorer: NetworkRestorer, loaded: LoadedNetwork, placed: Placed, precision: torch.dtype | None) -> NetworkRestorer:
    """`restorer`, with the embedded blind restorer as its pre-cleaner where its weights are embedded ones: those see 128 pixels only."""
    small = loaded.path.parent == FOLDER and loaded.kind != "blind"
    return restorer.precleaned_by(embedded_blind(placed, precision)) if small else restorer


def build_flair(
    weights: Path | None,
    degradation: Degradation | None,
    device: torch.device,
    options: FlairOptions,
    precision: torch.dtype | None,
    placed: Placed | None = None,
) -> FlairRestorer:
    """FLAIR over the prior of a file, the embedded one over the embedded blind restorer; None is the prior without weights."""
    placed = placed or (lambda network: on(network, device))
    prior: Prior = GaussianPrior()
    enhancer = precleaner = None
    if weights is not None:
        fast = torch.bfloat16 if weights.parent == FOLDER else torch.float32  # of the published ones nobody measured it
        prior = prior_from_file(weights, dtype=precision or fast, placed=placed)
        if weights.name == PRIOR and options.enhance and (FOLDER / CODEBOOK).is_file():
            enhancer = _embedded(CODEBOOK, placed, precision or fast)
        if weights.parent == FOLDER:
            precleaner = flair_precleaner(placed, precision)
    return FlairRestorer(prior, degradation, options, enhancer, precleaner=precleaner, device=device)


def with_estimates(otherwise: Restorer, *, device: torch.device, precision: torch.dtype | None, placed: Placed) -> Restorer:
    """`otherwise`, replaced by embedded FLAIR where the blur can be estimated from the footage, and followed by embedded KEEP for small faces.

    KEEP follows the blind restorer only: what small faces lack is coarse enough for its codes. In an installation without the embedded prior this
    is `otherwise` itself.
    """
    if not (FOLDER / PRIOR).is_file():
        return otherwise
    refiner = None
    if isinstance(otherwise, BlindRestorer) and otherwise.options.carry and (FOLDER / KEEP).is_file():
        refiner = _embedded(KEEP, placed).after_cleaning()
    return AutoRestorer(build_flair(FOLDER / PRIOR, None, device, PRESETS["embedded"], precision, placed), otherwise, refiner)


def restorer_class(kind: str) -> type[NetworkRestorer] | None:
    """The restorer class of a kind of network; None for networks that restore frame by frame."""
    named = next((known.restorer for known in architectures() if known.kind == kind), "")
    if not named:
        return None
    module, _, name = named.partition(":")
    return getattr(import_module(f"..{module}", __package__), name)


def restorer_from(loaded: LoadedNetwork, options: Any = None, *, place: Placement | None = None) -> NetworkRestorer:
    """The restorer for a loaded network; `options` None takes its method's defaults."""
    kind = restorer_class(loaded.kind)
    if kind is None:
        return PerFrameRestorer(loaded.network, options, place=place, name=loaded.kind)
    return kind.of_file(loaded.network, options, place=place, notes=loaded.notes)


def _build_network(method: str) -> Build:
    def build(weights: Path | None, degradation: Degradation | None, device: torch.device, options: Any, precision: torch.dtype | None) -> Restorer:
        if degradation is not None:
            raise ValueError(
                f"{method} does not use a degradation, got {degradation.describe()!r}; leave --degradation out, or choose --method flair"
            )
        if weights is None:
            raise ValueError(f"{method} needs a checkpoint; name one with --weights, or see `fvr models`")
        loaded = load_network(weights, precision)
        kind = loaded.kind if restorer_class(loaded.kind) else "per-frame"
        if kind != method:
            raise ValueError(f"{weights} holds {loaded.detail}; restore with --method {kind}, or give {method} its own checkpoint (see `fvr models`)")
        restorer = restorer_from(loaded, options, place=on(loaded.network, device))
        return with_precleaner(restorer, loaded, lambda network: on(network, device), precision)

    return build


FLAIR = MethodSpec(
    "flair",
    "FLAIR: diffusion sampling with exact data consistency under the degradation; needs no weights.",
    FlairOptions,
    build_flair,
    PRESETS,
    lambda path: "embedded" if path.name == PRIOR else task_of(path),
)
PER_FRAME = MethodSpec(
    "per-frame",
    "Any other face restorer, frame by frame: RestoreFormer, RestoreFormer++, and what spandrel loads, such as GFPGAN.",
    PerFrameOptions,
    _build_network("per-frame"),
)


def methods() -> dict[str, MethodSpec]:
    """All methods by name, in menu order: those of our own networks' records with FLAIR in second place, then `PER_FRAME` for all others."""
    own = [
        MethodSpec(known.kind, known.summary, found.options_type, _build_network(known.kind), checkpoints=known.checkpoints)
        for known in architectures()
        if (found := restorer_class(known.kind))
    ]
    return {spec.name: spec for spec in [*own[:1], FLAIR, *own[1:], PER_FRAME]}


def build_restorer(
    name: str,
    *,
    weights: Path | str | None = None,
    degradation: Degradation | None = None,
    device: torch.device | str = "cpu",
    settings: Mapping[str, str] | None = None,
    precision: torch.dtype | None = torch.float32,
) -> Restorer:
    """The restorer of method `name`.

    Args:
        weights: a checkpoint file; None only for FLAIR, which then samples from the prior without weights.
        degradation: what happened to the frames, for FLAIR; None has it estimated from the footage.
        device: where its networks run.
        settings: parameters as text, NAME to VALUE; "preset" picks the set that the others then change.
        precision: dtype of the part of a network behind the choice of codes, or of FLAIR's convolutions. None is bfloat16 for networks whose output
            does not change visibly by it (blind, the embedded prior), float32 for all others.

    Raises:
        ValueError: one sentence for an unknown method, setting or preset, a bad value, or weights the method cannot use.
        FileNotFoundError: if `weights` is not a file.
    """
    spec = method(name)
    path = None if weights is None else Path(weights)
    if path is not None and not path.is_file():
        raise FileNotFoundError(f"the weights file {path} does not exist; check --weights or leave it out")
    wanted = dict(settings or {})
    options = spec.options()
    extra = ("preset",) if spec.presets else ()
    suggested = spec.preset_of(path) if path is not None else None
    if suggested is not None:
        wanted.setdefault("preset", suggested)
    if spec.presets and "preset" in wanted:
        chosen = wanted.pop("preset")
        if chosen not in spec.presets:
            raise ValueError(f"{name} has no preset {chosen!r}; choose one of {', '.join(spec.presets)}")
        options = spec.presets[chosen]
    return spec.build(path, degradation, torch.device(device), parse_settings(options, wanted, name, extra), precision)


def method(name: str) -> MethodSpec:
    """The method called `name`. Raises ValueError if there is none, naming those that exist and the nearest."""
    known = methods()
    if name not in known:
        near = get_close_matches(name.lower(), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "; of all other restorers name the file, as its weights"
        raise ValueError(f"no method is called {name!r}; choose one of {', '.join(known)}{hint}")
    return known[name]
