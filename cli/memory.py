"""How the process of a command keeps its memory."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Numbers of glibc's `mallopt`."""
KEPT = 512 << 20
"""Bytes of freed memory that are kept at most: working memory of a published network for one crop, in float32."""


def keep_freed_memory() -> None:
    """Has glibc keep what is freed, of any size: crops and maps come and go, and what is got anew is zeroed by the system, page by page, for up to
    a quarter of the time."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            adjust = ctypes.CDLL(None).mallopt
            adjust(TRIM_THRESHOLD, KEPT)
            adjust(MMAP_MAX, 0)  # no block is the system's own
