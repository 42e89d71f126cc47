"""Diffusion priors by name."""

from __future__ import annotations

from collections.abc import Callable

from .gaussian import GaussianPrior
from .prior import Prior

EMBEDDED: dict[str, Callable[[], Prior]] = {"gaussian (no weights)": GaussianPrior}
"""Priors that need no download, by the name that menus show."""


def load_prior(name: str) -> Prior:
    """The embedded prior called `name`; the part before the first space is enough.

    Raises:
        ValueError: for an unknown name, listing the known ones.
    """
    for known, build in EMBEDDED.items():
        if name in (known, known.split()[0]):
            return build()
    raise ValueError(f"no diffusion prior is called {name!r}; choose one of {', '.join(EMBEDDED)}")
