"""Method, request and report of `fvr restore`, from its options."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from .clips import DEFAULT_RATE, encoding


def choose_method(options: Namespace) -> tuple[str, bool]:
    """The method, and whether FLAIR is used for faces with a detected blur. Prints what `auto` chose and why."""
    from ..assembly import AUTO, chosen_method

    if options.method != AUTO:
        return options.method, False
    method, why = chosen_method(bool(options.degradation), options.weights)
    estimates = not options.degradation and not options.weights
    print(f"method {method}: {why}{'; flair for faces with a detected blur' if estimates else ''}", flush=True)
    return method, estimates


def request_of(options: Namespace, method: str, estimates: bool) -> dict[str, Any]:
    """All options that determine the result."""
    from .. import host
    from ..assembly import resolved_precision
    from ..job_request import FINDING, PASTING

    names = ("weights", "compile", "set", "degradation", "upscale_model", *FINDING, *PASTING)
    precision = resolved_precision(options.precision, host.device())
    return {"method": method, "estimates": estimates, "precision": precision, **{name: getattr(options, name) for name in names}}


def write_report(options: Namespace, summary: Any, restorer: Any, detector: Any, paster: Any, **more: Any) -> None:
    """Writes the report of `--report`, with `more` entries."""
    from ..record import run_record

    rate = options.frame_rate or DEFAULT_RATE
    record = run_record(
        summary,
        restorer,
        command=options.line,
        clips={"input": options.input, "output": options.output},
        seed=options.seed,
        frames={**{name: getattr(options, name) for name in ("start", "count", "stride", "deinterlace")}, "frame_rate": rate},
        encoding=encoding(options),
        finding=None if options.aligned else {"faces": options.faces, "min_size": options.min_size},
        detector=detector,
        paster=paster,
        degradation=options.degradation,
    )
    Path(options.report).write_text(json.dumps(record | more, indent=1) + "\n", encoding="utf-8")
