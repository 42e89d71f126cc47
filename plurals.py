"""Counts with their nouns, for messages."""

from __future__ import annotations


def counted(count: int, one: str, many: str = "") -> str:
    """ "1 frame" and "1,240 frames"; `many` where the plural is not `one` with an s.

    >>> counted(2, "person", "people")
    '2 people'
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"
