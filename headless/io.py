"""The V3 node API: ComfyUI's own where there is one, else the small subset of it that our nodes use.

Nodes write `from ..headless.io import ComfyExtension, io, ui` and are then the same classes in ComfyUI, in `fvr run` and in tests.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ..host import comfy_api

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension, io, ui
elif (_api := comfy_api()) is not None:
    ComfyExtension, io, ui = _api.ComfyExtension, _api.io, _api.ui
else:
    from . import io_shim as io
    from . import ui_shim as ui
    from .io_shim import ComfyExtension


def newer(**arguments: Any) -> dict[str, Any]:
    """Those of the `io.Schema` arguments that the running host knows: `io.Schema(..., **newer(essentials_category="Video"))`.

    ComfyUI refuses the whole package over one unknown argument, so anything younger than the oldest supported release (0.13)
    goes through here.
    """
    known = {field.name for field in dataclasses.fields(io.Schema)}
    return {name: value for name, value in arguments.items() if name in known}
