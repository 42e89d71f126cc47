"""Where ComfyUI serves what its page asks of this package."""

from __future__ import annotations

import re
import sys
from pathlib import Path

WEB = Path(__file__).resolve().parents[1] / "web"
NAME = "face-video-restoration"


def serve_scripts() -> None:
    """Gives scripts, help pages and workflows an address of plain letters; web/face_video.js tells the page which.

    ComfyUI takes the folder's name, and finds no file under one that an address must quote; its page looks for help pages under what stands
    before a full stop.
    """
    host = sys.modules.get("nodes")
    served: dict[str, str] = getattr(host, "EXTENSION_WEB_DIRS", {})
    for name in [name for name, place in served.items() if not re.fullmatch(r"[A-Za-z0-9_-]+", name) and Path(place).resolve() == WEB]:
        served.setdefault(NAME, served.pop(name))
        getattr(host, "LOADED_MODULE_DIRS", {}).setdefault(NAME, str(WEB.parent))
