"""Errors of video files."""

from __future__ import annotations


class VideoError(ValueError):
    """A video cannot be read or written as asked: one sentence with what, where, what was received and what to do."""
