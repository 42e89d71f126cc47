"""How the process of a command keeps its memory."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's `mallopt`."""
KEPT, LARGE = 256 << 20, 32 << 20
"""Bytes of freed memory that are kept at most, and the size from which a block is the system's own (the largest that glibc allows)."""


def keep_freed_memory() -> None:
    """Has glibc keep what is freed: crops come and go, and memory that is got anew is zeroed by the system, page by page, for a tenth of the time."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            adjust = ctypes.CDLL(None).mallopt
            adjust(TRIM_THRESHOLD, KEPT)
            adjust(MMAP_THRESHOLD, LARGE)
