"""Builds restorer, detector and paster from a request: the options of `fvr restore`, or those stored in a job, on any machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import host
from .assembly import PRECISIONS, chosen_detector, chosen_paster, named_upscaler, named_weights, weights_for
from .faces import Paster
from .film.checks import check_input, check_same
from .film.job import Job, Tools
from .methods.base import Restorer
from .methods.registry import build_restorer, with_estimates
from .models.checkpoints.origin import origins
from .models.compiled import compile_parts
from .models.device import on
from .physics import parse
from .record import job_identity

Request = Mapping[str, Any]
"""The options that define the tools, ready for JSON."""
Find = Callable[[str], Path | None]
"""Maps a request's weights name to its file, None for none."""

FINDING = ("faces", "min_size", "detector", "rotate")
PASTING = ("feather", "strength", "colour_match", "grain", "gates", "occlusion", "scale")


def weights_file(request: Request, find: Find = named_weights) -> Path | None:
    """The file of the method's weights; None if it needs none."""
    return find(request["weights"]) if request["weights"] else weights_for(request["method"], assignments(request["set"]))


def restorer_for(request: Request, find: Find = named_weights) -> Restorer:
    device, precision = host.device(), PRECISIONS.get(request["precision"])
    restorer = build_restorer(
        request["method"],
        weights=weights_file(request, find),
        degradation=parse(request["degradation"]) if request["degradation"] else None,
        device=device,
        settings=assignments(request["set"]),
        precision=precision,
    )
    if request["estimates"]:
        restorer = with_estimates(restorer, device=device, precision=precision, placed=lambda network: on(network, device))
    if request.get("compile"):  # missing in plans of older versions
        compile_parts(origins(restorer), host.say)
    return restorer


def paster_for(request: Request) -> Paster:
    return chosen_paster(fade=True, upscaler=named_upscaler(request["upscale_model"]), **{name: request[name] for name in PASTING})


def tools_for(request: Request, find: Find = named_weights) -> Tools:
    return Tools(restorer_for(request, find), chosen_detector(request["detector"], request["rotate"]), paster_for(request))


def worker_tools(planned: Job, find: Find = named_weights) -> Tools:
    """The tools of a job for a worker with only its folder. Raises ValueError if clip, weights or version differ from the plan."""
    if "method" not in planned.plan["request"]:
        raise ValueError(f"{planned.folder} was planned in ComfyUI with a restorer that only its workflow has; queue that again to go on")
    tools = tools_for(planned.plan["request"], find)
    identity = planned.plan["identity"]
    now = job_identity(identity["settings"], tools.restorer, tools.detector, tools.paster)
    now |= {"segment_seconds": identity["segment_seconds"], "input": check_input(planned)}
    check_same(planned, json.loads(json.dumps(now)), planned.plan["selection"], planned.plan["encoding"])
    return tools


def assignments(texts: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE texts as a dictionary; raises ValueError for a text that has no "=" in it."""
    for text in texts:
        if "=" not in text:
            raise ValueError(f"--set takes NAME=VALUE, got {text!r}")
    return {name.strip(): value for name, _, value in (text.partition("=") for text in texts)}
