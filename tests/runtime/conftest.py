"""Lets the tests of this room, and the ComfyUI processes that they start, share sample_nodes.py."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))
