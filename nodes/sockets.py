"""The socket types of this package."""

from __future__ import annotations

from ..runtime.io import io

Faces = io.Custom("FVR_FACES")
"""list[FaceClip]"""
DegradationSocket = io.Custom("FVR_DEGRADATION")
"""physics.Degradation"""
PriorSocket = io.Custom("FVR_PRIOR")
"""diffusion.Prior"""
RestorerSocket = io.Custom("FVR_RESTORER")
"""methods.Restorer"""
Times = io.Custom("FVR_TIMES")
"""video.FrameTimes"""

CATEGORY = "face video"
