"""What `fvr restore` restores with, made of its options or of what a job kept of them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..faces import Detector, Paster
    from ..film.plan import Tools
    from ..methods.base import Restorer

Request = Mapping[str, Any]
"""What the tools are made of, ready for JSON."""

FINDING = ("faces", "min_size", "detector", "rotate")
PASTING = ("feather", "strength", "colour_match", "grain", "gates", "occlusion")


def chosen_way(options: Namespace) -> tuple[str, bool]:
    """The method, and whether FLAIR takes over faces whose blur the footage shows. Says what `auto` chose and why."""
    from ..assembly import AUTO, chosen_method

    if options.method != AUTO:
        return options.method, False
    method, why = chosen_method(bool(options.degradation), options.weights)
    estimates = not options.degradation and not options.weights
    print(f"method {method}: {why}{'; flair for faces whose blur the footage shows' if estimates else ''}", flush=True)
    return method, estimates


def request_of(options: Namespace, method: str, estimates: bool) -> dict[str, Any]:
    """All options that decide what is restored and how."""
    names = ("weights", "precision", "set", "degradation", *FINDING, *PASTING)
    return {"method": method, "estimates": estimates, **{name: getattr(options, name) for name in names}}


def weights_of(request: Request) -> Path | None:
    """The file of the method's weights; None if it needs none."""
    from ..assembly import named_weights, weights_for

    return named_weights(request["weights"]) if request["weights"] else weights_for(request["method"], assignments(request["set"]))


def restorer_for(request: Request) -> Restorer:
    from .. import host
    from ..assembly import PRECISIONS
    from ..methods.registry import build_restorer, with_estimates
    from ..models.device import on
    from ..physics import parse

    device, precision = host.device(), PRECISIONS[request["precision"]]
    restorer = build_restorer(
        request["method"],
        weights=weights_of(request),
        degradation=parse(request["degradation"]) if request["degradation"] else None,
        device=device,
        settings=assignments(request["set"]),
        precision=precision,
    )
    if request["estimates"]:
        restorer = with_estimates(restorer, device=device, precision=precision, placed=lambda network: on(network, device))
    return restorer


def detector_for(request: Request) -> Detector:
    from ..assembly import chosen_detector

    return chosen_detector(request["detector"], request["rotate"])


def paster_for(request: Request) -> Paster:
    from ..assembly import chosen_paster

    return chosen_paster(fade=True, **{name: request[name] for name in PASTING})


def tools_for(request: Request) -> Tools:
    """All of them, for a job."""
    from ..film.plan import Tools

    return Tools(restorer_for(request), detector_for(request), paster_for(request))


def assignments(texts: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE texts as a dictionary.

    Raises:
        ValueError: naming the text that has no "=".
    """
    for text in texts:
        if "=" not in text:
            raise ValueError(f"--set takes NAME=VALUE, got {text!r}")
    return {name.strip(): value for name, _, value in (text.partition("=") for text in texts)}
