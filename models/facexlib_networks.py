"""Networks whose code is facexlib's. Its import brings numba and matplotlib along, so it happens when one is wanted, and may fail alone."""

from __future__ import annotations

import importlib
import warnings
from typing import Any


def facexlib_class(module: str, name: str) -> Any:
    """A class of facexlib, "RetinaFace" of "detection.retinaface".

    Raises:
        ImportError: one sentence, whatever went wrong in there: numba refuses numpy versions with errors of its own.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(importlib.import_module(f"facexlib.{module}"), name)
    except Exception as error:
        said = (str(error).splitlines() or [""])[0][:160] or type(error).__name__
        raise ImportError(f"the package facexlib cannot be imported ({said}); repair it with pip install --upgrade facexlib numba") from error
