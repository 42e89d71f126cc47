"""Makes `tiny` importable and its trained network a fixture."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from tiny import codebook_folder

__all__ = ["codebook_folder"]
