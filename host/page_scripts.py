"""Where ComfyUI serves the scripts of this package."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

WEB = Path(__file__).resolve().parents[1] / "web"
NAME = "face-video-restoration"


def serve_scripts() -> None:
    """Gives them an address without a space: ComfyUI takes the folder's name, and finds no file under one that an address must quote."""
    served: dict[str, str] = getattr(sys.modules.get("nodes"), "EXTENSION_WEB_DIRS", {})
    for name in [name for name, place in served.items() if not re.fullmatch(r"[A-Za-z0-9._~-]+", name) and Path(place).resolve() == WEB]:
        served.setdefault(NAME, served.pop(name))
        logging.warning(
            "Face Video Restoration: ComfyUI finds no help pages in a folder named %r, got that in custom_nodes; rename it to %s", name, NAME
        )
