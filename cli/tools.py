"""What `fvr restore` restores with, as its options say it."""

from __future__ import annotations

from argparse import Namespace
from typing import Any


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
    from ..job_request import FINDING, PASTING

    names = ("weights", "precision", "set", "degradation", *FINDING, *PASTING)
    return {"method": method, "estimates": estimates, **{name: getattr(options, name) for name in names}}
