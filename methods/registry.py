"""The methods by name: how the command line, the nodes and the benchmarks get a Restorer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from ..diffusion.gaussian import GaussianPrior
from ..physics.base import Degradation
from .flair import FlairRestorer
from .flair_options import PRESETS, FlairOptions
from .restorer import Restorer
from .settings import parse_settings

Build = Callable[[Path | None, Degradation | None, torch.device, Any], Restorer]
"""(weights, degradation, device, options) -> restorer."""


@dataclass(frozen=True)
class MethodSpec:
    """A method as menus show it and as `build_restorer` makes it.

    Attributes:
        name: what `--method` takes.
        summary: one line for help texts.
        options: the dataclass of its parameters, all with defaults.
        build: makes the restorer.
        presets: named sets of parameters, chosen with the setting "preset".
    """

    name: str
    summary: str
    options: type
    build: Build
    presets: Mapping[str, Any] = field(default_factory=dict)


def _build_flair(weights: Path | None, degradation: Degradation | None, device: torch.device, options: FlairOptions) -> Restorer:
    if weights is not None:
        raise ValueError(f"trained FLAIR networks are not supported yet by this version, so {weights} cannot be used; leave the weights out")
    return FlairRestorer(GaussianPrior(), degradation, options, device=device)


METHODS: dict[str, MethodSpec] = {
    spec.name: spec
    for spec in [
        MethodSpec(
            "flair",
            "FLAIR: diffusion sampling held to the observation by the exact physics of its degradation; needs no weights.",
            FlairOptions,
            _build_flair,
            PRESETS,
        ),
    ]
}


def build_restorer(
    name: str,
    *,
    weights: Path | str | None = None,
    degradation: Degradation | None = None,
    device: torch.device | str = "cpu",
    settings: Mapping[str, str] | None = None,
) -> Restorer:
    """The restorer of method `name`.

    Args:
        weights: a checkpoint file, or None for what the method embeds.
        degradation: what happened to the frames, for methods that use it; None is the method's own mild assumption.
        device: where its networks run.
        settings: parameters as text, NAME to VALUE; "preset" picks the set that the others then change.

    Raises:
        ValueError: one sentence for an unknown method, setting or preset, a bad value, or weights the method cannot use.
        FileNotFoundError: if `weights` is not a file.
    """
    if name not in METHODS:
        near = get_close_matches(name, METHODS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no method is called {name!r}; choose one of {', '.join(METHODS)}{hint}")
    spec = METHODS[name]
    path = None if weights is None else Path(weights)
    if path is not None and not path.is_file():
        raise FileNotFoundError(f"the weights file {path} does not exist; check --weights or leave it out")
    wanted = dict(settings or {})
    options = spec.options()
    extra = ("preset",) if spec.presets else ()
    if spec.presets and "preset" in wanted:
        chosen = wanted.pop("preset")
        if chosen not in spec.presets:
            raise ValueError(f"{name} has no preset {chosen!r}; choose one of {', '.join(spec.presets)}")
        options = spec.presets[chosen]
    return spec.build(path, degradation, torch.device(device), parse_settings(options, wanted, name, extra))
