"""VIDEO values without ComfyUI."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class VideoFile:
    """A clip on disk: what our nodes ask of ComfyUI's VideoInput."""

    path: Path

    def get_stream_source(self) -> str:
        return str(self.path)

    def get_active_trim_window(self) -> tuple[float, float]:
        """Start and duration in seconds; a duration of 0 reaches to the end."""
        return 0.0, 0.0
