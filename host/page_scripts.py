"""URLs of this package's files for ComfyUI's page."""

from __future__ import annotations

import re
import sys
from pathlib import Path

WEB = Path(__file__).resolve().parents[1] / "web"
NAME = "face-video-restoration"


def serve_scripts() -> None:
    """Serves scripts, help pages and workflows under a plain ASCII URL; web/face_video.js tells the page.

    ComfyUI uses the folder's name, and finds no files under one that a URL must quote; its page looks for help pages under the part
    before a full stop.
    """
    host = sys.modules.get("nodes")
    served: dict[str, str] = getattr(host, "EXTENSION_WEB_DIRS", {})
    for name in [name for name, place in served.items() if not re.fullmatch(r"[A-Za-z0-9_-]+", name) and Path(place).resolve() == WEB]:
        served.setdefault(NAME, served.pop(name))
        getattr(host, "LOADED_MODULE_DIRS", {}).setdefault(NAME, str(WEB.parent))
