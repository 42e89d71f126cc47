"""Makes what all rooms' tests share importable: `from seeded_weights import seed_weights`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
