"""The socket types of this package, and the one widget that most nodes share."""

from __future__ import annotations

from typing import Any

from ..headless.io import io

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
OpticalFlow = io.Custom("OPTICAL_FLOW")
"""A model patcher around torchvision's RAFT, from ComfyUI's Load Optical Flow Model."""

CATEGORY = "face video"

ABSENT: Any = object()
"""Stands for an input that a prompt does not have, in checks and fingerprints: there a wired one is None, as its value is not known yet."""


def optional(*inputs: Any) -> list:
    """The same inputs, each of which a prompt may leave out.

    The page shows required widgets before optional ones and stores values by place: where one widget may be missing, all widgets of its
    node are made optional, so that they keep their order.
    """
    for one in inputs:
        one.optional = True
    return list(inputs)


def advanced(inputs: list, *names: str) -> list:
    """The same inputs, of which the page puts those with these names away until it is asked for more."""
    for one in inputs:
        one.advanced = one.id in names or one.advanced
    return inputs


def seed_input(tooltip: str = "The same seed gives the same pixels.") -> Any:
    """The seed of a node whose result depends on nothing else that is random."""
    return io.Int.Input("seed", default=0, min=0, max=2**63 - 1, control_after_generate=False, tooltip=tooltip)
