"""Memory allocator settings of the command line's process."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Numbers of glibc's `mallopt`."""
KEPT = 512 << 20
"""Bytes of freed memory kept at most: working memory of a published network for one crop in float32."""


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory of any size: otherwise each large buffer is newly zeroed by the system, page by page, for up to a quarter of
    the time."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            adjust = ctypes.CDLL(None).mallopt
            adjust(TRIM_THRESHOLD, KEPT)
            adjust(MMAP_MAX, 0)  # never mmap single blocks
